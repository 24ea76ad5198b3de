use super::super::testing::alone;
use super::*;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

fn closes_on_exec(descriptor: &OwnedFd) -> bool {
    fcntl(descriptor, FcntlArg::F_GETFD).unwrap() & FdFlag::FD_CLOEXEC.bits() != 0
}

fn inode(descriptor: &OwnedFd) -> u64 {
    File::from(descriptor.try_clone().unwrap()).metadata().unwrap().ino()
}

/// Descriptors of this process on the inode.
fn open_on(inode: u64) -> usize {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    entries.filter(|entry| std::fs::metadata(entry.path()).is_ok_and(|about| about.ino() == inode)).count()
}

#[test]
fn bytes_and_descriptors_arrive_together_and_in_order() {
    let (one, other) = pair().unwrap();
    assert!(closes_on_exec(&one) && closes_on_exec(&other));
    let (mut reader, writer) = io::pipe().unwrap();
    send(one.as_fd(), b"with", &[writer.as_fd()]).unwrap();
    send(one.as_fd(), b"without", &[]).unwrap();
    drop(writer);
    let mut buffer = [0; 16];
    let (length, descriptors) = receive(other.as_fd(), &mut buffer).unwrap().unwrap();
    assert_eq!((&buffer[..length], descriptors.len()), (&b"with"[..], 1));
    assert!(closes_on_exec(&descriptors[0]));
    let (length, none) = receive(other.as_fd(), &mut buffer).unwrap().unwrap();
    assert_eq!((&buffer[..length], none.len()), (&b"without"[..], 0));
    File::from(descriptors.into_iter().next().unwrap()).write_all(b"!").unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "!");
}

#[test]
fn as_many_descriptors_as_the_kernel_takes() {
    let (one, other) = pair().unwrap();
    let file = File::open("/dev/null").unwrap();
    send(one.as_fd(), b"x", &[file.as_fd(); DESCRIPTORS]).unwrap();
    let (_, descriptors) = receive(other.as_fd(), &mut [0; 8]).unwrap().unwrap();
    assert_eq!(descriptors.len(), DESCRIPTORS);
    let error = send(one.as_fd(), b"x", &[file.as_fd(); DESCRIPTORS + 1]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn a_closed_end_is_told_after_what_it_sent() {
    let (one, other) = pair().unwrap();
    send(one.as_fd(), b"last", &[]).unwrap();
    send(other.as_fd(), b"never read", &[]).unwrap();
    drop(one);
    let mut buffer = [0; 8];
    assert_eq!(receive(other.as_fd(), &mut buffer).unwrap().unwrap().0, 4);
    assert!(receive(other.as_fd(), &mut buffer).unwrap().is_none());
    assert!(receive(other.as_fd(), &mut buffer).unwrap().is_none());
    assert_eq!(send(other.as_fd(), b"x", &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn an_empty_message_is_refused_because_it_would_read_as_the_end() {
    let (one, _other) = pair().unwrap();
    assert_eq!(send(one.as_fd(), b"", &[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn a_message_too_long_for_its_buffer_is_an_error_and_leaks_nothing() {
    let (one, other) = pair().unwrap();
    let (reader, writer) = io::pipe().unwrap();
    let pipe = inode(&OwnedFd::from(reader));
    send(one.as_fd(), b"longer", &[writer.as_fd()]).unwrap();
    drop(writer);
    assert_eq!(receive(other.as_fd(), &mut [0; 3]).unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert_eq!(open_on(pipe), 0);
    send(one.as_fd(), b"abc", &[]).unwrap();
    assert_eq!(receive(other.as_fd(), &mut [0; 3]).unwrap().unwrap().0, 3);
}

/// The soft limit of open files becomes `limit`; gives the one before.
fn limit_descriptors(limit: u64) -> u64 {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limits` is a valid place for the answer, and valid to read from.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limits), 0);
        let before = std::mem::replace(&mut limits.rlim_cur, limit);
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limits), 0);
        before
    }
}

/// The limit of open files holds for a whole process.
#[test]
fn descriptors_over_the_limit_are_an_error_and_leak_nothing() {
    if !alone("sys::channel::tests::descriptors_over_the_limit_are_an_error_and_leak_nothing", &[]) {
        return;
    }
    let (one, other) = pair().unwrap();
    let (reader, writer) = io::pipe().unwrap();
    let pipe = inode(&OwnedFd::from(reader));
    send(one.as_fd(), b"x", &[writer.as_fd(); 100]).unwrap();
    let highest = writer.as_raw_fd() as u64;
    drop(writer);
    let before = limit_descriptors(highest + 10);
    let result = receive(other.as_fd(), &mut [0; 8]);
    limit_descriptors(before);
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert_eq!(open_on(pipe), 0);
}

#[test]
fn waiting_ends_with_the_timeout() {
    let (one, _other) = pair().unwrap();
    set_timeout(one.as_fd(), Duration::ZERO).unwrap();
    assert_eq!(receive(one.as_fd(), &mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    set_timeout(one.as_fd(), Duration::from_millis(1)).unwrap();
    assert_eq!(receive(one.as_fd(), &mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

/// Children of other tests would inherit the end as well, so this runs in a process of its own, and its child in another.
#[test]
fn a_child_adopts_the_end_that_was_left_to_it() {
    const NUMBER: &str = "DNSLET_TEST_NUMBER";
    let name = "sys::channel::tests::a_child_adopts_the_end_that_was_left_to_it";
    if let Some(number) = std::env::var_os(NUMBER) {
        let end = adopt(number.to_str().unwrap().parse().unwrap()).unwrap();
        assert!(closes_on_exec(&end));
        return send(end.as_fd(), b"here", &[]).unwrap();
    }
    if !alone(name, &[]) {
        return;
    }
    let (one, other) = pair().unwrap();
    inherit(&other).unwrap();
    let mut run = Command::new(std::env::current_exe().unwrap());
    run.args(["--exact", name]).env(NUMBER, other.as_raw_fd().to_string());
    let mut child = run.spawn().unwrap();
    drop(other);
    let mut buffer = [0; 8];
    let message = receive(one.as_fd(), &mut buffer).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(message.unwrap().0, 4);
    assert!(receive(one.as_fd(), &mut buffer).unwrap().is_none());
}

#[test]
fn only_an_end_of_a_pair_is_adopted() {
    assert_eq!(adopt(2).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(adopt(-1).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(adopt(i32::MAX).unwrap_err().raw_os_error(), Some(libc::EBADF));
    let file = File::open("/dev/null").unwrap();
    assert_eq!(adopt(file.as_raw_fd()).unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    assert_eq!(adopt(socket.as_raw_fd()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    socket.local_addr().expect("what is not adopted stays open");
}
