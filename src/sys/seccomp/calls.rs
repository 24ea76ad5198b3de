//! Which system calls are allowed. The comments say who needs what: glibc and musl, the standard library and tokio use
//! different calls for the same thing.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
use seccompiler::{BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition};
use seccompiler::{SeccompFilter, SeccompRule, TargetArch};

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: TargetArch = TargetArch::aarch64;

/// Allowed whatever the arguments are. Everything a query meets on its way has to be here.
pub(super) const ALWAYS: &[c_long] = &[
    // Datagrams and streams.
    libc::SYS_recvmmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_listen,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    // Connected to each other and to nothing else.
    libc::SYS_socketpair,
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_ppoll,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_sched_yield,
    libc::SYS_restart_syscall,
    // Clocks, where the kernel's page of them cannot be read without a call.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    // Memory. The calls that may make it executable are below.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    // Files that are read: configuration, certificates, /proc, /sys. The calls that open them are below.
    libc::SYS_pread64,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_faccessat,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
    // Threads, from their start to their end.
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Signals that come in.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // Questions about this process and this machine.
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getcpu,
    libc::SYS_getrusage,
    libc::SYS_getrandom,
    libc::SYS_sysinfo,
    libc::SYS_uname,
];

/// The same needs under the older names that this architecture still has. glibc and musl each use some.
#[cfg(target_arch = "x86_64")]
pub(super) const OLDER: &[c_long] = &[
    libc::SYS_epoll_wait,
    libc::SYS_poll,
    libc::SYS_pipe,
    libc::SYS_dup2,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_getrlimit,
    libc::SYS_time,
];
#[cfg(target_arch = "aarch64")]
pub(super) const OLDER: &[c_long] = &[];

/// What the kernel's tracer makes a traced function call in its own name: `uretprobe` (335, since 6.11) on return and
/// `uprobe` (336, since 6.18) on entry. The libc crate names neither. A refusal would be taken for the function's own
/// doing and crash the process; the first kernels that have `uretprobe` do ask the filter.
#[cfg(target_arch = "x86_64")]
pub(super) const TRACED: &[c_long] = &[335, 336];
#[cfg(target_arch = "aarch64")]
pub(super) const TRACED: &[c_long] = &[];

/// The calls that open a file by its name, and which of their arguments has the flags.
#[cfg(target_arch = "x86_64")]
const OPENING: &[(c_long, u8)] = &[(libc::SYS_openat, 2), (libc::SYS_open, 1)];
#[cfg(target_arch = "aarch64")]
const OPENING: &[(c_long, u8)] = &[(libc::SYS_openat, 2)];

/// Said to be unknown, not forbidden: only then C libraries fall back to an older call. (clone3 keeps its flags in
/// memory, where no filter can look; clone has them in a register.)
const ABSENT: &[c_long] = &[
    libc::SYS_clone3,
    libc::SYS_close_range,
    libc::SYS_openat2,
    libc::SYS_faccessat2,
    libc::SYS_epoll_pwait2,
    libc::SYS_futex_waitv,
    libc::SYS_pidfd_open,
];

/// The filter that hides calls.
pub(super) fn absent() -> BpfProgram {
    let rules = ABSENT.iter().map(|call| (*call, Vec::new())).collect();
    program(rules, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32))
}

/// The filter that forbids everything but what is listed here. `process` is our process id.
pub(super) fn allowed(process: u32) -> BpfProgram {
    program(rules(process), SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow)
}

/// Each allowed call with its rules, one of which has to match; none means that all is allowed.
pub(super) fn rules(process: u32) -> BTreeMap<i64, Vec<SeccompRule>> {
    // What ABSENT hides passes here, so that the other filter's word counts.
    let plain = [ALWAYS, OLDER, TRACED, ABSENT].concat();
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = plain.into_iter().map(|call| (call, Vec::new())).collect();
    rules.extend(checked(process));
    rules.extend(OPENING.iter().map(|(call, flags)| (*call, vec![reading(*flags)])));
    rules
}

/// Calls of which only some uses are allowed.
#[allow(clippy::unnecessary_cast, reason = "the C library chooses the type of an ioctl")]
fn checked(process: u32) -> [(c_long, Vec<SeccompRule>); 10] {
    let not_executable = || vec![rule(&[(2, Dword, MaskedEq(libc::PROT_EXEC as u64), 0)])];
    let terminal = [libc::TCGETS as u64, libc::TCGETS2 as u64, libc::TIOCGWINSZ as u64];
    let socket = [libc::FIONBIO as u64, libc::FIONREAD as u64, libc::SIOCGIFINDEX as u64];
    let own_process = || vec![rule(&[(0, Dword, Eq, process.into())])];
    [
        (libc::SYS_socket, sockets()),
        (libc::SYS_clone, threads()),
        // No code but what was loaded at the start.
        (libc::SYS_mmap, not_executable()),
        (libc::SYS_mprotect, not_executable()),
        // abort(3): glibc names the process, musl only the thread. Signals to others are not ours to send.
        (libc::SYS_tgkill, own_process()),
        (libc::SYS_kill, own_process()),
        (libc::SYS_tkill, vec![rule(&[(1, Dword, Eq, libc::SIGABRT as u64)])]),
        (libc::SYS_prlimit64, vec![rule(&[(0, Dword, Eq, 0), (2, Qword, Eq, 0)])]),
        // Names of threads and, in glibc, of memory.
        (libc::SYS_prctl, one_of(0, &[libc::PR_SET_NAME as u64, libc::PR_SET_VMA as u64])),
        // Whether this is a terminal, but not typing into it; a socket that does not wait; the number of an interface.
        (libc::SYS_ioctl, one_of(1, &[terminal, socket].concat())),
    ]
}

/// Opens what is there, to read it. The keeper writes what there is to write. A server that could not change its user owns
/// the programs that the keeper executes with the capabilities it kept, and must not put its own in their place.
fn reading(flags: u8) -> SeccompRule {
    // O_TMPFILE without the O_DIRECTORY in it, which is harmless alone.
    let unnamed = libc::O_TMPFILE & !libc::O_DIRECTORY;
    // Not O_ACCMODE, which in musl has a bit more.
    let writing = libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC | unnamed;
    rule(&[(flags, Dword, MaskedEq(writing as u64), 0)])
}

/// TCP, UDP, and the kernel's list of addresses. Of Unix sockets only the kind that C libraries need to ask for the number
/// of an interface: services of a node listen on streams, some under names that whoever shares its network can connect to.
fn sockets() -> Vec<SeccompRule> {
    let kind = MaskedEq(!((libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) as u64) & u64::from(u32::MAX));
    let one = |family: i32, kinds: i32, protocol: i32| {
        let family = (0, Dword, Eq, family as u64);
        rule(&[family, (1, Dword, kind.clone(), kinds as u64), (2, Dword, Eq, protocol as u64)])
    };
    let mut rules = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        for protocol in [0, libc::IPPROTO_UDP] {
            rules.push(one(family, libc::SOCK_DGRAM, protocol));
        }
        for protocol in [0, libc::IPPROTO_TCP] {
            rules.push(one(family, libc::SOCK_STREAM, protocol));
        }
    }
    rules.push(one(libc::AF_UNIX, libc::SOCK_DGRAM, 0));
    for kind in [libc::SOCK_RAW, libc::SOCK_DGRAM] {
        rules.push(one(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE));
    }
    rules
}

/// A thread shares its memory and its process with its maker, and has no namespace of its own.
fn threads() -> Vec<SeccompRule> {
    let shared = libc::CLONE_THREAD | libc::CLONE_VM | libc::CLONE_SIGHAND;
    let namespaces = libc::CLONE_NEWNS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET;
    vec![rule(&[(0, Dword, MaskedEq((shared | namespaces) as u64), shared as u64)])]
}

fn one_of(argument: u8, values: &[u64]) -> Vec<SeccompRule> {
    values.iter().map(|value| rule(&[(argument, Dword, Eq, u64::from(*value as u32))])).collect()
}

/// A rule that holds when all its conditions do: number of the argument, its width, how it compares, with what.
fn rule(conditions: &[(u8, SeccompCmpArgLen, SeccompCmpOp, u64)]) -> SeccompRule {
    let conditions = conditions.iter().cloned().map(|(argument, width, how, value)| {
        SeccompCondition::new(argument, width, how, value).expect("a call has six arguments")
    });
    SeccompRule::new(conditions.collect()).expect("there is a condition")
}

fn program(rules: BTreeMap<i64, Vec<SeccompRule>>, otherwise: SeccompAction, listed: SeccompAction) -> BpfProgram {
    let filter = SeccompFilter::new(rules, otherwise, listed, ARCHITECTURE).expect("the two actions differ");
    filter.try_into().expect("a filter of a hundred calls is short enough")
}
