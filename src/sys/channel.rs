//! Messages with descriptors between a process and its child: a pair of connected Unix sockets that keep the bounds of
//! each message (SOCK_SEQPACKET, unix(7)).
//!
//! Both ends are closed on exec. The one that a child is to have is opened to it with [`inherit`], its number told in an
//! argument, and the child takes it over with [`adopt`].

#![allow(unsafe_code)]

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};
use socket2::{Domain, SockRef, Type};

/// Descriptors that fit in one message: the kernel's SCM_MAX_FD.
pub const DESCRIPTORS: usize = 253;

/// Both ends, connected, blocking, closed on exec.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Leaves `end` open, under its number, in every program this process executes from here on. The parent drops its own
/// copy once the child runs; otherwise the child's death is not seen as the end of the channel.
pub fn inherit(end: &OwnedFd) -> io::Result<()> {
    fcntl(end, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(())
}

/// Takes over the end that a parent left open under this number. To be called once for a number, before anything else
/// of this process could have opened it. Errors: it is not open, or not an end of such a pair; it is then left alone.
pub fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("descriptor {number} is {what}"));
    if number <= libc::STDERR_FILENO {
        return Err(wrong("no channel"));
    }
    // SAFETY: `number` is not -1. Nothing is read or written through the borrow before the calls below have found that
    // a socket is open there; a number that is not open is answered with EBADF.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let socket = SockRef::from(&borrowed);
    if socket.domain()? != Domain::UNIX || socket.r#type()? != Type::SEQPACKET {
        return Err(wrong("a socket of another kind"));
    }
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // SAFETY: the descriptor is open and, as the caller is told to ensure, the parent's gift: nothing else in this
    // process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// How long a [`send`] or [`receive`] may wait before it fails with `WouldBlock`.
pub fn set_timeout(socket: BorrowedFd<'_>, timeout: Duration) -> io::Result<()> {
    // Zero would mean for ever.
    let timeout = Some(timeout.max(Duration::from_micros(1)));
    let socket = SockRef::from(&socket);
    socket.set_read_timeout(timeout)?;
    socket.set_write_timeout(timeout)
}

/// Sends one message: at least one byte, at most [`DESCRIPTORS`] descriptors, which stay open here. Errors: errno as it
/// is, `BrokenPipe` when the other end is closed; then nothing was sent.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    if bytes.is_empty() || descriptors.len() > DESCRIPTORS {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a message has a byte, and 253 descriptors at most"));
    }
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &[] } else { &rights[..] };
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None) {
            Err(nix::Error::EINTR) => {}
            // A message goes whole or not at all.
            result => return Ok(result.map(drop)?),
        }
    }
}

/// Receives one message: the number of bytes written to `buffer`, and the descriptors that came along, closed on exec.
/// `None` once the other end is closed and everything it sent was received. Errors: errno as it is; `InvalidData` for a
/// message that is longer than `buffer` or whose descriptors this process may not open (its limit is reached): the
/// message is lost and none of its descriptors stays open.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<(usize, Vec<OwnedFd>)>> {
    let mut control = Control { bytes: [MaybeUninit::uninit(); CONTROL] };
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    loop {
        // SAFETY: a header of zeros is valid: no name, no buffers.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.bytes.as_mut_ptr().cast();
        header.msg_controllen = CONTROL as _;
        // SAFETY: the header points at one buffer of ours and at room for control messages; both outlive the call.
        let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC) };
        let Ok(length) = usize::try_from(length) else {
            match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => continue,
                // Said once, when the other end went without reading all we sent; what it sent itself is still there.
                error if error.kind() == io::ErrorKind::ConnectionReset => continue,
                error => return Err(error),
            }
        };
        // Owned before anything else is looked at, so that no way out leaks them.
        // SAFETY: the call above succeeded and filled the header; it is looked at once.
        let descriptors = unsafe { received(&header) };
        if header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
            let what = "a message was longer than its buffer, or its descriptors more than this process may open";
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        return Ok((length > 0).then_some((length, descriptors)));
    }
}

/// Octets that hold [`DESCRIPTORS`] descriptors with their header.
// SAFETY: pure arithmetic.
const CONTROL: usize = unsafe { libc::CMSG_SPACE((DESCRIPTORS * size_of::<RawFd>()) as u32) } as usize;

/// Room for control messages, aligned as their headers.
#[repr(C, align(8))]
struct Control {
    bytes: [MaybeUninit<u8>; CONTROL],
}

/// The descriptors of a message, owned.
///
/// # Safety
/// `header` was filled by a successful recvmsg(2), its control messages are in place, and this is called once for it.
unsafe fn received(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut found = Vec::new();
    // SAFETY: the header is valid; the kernel wrote whole control messages and their lengths, also when it had to leave
    // some out. The descriptors in them are open and nobody else's.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while let Some(head) = message.as_ref() {
            if head.cmsg_level == libc::SOL_SOCKET && head.cmsg_type == libc::SCM_RIGHTS {
                #[allow(clippy::unnecessary_cast, reason = "the C library chooses the type")]
                let octets = head.cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let numbers = libc::CMSG_DATA(message).cast::<RawFd>();
                for at in 0..octets / size_of::<RawFd>() {
                    found.push(OwnedFd::from_raw_fd(numbers.add(at).read_unaligned()));
                }
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    found
}

#[cfg(test)]
mod tests;
