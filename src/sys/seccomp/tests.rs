use super::super::testing::alone;
use super::calls::{ALWAYS, TRACED, rules};
use super::*;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;

use libc::c_long;

fn confined() {
    assert_eq!(confine().unwrap(), Confined::Yes);
}

/// Makes the call with six arguments and gives the errno, 0 for success.
fn errno(number: c_long, arguments: [c_long; 6]) -> i32 {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the callers pass numbers, and null where the call wants a pointer.
    if unsafe { libc::syscall(number, a, b, c, d, e, f) } < 0 {
        io::Error::last_os_error().raw_os_error().unwrap()
    } else {
        0
    }
}

fn socket(family: i32, kind: i32, protocol: i32) -> i32 {
    let of = [family.into(), kind.into(), protocol.into(), 0, 0, 0];
    errno(libc::SYS_socket, of)
}

#[test]
fn datagrams_streams_and_threads_work() {
    if !alone("sys::seccomp::tests::datagrams_streams_and_threads_work", &[]) {
        return;
    }
    // A thread from before is confined as well.
    let (ask, asked) = std::sync::mpsc::channel::<()>();
    let older = thread::spawn(move || {
        asked.recv().unwrap();
        socket(libc::AF_PACKET, libc::SOCK_RAW, 0)
    });
    confined();
    ask.send(()).unwrap();
    assert_eq!(older.join().unwrap(), libc::EPERM);
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let server = UdpSocket::bind(address).unwrap();
        let target = server.local_addr().unwrap();
        let echo = thread::spawn(move || {
            let mut bytes = [0; 16];
            let (length, peer) = server.recv_from(&mut bytes).unwrap();
            server.send_to(&bytes[..length], peer).unwrap();
        });
        let client = UdpSocket::bind(address).unwrap();
        client.send_to(b"datagram", target).unwrap();
        assert_eq!(client.recv(&mut [0; 16]).unwrap(), 8);
        echo.join().unwrap();
        let server = TcpListener::bind(address).unwrap();
        let target = server.local_addr().unwrap();
        let echo = thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut bytes = [0; 6];
            stream.read_exact(&mut bytes).unwrap();
            stream.write_all(&bytes).unwrap();
        });
        let mut client = TcpStream::connect(target).unwrap();
        client.write_all(b"stream").unwrap();
        client.read_exact(&mut [0; 6]).unwrap();
        echo.join().unwrap();
    }
}

#[test]
fn what_the_rest_of_a_server_does_works() {
    if !alone("sys::seccomp::tests::what_the_rest_of_a_server_does_works", &[]) {
        return;
    }
    confined();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM).unwrap();
        terminated.recv().await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        let server = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let client = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(b"x", server.local_addr().unwrap()).await.unwrap();
        server.recv(&mut [0]).await.unwrap();
    });
    assert!(nix::ifaddrs::getifaddrs().unwrap().any(|address| address.interface_name == "lo"));
    assert_eq!(nix::net::if_::if_nametoindex("lo"), Ok(1));
    let watch = nix::sys::inotify::Inotify::init(nix::sys::inotify::InitFlags::IN_NONBLOCK).unwrap();
    watch.add_watch("/", nix::sys::inotify::AddWatchFlags::IN_CREATE).unwrap();
    assert!(super::super::process::figures().open_fds.is_some());
    assert!(thread::available_parallelism().is_ok());
    let (one, other) = super::super::channel::pair().unwrap();
    drop(other);
    let one = std::os::fd::AsFd::as_fd(&one);
    assert!(super::super::channel::receive(one, &mut [0; 8]).unwrap().is_none());
    // Unwinding and its backtrace read the program's own file.
    let caught = std::panic::catch_unwind(|| panic!("{}", std::backtrace::Backtrace::force_capture()));
    let text = caught.unwrap_err().downcast::<String>().unwrap();
    assert!(text.contains("what_the_rest_of_a_server_does_works"), "{text}");
}

#[test]
fn files_are_read_and_nothing_else() {
    let place = |process: u32| std::env::temp_dir().join(format!("dnslet-confined-{process}"));
    if !alone("sys::seccomp::tests::files_are_read_and_nothing_else", &[]) {
        // The one that made it cannot remove it.
        fs::remove_dir_all(place(std::process::id())).unwrap();
        return;
    }
    let place = place(std::os::unix::process::parent_id());
    fs::create_dir(&place).unwrap();
    let (file, other) = (place.join("file"), place.join("other"));
    fs::write(&file, "content").unwrap();
    // What only an open file is needed for: this one stands for standard output.
    let open = fs::OpenOptions::new().append(true).open(&file).unwrap();
    confined();
    let refused = |what: &str, result: io::Result<()>| {
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EPERM), "{what}");
    };
    let to_open = |options: &mut fs::OpenOptions| options.open(&file).map(drop);
    refused("write", to_open(fs::OpenOptions::new().write(true)));
    refused("read and write", to_open(fs::OpenOptions::new().read(true).write(true)));
    refused("append", to_open(fs::OpenOptions::new().append(true)));
    refused("create", fs::File::create(&other).map(drop));
    refused("rename", fs::rename(&file, &other));
    refused("unlink", fs::remove_file(&file));
    refused("link", fs::hard_link(&file, &other));
    refused("symlink", std::os::unix::fs::symlink(&file, &other));
    refused("mkdir", fs::create_dir(&other));
    refused("rmdir", fs::remove_dir(&place));
    refused("chmod", fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o777)));
    refused("chown", std::os::unix::fs::chown(&file, Some(1), None));
    refused("truncate an open file", open.set_len(0));
    refused("write at a place", std::os::unix::fs::FileExt::write_at(&open, b"x", 0).map(drop));
    // The standard library's ways to open are not all there are.
    for (path, flags) in [
        (&file, libc::O_RDONLY | libc::O_TRUNC),
        (&other, libc::O_RDONLY | libc::O_CREAT),
        (&file, libc::O_ACCMODE),
        (&place, libc::O_TMPFILE | libc::O_RDWR),
    ] {
        let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
        let (name, here) = (path.as_ptr() as c_long, c_long::from(libc::AT_FDCWD));
        let flags = c_long::from(flags);
        assert_eq!(errno(libc::SYS_openat, [here, name, flags, 0o600, 0, 0]), libc::EPERM, "openat {flags:o}");
        #[cfg(target_arch = "x86_64")]
        assert_eq!(errno(libc::SYS_open, [name, flags, 0o600, 0, 0, 0]), libc::EPERM, "open {flags:o}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "content");
    let names = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["file"]);
    (&open).write_all(b", more").unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "content, more");
}

#[test]
fn programs_and_processes_are_not_started() {
    if !alone("sys::seccomp::tests::programs_and_processes_are_not_started", &[]) {
        return;
    }
    confined();
    let refused = |error: io::Error| assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    refused(Command::new("/bin/true").spawn().unwrap_err());
    refused(Command::new("/bin/true").exec());
    // SAFETY: the child, if there is one, ends at once.
    match unsafe { libc::fork() } {
        0 => unsafe { libc::_exit(1) },
        child => assert!(child < 0, "a process was made"),
    }
    let fork = errno(libc::SYS_clone, [libc::SIGCHLD.into(), 0, 0, 0, 0, 0]);
    let namespace = libc::CLONE_NEWUSER | libc::CLONE_THREAD | libc::CLONE_VM | libc::CLONE_SIGHAND;
    assert_eq!((fork, errno(libc::SYS_clone, [namespace.into(), 0, 0, 0, 0, 0])), (libc::EPERM, libc::EPERM));
    assert_eq!(errno(libc::SYS_clone3, [0; 6]), libc::ENOSYS);
}

#[test]
fn dangerous_calls_fail_and_do_not_kill() {
    if !alone("sys::seccomp::tests::dangerous_calls_fail_and_do_not_kill", &[]) {
        return;
    }
    confined();
    let forbidden = [
        ("ptrace", libc::SYS_ptrace),
        ("process_vm_readv", libc::SYS_process_vm_readv),
        ("mount", libc::SYS_mount),
        ("umount2", libc::SYS_umount2),
        ("pivot_root", libc::SYS_pivot_root),
        ("chroot", libc::SYS_chroot),
        ("unshare", libc::SYS_unshare),
        ("setns", libc::SYS_setns),
        ("bpf", libc::SYS_bpf),
        ("perf_event_open", libc::SYS_perf_event_open),
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("keyctl", libc::SYS_keyctl),
        ("add_key", libc::SYS_add_key),
        ("init_module", libc::SYS_init_module),
        ("finit_module", libc::SYS_finit_module),
        ("kexec_load", libc::SYS_kexec_load),
        ("userfaultfd", libc::SYS_userfaultfd),
        ("memfd_create", libc::SYS_memfd_create),
        ("setuid", libc::SYS_setuid),
        ("capset", libc::SYS_capset),
        ("seccomp", libc::SYS_seccomp),
        ("mknodat", libc::SYS_mknodat),
        ("mkdirat", libc::SYS_mkdirat),
        ("fchmodat", libc::SYS_fchmodat),
        ("fchmod", libc::SYS_fchmod),
        ("fchownat", libc::SYS_fchownat),
        ("fchown", libc::SYS_fchown),
        ("renameat2", libc::SYS_renameat2),
        ("unlinkat", libc::SYS_unlinkat),
        ("linkat", libc::SYS_linkat),
        ("symlinkat", libc::SYS_symlinkat),
        ("truncate", libc::SYS_truncate),
        ("ftruncate", libc::SYS_ftruncate),
        ("fallocate", libc::SYS_fallocate),
        ("pwrite64", libc::SYS_pwrite64),
        ("pwritev", libc::SYS_pwritev),
        ("utimensat", libc::SYS_utimensat),
        ("fsetxattr", libc::SYS_fsetxattr),
        ("copy_file_range", libc::SYS_copy_file_range),
        ("pidfd_send_signal", libc::SYS_pidfd_send_signal),
    ];
    for (name, number) in forbidden {
        assert_eq!(errno(number, [0; 6]), libc::EPERM, "{name}");
    }
    for (family, kind, protocol) in [
        (libc::AF_PACKET, libc::SOCK_RAW, 0),
        (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
        (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
        (libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_UDP),
        (libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER),
        (libc::AF_UNIX, libc::SOCK_STREAM, 0),
        (libc::AF_VSOCK, libc::SOCK_STREAM, 0),
        (libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
    ] {
        assert_eq!(socket(family, kind, protocol), libc::EPERM, "socket({family}, {kind}, {protocol})");
    }
    let parent = c_long::from(nix::unistd::getppid().as_raw());
    assert_eq!(errno(libc::SYS_kill, [parent, 0, 0, 0, 0, 0]), libc::EPERM);
    assert_eq!(errno(libc::SYS_tgkill, [parent, parent, 0, 0, 0, 0]), libc::EPERM);
    assert_eq!(errno(libc::SYS_prctl, [libc::PR_SET_DUMPABLE.into(), 1, 0, 0, 0, 0]), libc::EPERM);
    assert_eq!(errno(libc::SYS_ioctl, [0, libc::TIOCSTI as c_long, 0, 0, 0, 0]), libc::EPERM);
    let limits = [0, libc::RLIMIT_NOFILE as c_long, 1, 0, 0, 0];
    assert_eq!(errno(libc::SYS_prlimit64, limits), libc::EPERM);
    let (executable, private) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    assert_eq!(errno(libc::SYS_mmap, [0, 4096, executable.into(), private.into(), -1, 0]), libc::EPERM);
}

#[test]
fn an_abort_is_still_an_abort() {
    use std::os::unix::process::ExitStatusExt;
    const ROLE: &str = "DNSLET_TEST_ABORTS";
    if std::env::var_os(ROLE).is_some() {
        confined();
        std::process::abort();
    }
    let name = "sys::seccomp::tests::an_abort_is_still_an_abort";
    let mut run = Command::new(std::env::current_exe().unwrap());
    let status = run.args(["--exact", name]).env(ROLE, "1").output().unwrap().status;
    assert_eq!(status.signal(), Some(libc::SIGABRT), "{status}");
}

#[test]
fn what_a_query_meets_is_allowed_whatever_its_arguments_are() {
    let rules = rules(1);
    for call in [ALWAYS, TRACED].concat() {
        assert!(rules[&call].is_empty(), "{call}: the kernel runs the filter for each such call");
    }
    for call in [libc::SYS_recvmmsg, libc::SYS_sendmmsg, libc::SYS_epoll_pwait, libc::SYS_read, libc::SYS_write] {
        assert!(ALWAYS.contains(&call));
    }
}
