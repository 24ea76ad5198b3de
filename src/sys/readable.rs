//! A socket that wakes its task when there is something to read, and for nothing else.
//!
//! tokio's own `UdpSocket` also asks for writability. The kernel then reports every datagram that has left the send
//! buffer, which wakes a busy server a second time for each batch it sends.

#![allow(unsafe_code)]

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll};
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

/// A UDP socket registered for reading with the runtime of this thread.
pub struct Readable {
    inner: AsyncFd<UdpSocket>,
}

/// Says that there may be something to read. Whoever has read until the socket was empty says so with
/// [`Ready::emptied`]; otherwise the socket stays ready.
#[must_use = "an emptied socket must be marked as such, or its task spins"]
pub struct Ready<'a> {
    guard: AsyncFdReadyGuard<'a, UdpSocket>,
}

impl Readable {
    /// Registers `socket`, which becomes non-blocking. Must be called inside a runtime. Errors: what the kernel has
    /// against another descriptor to watch.
    pub fn new(socket: UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // SAFETY: `UdpSocket` owns an open descriptor and always returns the same one. `Readable` neither hands the
        // socket out by value or `&mut` nor replaces it, so it stays open and the same until the `AsyncFd` is dropped.
        let inner = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self { inner })
    }

    /// Waits until there may be something to read. Only the task that polled last is woken.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready<'_>>> {
        self.inner.poll_read_ready(cx).map_ok(|guard| Ready { guard })
    }
}

impl AsFd for Readable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.get_ref().as_fd()
    }
}

impl Ready<'_> {
    /// The socket was read until it was empty, after this `Ready` was handed out. What arrived later is reported
    /// anew: the runtime forgets only the event this `Ready` stands for, never a newer one.
    pub fn emptied(mut self) {
        self.guard.clear_ready();
    }

    /// There may be more; the next poll is ready at once.
    pub fn keep(mut self) {
        self.guard.retain_ready();
    }
}
