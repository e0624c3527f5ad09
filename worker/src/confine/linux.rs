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

use super::Confinement;

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
/// What is written of any system.
const SINKS: [&str; 2] = ["/dev/null", "/dev/zero"];

/// The system calls that fail: starting programs, serving, other processes, other views of files, the machine itself, and ways around
/// these rules. None is made by libtorch or by a compiled package.
const REFUSED: [i64; 51] = [
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
];

/// The same calls by the numbers of x86-64's ABI of 32-bit pointers, which one filter sees as well (`asm/unistd_x32.h`): all have this
/// bit, and some a number of their own.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;
#[cfg(target_arch = "x86_64")]
const X32_ONLY: [i64; 6] = [520, 521, 528, 539, 540, 545];

/// What is put into force on a thread.
pub(super) struct Rules {
    calls: Option<BpfProgram>,
    files: Option<Files>,
}

struct Files {
    readable: BTreeSet<PathBuf>,
    writable: BTreeSet<PathBuf>,
}

impl Rules {
    /// The rules, and what the system does not know of them.
    pub(super) fn new(confinement: &Confinement) -> (Self, Vec<String>) {
        let mut missing = Vec::new();
        let calls = filter()
            .map_err(|error| missing.push(format!("system calls: {error}")))
            .ok();
        let files = landlock_is_there().map_err(|error| missing.push(format!("files: {error}")));
        let files = files.ok().map(|()| Files::of(confinement));
        (Self { calls, files }, missing)
    }

    /// Confines the calling thread; what could not be put into force is returned.
    pub(super) fn enter(&self, files: bool) -> Vec<String> {
        let mut failed = Vec::new();
        // Before system calls: nothing of these rules is opened once the filter holds.
        if let Some(rules) = self.files.as_ref().filter(|_| files)
            && let Err(error) = rules.enter()
        {
            failed.push(format!("files: {error}"));
        }
        if let Some(program) = &self.calls
            && let Err(error) = seccompiler::apply_filter(program)
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
            readable.extend(library.parent().map(Path::to_path_buf));
            readable.insert(library);
        }
        readable.extend(std::env::current_exe());
        // A link may lead to a folder that holds what is private.
        let real = |path: PathBuf| path.canonicalize().unwrap_or(path);
        let mut readable: BTreeSet<PathBuf> = readable.into_iter().map(real).collect();
        readable.retain(|path| !private.starts_with(path));
        readable.extend(confinement.readable.iter().cloned());
        let sinks = SINKS.map(PathBuf::from).into_iter();
        Self {
            readable,
            writable: sinks.chain(confinement.writable.iter().cloned()).collect(),
        }
    }

    /// Paths are looked up each time: a folder may have been made since. One that is not there is left out.
    fn enter(&self) -> Result<(), RulesetError> {
        // Of what a newer kernel knows, what it does not know is left out; the files' rules are there since the first.
        let abi = ABI::V5;
        let read: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
        let write = AccessFs::from_all(ABI::V3) & !AccessFs::Execute;
        let rules = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(abi))?
            .handle_access(AccessNet::from_all(abi))?
            .create()?
            .add_rules(path_beneath_rules(&self.readable, read))?
            .add_rules(path_beneath_rules(&self.writable, write))?;
        rules.restrict_self().map(drop)
    }
}

/// Whether the kernel has the rules for files at all; the error says what lacks.
fn landlock_is_there() -> Result<(), RulesetError> {
    let rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    rules.handle_access(AccessFs::from_all(ABI::V1))?.create().map(drop)
}

/// The libraries of this process, as the kernel has them mapped.
pub(super) fn loaded() -> BTreeSet<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let path = |line: &str| line.find('/').and_then(|at| line.get(at..)).map(PathBuf::from);
    let is_library = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.contains(".so"))
    };
    maps.lines().filter_map(path).filter(is_library).collect()
}

fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    rules.insert(libc::SYS_socket, vec![other_families()?]);
    #[cfg(target_arch = "x86_64")]
    {
        let common: Vec<_> = rules.iter().map(|(call, rules)| (call | X32, rules.clone())).collect();
        rules.extend(common);
        rules.extend(X32_ONLY.map(|call| (call | X32, Vec::new())));
    }
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, SeccompAction::Allow, refused, arch)?.try_into()
}

/// Sockets between processes of this machine stay: drivers speak to their services by them.
fn other_families() -> Result<SeccompRule, seccompiler::BackendError> {
    let local = u64::from(libc::AF_UNIX.unsigned_abs());
    SeccompRule::new(vec![SeccompCondition::new(
        0,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::Ne,
        local,
    )?])
}
