//! Confining a thread on Linux: Landlock for files and TCP, seccomp for system calls.
//!
//! Owns the two rule sets and where they are put into force. Decides nothing of which folders a mesh has.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, make_bitflags, path_beneath_rules,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::{Confinement, Reach};

/// What is read of any system: libraries, and what libraries look at to know the machine. No folder of a user, no settings, and of
/// `/proc` nothing that shows a process's environment or memory.
const SYSTEM: [&str; 15] = [
    "/usr",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/sys",
    "/dev/urandom",
    "/dev/random",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys",
    "/proc/self/maps",
    "/proc/self/stat",
    "/proc/self/statm",
    "/proc/self/cgroup",
];
/// Of the libraries beside one that is loaded, as many may be read.
const MAX_LIBRARIES: usize = 1_000;
/// Of the entries of a folder beside what is private, as many may be read.
const MAX_ENTRIES: usize = 10_000;
/// What is written of any system.
const SINKS: [&str; 2] = ["/dev/null", "/dev/zero"];

/// `fchmodat2`, which not all bindings have for all architectures.
const FCHMODAT2: i64 = 452;
/// The system calls that fail: starting programs, serving, other processes, other views of files, what Landlock does not know of files
/// (owners, modes, attributes, times; and lengths, which it knows from Linux 6.2 on), the machine itself, and ways around these rules. None
/// is made by libtorch or by a compiled package.
const REFUSED: [i64; 67] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_kill,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kcmp,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_truncate,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    FCHMODAT2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    libc::SYS_utimensat,
];
/// The same calls by the numbers that only the oldest architecture still has.
#[cfg(target_arch = "x86_64")]
const REFUSED_OLD: [i64; 5] = [
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
];

/// The same calls by the numbers of x86-64's ABI of 32-bit pointers, which one filter sees as well (`asm/unistd_x32.h`): all have this
/// bit, and some a number of their own.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;
#[cfg(target_arch = "x86_64")]
const X32_ONLY: [i64; 8] = [520, 521, 524, 528, 536, 539, 540, 545];

/// What is put into force on a thread.
pub(super) struct Rules {
    calls: Option<Filters>,
    files: Option<Files>,
}

/// What system calls are refused.
struct Filters {
    /// Beside a driver, which speaks to its services by sockets within the machine.
    beside_a_driver: BpfProgram,
    alone: BpfProgram,
}

impl Filters {
    fn new() -> Result<Self, seccompiler::BackendError> {
        Ok(Self {
            beside_a_driver: filter(Some(libc::AF_UNIX))?,
            alone: filter(None)?,
        })
    }
}

struct Files {
    /// What nothing is read of but what is named; as the kernel sees it.
    private: PathBuf,
    readable: BTreeSet<PathBuf>,
    /// The same, of which each folder's entries are read apart where what is private lies in it.
    named: Vec<PathBuf>,
    writable: BTreeSet<PathBuf>,
}

impl Rules {
    /// The rules, and what the system does not know of them.
    pub(super) fn new(confinement: &Confinement) -> (Self, Vec<String>) {
        let mut missing = Vec::new();
        let calls = Filters::new().map_err(|error| missing.push(format!("system calls: {error}")));
        let files = landlock_has(ABI::V1).map_err(|error| missing.push(format!("files: {error}")));
        let files = files.ok().map(|()| Files::of(confinement));
        if files.is_some() && landlock_has(ABI::V3).is_err() {
            missing.push("files: this kernel's rules do not know every way to shorten or to move one".to_owned());
        }
        let calls = calls.ok();
        (Self { calls, files }, missing)
    }

    /// Confines the calling thread; what could not be put into force is returned.
    pub(super) fn enter(&self, reach: Reach<'_>) -> Vec<String> {
        let mut failed = Vec::new();
        let files = matches!(reach, Reach::File(_));
        // Before system calls: nothing of these rules is opened once the filter holds.
        if let (Some(rules), Reach::File(file)) = (&self.files, reach)
            && let Err(error) = rules.enter(file)
        {
            failed.push(format!("files: {error}"));
        }
        let filter = |filters: &Filters| {
            let program = if files {
                &filters.alone
            } else {
                &filters.beside_a_driver
            };
            seccompiler::apply_filter(program)
        };
        if let Some(filters) = &self.calls
            && let Err(error) = filter(filters)
        {
            failed.push(format!("system calls: {error}"));
        }
        failed
    }
}

impl Files {
    fn of(confinement: &Confinement) -> Self {
        let private = &confinement.private;
        // As the kernel sees it; what is not there yet hides nothing.
        let private = private.canonicalize().unwrap_or_else(|_| private.clone());
        let mut readable: BTreeSet<PathBuf> = SYSTEM.map(PathBuf::from).into();
        for library in loaded() {
            // Those beside it may yet be loaded; what else lies there may be anything.
            readable.extend(library.parent().map(libraries_in).unwrap_or_default());
            readable.insert(library);
        }
        readable.extend(std::env::current_exe());
        // A link may lead to a folder that holds what is private.
        let real = |path: PathBuf| path.canonicalize().unwrap_or(path);
        let mut readable: BTreeSet<PathBuf> = readable.into_iter().map(real).collect();
        readable.retain(|path| !private.starts_with(path));
        let sinks = SINKS.map(PathBuf::from).into_iter();
        Self {
            private,
            readable,
            named: confinement.readable.clone(),
            writable: sinks.chain(confinement.writable.iter().cloned()).collect(),
        }
    }

    /// Paths are looked up each time: a folder may have been made since. One that is not there is left out.
    fn enter(&self, file: Option<&Path>) -> Result<(), RulesetError> {
        // Of what a newer kernel knows, what it does not know is left out; the files' rules are there since the first.
        let abi = ABI::V5;
        let read: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
        let write = make_bitflags!(AccessFs::{
            ReadFile | ReadDir | WriteFile | Truncate | MakeReg | MakeDir | RemoveFile | RemoveDir
        });
        let rules = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(abi))?
            .handle_access(AccessNet::from_all(abi))?
            .create()?
            .add_rules(path_beneath_rules(&self.readable, read))?
            .add_rules(path_beneath_rules(
                self.named.iter().flat_map(|path| self.apart(path)),
                read,
            ))?
            .add_rules(path_beneath_rules(file, read))?
            .add_rules(path_beneath_rules(&self.writable, write))?;
        rules.restrict_self().map(drop)
    }
}

impl Files {
    /// A folder, or what lies in it without what is private: a repository of models may be where the mesh keeps its data, too.
    fn apart(&self, path: &Path) -> Vec<PathBuf> {
        let holds = |path: &Path| path.canonicalize().is_ok_and(|real| self.private.starts_with(real));
        if !holds(path) {
            return vec![path.to_path_buf()];
        }
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        let entries = entries.map(|entry| entry.path()).filter(|path| !holds(path));
        entries.take(MAX_ENTRIES).collect()
    }
}

pub(super) fn knows_files() -> bool {
    landlock_has(ABI::V1).is_ok()
}

/// Whether the kernel has the rules for files of this version; the error says what lacks.
fn landlock_has(version: ABI) -> Result<(), RulesetError> {
    let rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    rules.handle_access(AccessFs::from_all(version))?.create().map(drop)
}

/// The libraries of this process, as the kernel has them mapped.
pub(super) fn loaded() -> BTreeSet<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let path = |line: &str| line.find('/').and_then(|at| line.get(at..)).map(PathBuf::from);
    maps.lines().filter_map(path).filter(|path| is_library(path)).collect()
}

fn is_library(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.ends_with(".so") || name.contains(".so."))
}

fn libraries_in(folder: &Path) -> BTreeSet<PathBuf> {
    // The system's own folders are read whole, and have thousands.
    if SYSTEM.iter().any(|known| folder.starts_with(known)) {
        return BTreeSet::new();
    }
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path()).filter(|path| is_library(path));
    paths.take(MAX_LIBRARIES).collect()
}

/// Refuses system calls, and sockets but for those of one family.
fn filter(family: Option<i32>) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let but = |argument: u64| -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
        let other = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, argument)?;
        Ok(vec![SeccompRule::new(vec![other])?])
    };
    let sockets = family.map(|family| but(u64::from(family.unsigned_abs())));
    rules.insert(libc::SYS_socket, sockets.transpose()?.unwrap_or_default());
    // A process that aborts tells itself; limits are its own.
    rules.insert(libc::SYS_tgkill, but(u64::from(std::process::id()))?);
    rules.insert(libc::SYS_prlimit64, but(0)?);
    #[cfg(target_arch = "x86_64")]
    {
        rules.extend(REFUSED_OLD.map(|call| (call, Vec::new())));
        let common: Vec<_> = rules.iter().map(|(call, rules)| (call | X32, rules.clone())).collect();
        rules.extend(common);
        rules.extend(X32_ONLY.map(|call| (call | X32, Vec::new())));
    }
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, SeccompAction::Allow, refused, arch)?.try_into()
}
