//! Datagrams in batches: recvmmsg(2) and sendmmsg(2) over memory that is allocated once.
//!
//! A [`Batch`] holds as many slots as one call may fill. A slot has the bytes that came, the address they came from,
//! the local address they were sent to (only on a wildcard socket, see [`super::sockopt`]) and room for one reply. A
//! reply leaves by the way its query came: to the same peer and, on a wildcard socket, from the address that was asked.

#![allow(unsafe_code)]

use super::sockaddr::{CONTROL_LEN, Control, NAME_LEN, Name, ReturnPath};
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{NonNull, null_mut};

/// Datagrams per system call.
pub const BATCH: usize = 32;
/// Bytes of one datagram received; a longer one is cut.
pub const DATAGRAM: usize = 4096;
/// Bytes of one datagram sent: no reply over UDP is longer than 1232 (RFC 9715).
pub const REPLY: usize = 1280;

/// One page of buffers, reused for every batch of a worker.
pub struct Batch {
    room: NonNull<Room>,
    /// Slots filled by the last receive; their headers are reset before the next.
    received: usize,
    /// Whether the receive headers offer room for control messages.
    control: bool,
    /// Replies queued since the last receive, and how many of them are dealt with.
    queued: usize,
    sent: usize,
}

/// What came in one slot.
pub struct Datagram<'a> {
    /// The bytes, at most [`DATAGRAM`].
    pub bytes: &'a [u8],
    /// The datagram was longer than its slot; the rest is lost.
    pub cut: bool,
    /// Who sent it; an IPv4 peer of a dual-stack socket is given as IPv4.
    pub peer: SocketAddr,
    /// The address it was sent to, where the socket reports it.
    pub local: Option<IpAddr>,
}

impl Batch {
    /// A batch with its memory; pages are touched as datagrams come.
    pub fn new() -> Self {
        // SAFETY: the layout of `Room` is not empty, and every field of it is valid when all bytes are zero.
        let room = NonNull::new(unsafe { alloc_zeroed(Layout::new::<Room>()) }.cast::<Room>())
            .unwrap_or_else(|| handle_alloc_error(Layout::new::<Room>()));
        for i in 0..BATCH {
            let r = room.as_ptr();
            // SAFETY: `room` is valid for writes and `i` is in bounds. The pointers stored here come from the
            // allocation itself and stay good until `drop`; nobody else holds a reference into it.
            unsafe {
                let slot = &raw mut (*r).slots[i];
                (*r).receive_iov[i] = libc::iovec { iov_base: (&raw mut (*slot).query).cast(), iov_len: DATAGRAM };
                let header = &raw mut (*r).receive[i].msg_hdr;
                (*header).msg_name = (&raw mut (*slot).name).cast();
                (*header).msg_namelen = NAME_LEN;
                (*header).msg_iov = &raw mut (*r).receive_iov[i];
                (*header).msg_iovlen = 1;
            }
        }
        Self { room, received: 0, control: false, queued: 0, sent: 0 }
    }

    /// Receives up to [`BATCH`] datagrams without waiting and forgets replies still queued. `control` asks for the
    /// local address of each and must say what the socket was created with. Fewer than [`BATCH`] means that the
    /// socket's queue was empty at the end of the call. Errors: errno as it is, `WouldBlock` if nothing is there.
    pub fn receive(&mut self, fd: BorrowedFd<'_>, control: bool) -> io::Result<usize> {
        let stale = if self.control == control { self.received } else { BATCH };
        (self.received, self.queued, self.sent, self.control) = (0, 0, 0, control);
        let room = self.room.as_ptr();
        for i in 0..stale {
            // SAFETY: `room` is ours and valid; `i` < BATCH. The kernel has shortened these fields.
            unsafe {
                let slot = &raw mut (*room).slots[i];
                let header = &raw mut (*room).receive[i].msg_hdr;
                (*header).msg_namelen = NAME_LEN;
                (*header).msg_control = if control { (&raw mut (*slot).control).cast() } else { null_mut() };
                (*header).msg_controllen = if control { CONTROL_LEN as _ } else { 0 };
            }
        }
        loop {
            // SAFETY: the headers point at slots of `room`, which outlives the call and is not otherwise borrowed.
            let n = unsafe {
                let headers = (&raw mut (*room).receive).cast::<libc::mmsghdr>();
                libc::recvmmsg(fd.as_raw_fd(), headers, BATCH as _, libc::MSG_DONTWAIT as _, null_mut())
            };
            if let Ok(n) = usize::try_from(n) {
                self.received = n;
                return Ok(n);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// The datagram in slot `i` of the last receive and the room for its reply.
    pub fn slot(&mut self, i: usize) -> (Datagram<'_>, &mut [u8; REPLY]) {
        assert!(i < self.received, "slot of the last batch");
        // SAFETY: `i` is in bounds. The references cover different fields of the slot and live as long as `&mut self`,
        // so nothing else (the kernel included) writes there meanwhile.
        unsafe {
            let room = self.room.as_ptr();
            let slot = &raw mut (*room).slots[i];
            let header = &(*room).receive[i];
            let bytes = &(&(*slot).query)[..(header.msg_len as usize).min(DATAGRAM)];
            let peer = (*slot).name.address();
            let local = (*slot).control.local(control_len(&header.msg_hdr));
            let cut = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            (Datagram { bytes, cut, peer, local }, &mut (*slot).reply)
        }
    }

    /// The way back to the sender of slot `i` of the last receive.
    pub fn return_path(&self, i: usize) -> ReturnPath {
        assert!(i < self.received, "slot of the last batch");
        // SAFETY: `i` is in bounds and `room` is valid; plain reads.
        unsafe {
            let room = self.room.as_ptr();
            let header = &(*room).receive[i].msg_hdr;
            let slot = &(*room).slots[i];
            ReturnPath::new(slot.name, header.msg_namelen, slot.control, control_len(header))
        }
    }

    /// Queues the first `len` bytes of slot `i`'s reply.
    pub fn queue(&mut self, i: usize, len: usize) {
        assert!(i < self.received && self.queued < BATCH && len <= REPLY, "a reply of the last batch");
        let room = self.room.as_ptr();
        // SAFETY: indices are in bounds; the pointers stored stay good until `drop`.
        unsafe {
            let slot = &raw mut (*room).slots[i];
            let received = &(*room).receive[i].msg_hdr;
            let turned = (*slot).control.turn(control_len(received));
            (*room).send_iov[self.queued] = libc::iovec { iov_base: (&raw mut (*slot).reply).cast(), iov_len: len };
            let header = &raw mut (*room).send[self.queued].msg_hdr;
            (*header).msg_name = (&raw mut (*slot).name).cast();
            (*header).msg_namelen = received.msg_namelen;
            (*header).msg_iov = &raw mut (*room).send_iov[self.queued];
            (*header).msg_iovlen = 1;
            (*header).msg_control = if turned > 0 { (&raw mut (*slot).control).cast() } else { null_mut() };
            (*header).msg_controllen = turned as _;
            (*room).send_slot[self.queued] = i as u32;
        }
        self.queued += 1;
    }

    /// Replies queued and neither sent nor skipped.
    pub fn unsent(&self) -> usize {
        self.queued - self.sent
    }

    /// Sends queued replies without waiting and returns how many went. An error is about the first unsent one, which
    /// stays first.
    pub fn send(&mut self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        // SAFETY: the headers `sent..queued` were filled by `queue` and point into `room`.
        let n = unsafe {
            let headers = (&raw mut (*self.room.as_ptr()).send).cast::<libc::mmsghdr>().add(self.sent);
            match self.unsent() {
                1 => send_one(fd, &(*headers).msg_hdr),
                unsent => libc::sendmmsg(fd.as_raw_fd(), headers, unsent as _, libc::MSG_DONTWAIT as _) as isize,
            }
        };
        let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
        self.sent += n;
        Ok(n)
    }

    /// Takes the first unsent reply out of the queue, with its way back.
    pub fn take_unsent(&mut self) -> Option<(&[u8], ReturnPath)> {
        if self.unsent() == 0 {
            return None;
        }
        let at = self.sent;
        self.sent += 1;
        // SAFETY: `at` < queued; the slot number and length were written by `queue`.
        unsafe {
            let room = self.room.as_ptr();
            let (slot, len) = ((*room).send_slot[at] as usize, (*room).send_iov[at].iov_len);
            let path = self.return_path(slot);
            Some((&(&(*room).slots[slot].reply)[..len], path))
        }
    }
}

/// Sends one message, and gives 1 or -1. On an idle server most batches are of one, and then the plainest call that does
/// is the cheapest.
///
/// # Safety
/// `header` points at one buffer, an address, and control messages or none, all of them valid.
unsafe fn send_one(fd: BorrowedFd<'_>, header: &libc::msghdr) -> isize {
    // SAFETY: as the caller promises.
    let sent = unsafe {
        if header.msg_controllen == 0 {
            let octets = &*header.msg_iov;
            let (name, length) = (header.msg_name.cast(), header.msg_namelen);
            libc::sendto(fd.as_raw_fd(), octets.iov_base, octets.iov_len, libc::MSG_DONTWAIT, name, length)
        } else {
            libc::sendmsg(fd.as_raw_fd(), header, libc::MSG_DONTWAIT)
        }
    };
    if sent < 0 { -1 } else { 1 }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; `Room` has nothing to drop.
        unsafe { dealloc(self.room.as_ptr().cast(), Layout::new::<Room>()) }
    }
}

#[allow(clippy::unnecessary_cast, reason = "the C library chooses the type")]
fn control_len(header: &libc::msghdr) -> usize {
    header.msg_controllen as usize
}

/// Everything the kernel reads and writes. The fields of a slot lie next to each other, and its size is no multiple
/// of a page, so that the slots of a batch do not compete for the same cache sets.
#[repr(C)]
struct Room {
    slots: [Slot; BATCH],
    receive: [libc::mmsghdr; BATCH],
    send: [libc::mmsghdr; BATCH],
    receive_iov: [libc::iovec; BATCH],
    send_iov: [libc::iovec; BATCH],
    send_slot: [u32; BATCH],
}

#[repr(C)]
struct Slot {
    control: Control,
    name: Name,
    query: [u8; DATAGRAM],
    reply: [u8; REPLY],
}

#[cfg(test)]
mod tests;
