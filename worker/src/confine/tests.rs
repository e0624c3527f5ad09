//! What a confined thread can do, and what no other thread loses by it.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::ErrorKind,
    net::{TcpListener, TcpStream},
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixListener, UnixStream},
    },
    path::Path,
    process::Command,
};

use tempfile::TempDir;

use super::*;

struct Bed {
    folder: TempDir,
    cage: Cage,
}

impl Bed {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["data", "data/models", "data/unpacked", "elsewhere"] {
            fs::create_dir(at(name)).unwrap();
        }
        for name in ["data/pepper", "data/models/model.pt", "elsewhere/file"] {
            fs::write(at(name), name).unwrap();
        }
        let cage = Cage::new(&Confinement {
            private: at("data"),
            readable: vec![at("data/models")],
            writable: vec![at("data/unpacked")],
        });
        Self { folder, cage }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn reads(path: &Path) -> Result<(), ErrorKind> {
    fs::read(path).map(drop).map_err(|error| error.kind())
}

fn writes(path: &Path) -> Result<(), ErrorKind> {
    let opened = OpenOptions::new().write(true).create(true).truncate(true).open(path);
    opened.map(drop).map_err(|error| error.kind())
}

const NO: Result<(), ErrorKind> = Err(ErrorKind::PermissionDenied);

#[test]
fn a_confined_thread_reads_models_and_nothing_that_is_private_or_elsewhere() {
    let bed = Bed::new();
    let read = bed.cage.run(|| {
        let names = ["data/models/model.pt", "data/pepper", "elsewhere/file"];
        let by_another_way = "/proc/self/root".to_owned() + bed.at("data/pepper").to_str().unwrap();
        let mut read = names.map(|name| reads(&bed.at(name))).to_vec();
        read.push(reads(Path::new(&by_another_way)));
        read.extend(["/etc/passwd", "/proc/self/environ", "/proc/self/mem"].map(|path| reads(Path::new(path))));
        read
    });
    assert_eq!(read.unwrap(), [Ok(()), NO, NO, NO, NO, NO, NO]);
    // Those who did not enter lose nothing.
    assert_eq!(reads(&bed.at("data/pepper")), Ok(()));
}

#[test]
fn a_confined_thread_writes_where_it_may_and_nowhere_else() {
    let bed = Bed::new();
    let written = bed.cage.run(|| {
        let names = [
            "data/unpacked/new",
            "data/pepper",
            "data/models/model.pt",
            "elsewhere/new",
        ];
        let mut written = names.map(|name| writes(&bed.at(name))).to_vec();
        written.push(fs::remove_file(bed.at("elsewhere/file")).map_err(|error| error.kind()));
        written.push(
            fs::hard_link(bed.at("data/pepper"), bed.at("data/unpacked/pepper"))
                .map_err(|_| ErrorKind::PermissionDenied),
        );
        written.push(writes(Path::new("/dev/null")));
        written
    });
    assert_eq!(written.unwrap(), [Ok(()), NO, NO, NO, NO, NO, Ok(())]);
    assert_eq!(fs::read(bed.at("data/pepper")).unwrap(), b"data/pepper");
    assert_eq!(writes(&bed.at("elsewhere/new")), Ok(()));
}

#[test]
fn a_confined_thread_reaches_no_network_and_starts_no_program() {
    let bed = Bed::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let tried = || {
        let kind = |error: io::Error| error.kind();
        [
            TcpStream::connect(address).map(drop).map_err(kind),
            TcpListener::bind("127.0.0.1:0").map(drop).map_err(kind),
            std::net::UdpSocket::bind("127.0.0.1:0").map(drop).map_err(kind),
            listener
                .try_clone()
                .and_then(|open| open.accept())
                .map(drop)
                .map_err(kind),
            Command::new("/bin/true").status().map(drop).map_err(kind),
        ]
    };
    assert_eq!(bed.cage.run(tried).unwrap(), [NO; 5]);
    // Threads that a confined one starts are confined; sockets within the machine and threads themselves are there.
    let (started, pair) = bed
        .cage
        .run(|| {
            (
                std::thread::spawn(move || TcpStream::connect(address).is_ok())
                    .join()
                    .unwrap(),
                UnixStream::pair().is_ok(),
            )
        })
        .unwrap();
    assert_eq!((started, pair), (false, true));
    assert!(TcpStream::connect(address).is_ok() && Command::new("/bin/true").status().unwrap().success());
}

#[test]
fn a_thread_beside_a_driver_keeps_its_files() {
    let bed = Bed::new();
    let (cage, at) = (bed.cage.clone(), bed.at("data/pepper"));
    let socket = bed.at("service");
    let _service = UnixListener::bind(&socket).unwrap();
    let tried = std::thread::spawn(move || {
        let kind = |error: io::Error| error.kind();
        cage.enter(false).unwrap();
        [
            reads(&at),
            UnixStream::connect(&socket).map(drop).map_err(kind),
            Command::new("/bin/true").status().map(drop).map_err(kind),
        ]
    });
    assert_eq!(tried.join().unwrap(), [Ok(()), Ok(()), NO]);
}

#[test]
fn a_confined_thread_changes_nothing_of_files_that_it_may_not_write_and_disturbs_no_other_process() {
    let bed = Bed::new();
    let socket = bed.at("service");
    let _service = UnixListener::bind(&socket).unwrap();
    let open = File::open(bed.at("data/pepper")).unwrap();
    // To whom it is already: whoever runs this may do that.
    let own = rustix::process::getuid().as_raw();
    let mut other = Command::new("/bin/sleep").arg("600").spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&other);
    let tried = || {
        let kind = |error: io::Error| error.kind();
        let killed = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        [
            fs::set_permissions(bed.at("data/pepper"), Permissions::from_mode(0o666)).map_err(kind),
            open.set_permissions(Permissions::from_mode(0o666)).map_err(kind),
            open.set_modified(std::time::UNIX_EPOCH).map_err(kind),
            std::os::unix::fs::chown(bed.at("data/pepper"), Some(own), None).map_err(kind),
            std::os::unix::fs::symlink("elsewhere", bed.at("data/unpacked/link")).map_err(kind),
            UnixStream::connect(&socket).map(drop).map_err(kind),
            killed.map_err(|error| io::Error::from(error).kind()),
        ]
    };
    let tried = bed.cage.run(tried);
    let lives = other.try_wait().unwrap().is_none();
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(tried.unwrap(), [NO; 7]);
    assert!(lives);
}

#[test]
fn what_is_open_stays_open_and_libraries_can_be_read() {
    let bed = Bed::new();
    let open = File::open(bed.at("data/pepper")).unwrap();
    let libraries = system::loaded();
    assert!(
        libraries.iter().any(|path| path.to_string_lossy().contains("libc.so")),
        "{libraries:?}"
    );
    let read = bed.cage.run(move || {
        let mut open = open;
        let mut text = String::new();
        let own = io::Read::read_to_string(&mut open, &mut text).is_ok();
        own && libraries.iter().all(|path| File::open(path).is_ok())
    });
    assert!(read.unwrap());
}

#[test]
fn a_folder_with_something_private_is_not_opened_for_a_librarys_sake() {
    let library = system::loaded().into_iter().next().unwrap();
    let beside = library.parent().unwrap().to_path_buf();
    // As if the data were there: what is refused is the folder, and not the library.
    let cage = Cage::new(&Confinement {
        private: beside.join("data"),
        ..Confinement::default()
    });
    let seen = cage.run(|| (File::open(&library).is_ok(), fs::read_dir(&beside).is_ok()));
    assert_eq!(seen.unwrap(), (true, false));
}

#[test]
fn models_beside_what_is_private_are_read_and_it_is_not() {
    let bed = Bed::new();
    let cage = Cage::new(&Confinement {
        private: bed.at("data"),
        readable: vec![bed.folder.path().to_path_buf(), bed.at("data/models")],
        writable: Vec::new(),
    });
    let names = ["elsewhere/file", "data/models/model.pt", "data/pepper"];
    let read = cage.run(|| names.map(|name| reads(&bed.at(name))));
    assert_eq!(read.unwrap(), [Ok(()), Ok(()), NO]);
}

#[test]
fn what_panics_on_a_confined_thread_is_an_error() {
    let bed = Bed::new();
    let panicked = bed.cage.run(|| panic!("as planned"));
    assert_eq!(panicked.map(|(): ()| ()).unwrap_err().to_string(), "it panicked");
}
