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

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
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
        let cage = cage(&Confinement {
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

fn cage(confinement: &Confinement) -> Cage {
    Cage::new(confinement).unwrap()
}

/// Whether the kernel has what this is about; where it has not, the test shows nothing and says so. One that has must pass it.
fn confines_files() -> bool {
    let has = Cage::knows_files();
    if !has {
        eprintln!("LEFT OUT: this kernel has no Landlock (from Linux 5.13 on, and not switched off)");
    }
    has
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
    if !confines_files() {
        return;
    }
    let bed = Bed::new();
    let read = bed.cage.run(None, || {
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
    if !confines_files() {
        return;
    }
    let bed = Bed::new();
    let written = bed.cage.run(None, || {
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
    if !confines_files() {
        return;
    }
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
    assert_eq!(bed.cage.run(None, tried).unwrap(), [NO; 5]);
    // Threads that a confined one starts are confined; sockets within the machine and threads themselves are there.
    let (started, pair) = bed
        .cage
        .run(None, || {
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
        cage.enter(Reach::Driver).unwrap();
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
    if !confines_files() {
        return;
    }
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
    let tried = bed.cage.run(None, tried);
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
    let read = bed.cage.run(None, move || {
        let mut open = open;
        let mut text = String::new();
        let own = io::Read::read_to_string(&mut open, &mut text).is_ok();
        own && libraries.iter().all(|path| File::open(path).is_ok())
    });
    assert!(read.unwrap());
}

#[test]
fn a_folder_with_something_private_is_not_opened_for_a_librarys_sake() {
    if !confines_files() {
        return;
    }
    let library = system::loaded().into_iter().next().unwrap();
    let beside = library.parent().unwrap().to_path_buf();
    // As if the data were there: what is refused is the folder, and not the library.
    let cage = cage(&Confinement {
        private: beside.join("data"),
        ..Confinement::default()
    });
    let seen = cage.run(None, || (File::open(&library).is_ok(), fs::read_dir(&beside).is_ok()));
    assert_eq!(seen.unwrap(), (true, false));
}

#[test]
fn models_beside_what_is_private_are_read_and_it_is_not() {
    if !confines_files() {
        return;
    }
    let bed = Bed::new();
    let cage = cage(&Confinement {
        private: bed.at("data"),
        readable: vec![bed.folder.path().to_path_buf(), bed.at("data/models")],
        writable: Vec::new(),
    });
    let names = ["elsewhere/file", "data/models/model.pt", "data/pepper"];
    let read = cage.run(None, || names.map(|name| reads(&bed.at(name))));
    assert_eq!(read.unwrap(), [Ok(()), Ok(()), NO]);
}

#[test]
fn what_panics_on_a_confined_thread_is_an_error() {
    let bed = Bed::new();
    let panicked = bed.cage.run(None, || panic!("as planned"));
    assert_eq!(panicked.map(|(): ()| ()).unwrap_err().to_string(), "it panicked");
}

#[test]
fn a_model_is_read_by_the_thread_that_loads_it_and_by_no_other() {
    if !confines_files() {
        return;
    }
    let bed = Bed::new();
    fs::write(bed.at("data/models/other.pt"), "other").unwrap();
    // As in a mesh: no folder of models is read by all.
    let cage = cage(&Confinement {
        private: bed.at("data"),
        readable: Vec::new(),
        writable: vec![bed.at("data/unpacked")],
    });
    let (own, other) = (bed.at("data/models/model.pt"), bed.at("data/models/other.pt"));
    let read = || [reads(&own), reads(&other)];
    assert_eq!(cage.run(None, read).unwrap(), [NO, NO]);
    assert_eq!(cage.run(Some(&own), read).unwrap(), [Ok(()), NO]);
    // What runs models has one loaded anew, and reads no more than before when that is done.
    let again = cage.run(None, || {
        let (own, other) = (own.clone(), other.clone());
        let file = Some(own.clone());
        let loaded = cage.run_apart(file, move || [reads(&own), reads(&other)]);
        (loaded.unwrap(), read())
    });
    assert_eq!(again.unwrap(), ([Ok(()), NO], [NO, NO]));
}

#[test]
fn a_panic_apart_goes_on_where_it_is_waited_for() {
    let bed = Bed::new();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        bed.cage.run_apart(None, || panic!("as planned")).map(|(): ()| ())
    }));
    assert_eq!(*panicked.unwrap_err().downcast::<&str>().unwrap(), "as planned");
    assert_eq!(bed.cage.run_apart(None, || 7).unwrap(), 7);
}

#[test]
fn a_system_that_takes_no_filter_is_told_of_by_a_trial() {
    let bed = Bed::new();
    assert!(bed.cage.run(None, || ()).is_ok());
    // As in a container whose own filter refuses that.
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let mode = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, 22).unwrap();
    let rules = [
        (libc::SYS_seccomp, Vec::new()),
        (libc::SYS_prctl, vec![SeccompRule::new(vec![mode]).unwrap()]),
    ];
    let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    let filter = SeccompFilter::new(rules.into(), SeccompAction::Allow, refused, arch).unwrap();
    let filter: BpfProgram = filter.try_into().unwrap();
    let tried = std::thread::spawn(move || {
        seccompiler::apply_filter(&filter).unwrap();
        bed.cage.run(None, || ()).map_err(|error| error.to_string())
    });
    let told = tried.join().unwrap().unwrap_err();
    assert!(
        told.contains("system calls") && told.contains("--unconfined-models"),
        "{told}"
    );
}
