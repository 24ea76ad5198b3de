//! The system calls the standard library lacks: datagrams in batches, the CPU clock of another process, yielding.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::thread::JoinHandleExt;
use std::thread::JoinHandle;
use std::time::Duration;

/// Messages per call.
pub(crate) const BATCH: usize = 64;
/// Longest datagram that is looked at.
pub(crate) const SIZE: usize = 1024;

/// `BATCH` datagram buffers with the headers that point at them. One batch either receives or sends at a time.
pub(crate) struct Batch {
    buffers: Box<[[u8; SIZE]]>,
    names: Box<[libc::sockaddr_in]>,
    vectors: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    /// Filled buffers: received, or waiting to be sent.
    len: usize,
    connected: bool,
}

// SAFETY: every pointer in `vectors` and `headers` points into a heap allocation owned by the same `Batch`; they move
// with it to another thread, and nothing else holds them.
unsafe impl Send for Batch {}

impl Batch {
    /// For a socket that is connected: no addresses are read or written.
    pub(crate) fn connected() -> Self {
        Self::new(true)
    }

    /// For a socket with many peers: the address of each received datagram is kept for the reply.
    pub(crate) fn unconnected() -> Self {
        Self::new(false)
    }

    fn new(connected: bool) -> Self {
        // SAFETY: these are plain C structs of integers and pointers, for which all zero bytes are a valid value.
        let (name, vector, header) = unsafe {
            (mem::zeroed::<libc::sockaddr_in>(), mem::zeroed::<libc::iovec>(), mem::zeroed::<libc::mmsghdr>())
        };
        let mut batch = Self {
            buffers: vec![[0; SIZE]; BATCH].into(),
            names: vec![name; BATCH].into(),
            vectors: vec![vector; BATCH].into(),
            headers: vec![header; BATCH].into(),
            len: 0,
            connected,
        };
        for i in 0..BATCH {
            batch.vectors[i].iov_base = batch.buffers[i].as_mut_ptr().cast();
            let header = &mut batch.headers[i].msg_hdr;
            header.msg_iov = &raw mut batch.vectors[i];
            header.msg_iovlen = 1;
            if !connected {
                header.msg_name = (&raw mut batch.names[i]).cast();
            }
        }
        batch
    }

    /// Receives what is there, up to `BATCH`; waits for the first datagram when `block`. Returns how many.
    pub(crate) fn receive(&mut self, socket: &UdpSocket, block: bool) -> io::Result<usize> {
        for i in 0..BATCH {
            self.vectors[i].iov_len = SIZE;
            if !self.connected {
                self.headers[i].msg_hdr.msg_namelen = mem::size_of::<libc::sockaddr_in>() as libc::socklen_t;
            }
        }
        self.len = 0;
        let flags = if block { libc::MSG_WAITFORONE } else { libc::MSG_DONTWAIT };
        // SAFETY: `headers` holds BATCH headers, each naming one buffer of SIZE bytes and one address of the size
        // given; all of them live in `self`, which is borrowed mutably for the whole call.
        let got = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                flags as _,
                std::ptr::null_mut(),
            )
        };
        if got >= 0 {
            self.len = got as usize;
            return Ok(self.len);
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
            _ => Err(error),
        }
    }

    /// The bytes of received datagram `i`.
    pub(crate) fn received(&self, i: usize) -> &[u8] {
        &self.buffers[i][..(self.headers[i].msg_len as usize).min(SIZE)]
    }

    /// The same, to be changed in place.
    pub(crate) fn received_mut(&mut self, i: usize) -> &mut [u8] {
        &mut self.buffers[i][..(self.headers[i].msg_len as usize).min(SIZE)]
    }

    /// Queues datagram `from` as it is now, `bytes` long, as reply number `to` (`to <= from`) to whoever sent it.
    pub(crate) fn echo(&mut self, from: usize, to: usize, bytes: usize) {
        if from != to {
            let (low, high) = self.buffers.split_at_mut(from);
            low[to][..bytes].copy_from_slice(&high[0][..bytes]);
        }
        self.address_reply(from, to, bytes);
    }

    /// Queues `message` as reply number `to` (`to <= from`) to the sender of datagram `from`.
    pub(crate) fn reply(&mut self, from: usize, to: usize, message: &[u8]) {
        self.buffers[to][..message.len()].copy_from_slice(message);
        self.address_reply(from, to, message.len());
    }

    fn address_reply(&mut self, from: usize, to: usize, bytes: usize) {
        self.names[to] = self.names[from];
        self.vectors[to].iov_len = bytes.min(SIZE);
        self.headers[to].msg_hdr.msg_namelen = mem::size_of::<libc::sockaddr_in>() as libc::socklen_t;
    }

    /// Queues a message of `bytes` bytes and returns its buffer; the caller keeps to `BATCH` messages.
    pub(crate) fn push(&mut self, bytes: usize) -> &mut [u8] {
        let i = self.len;
        self.len += 1;
        self.vectors[i].iov_len = bytes;
        &mut self.buffers[i][..bytes]
    }

    /// Messages queued.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Sends the queued messages and returns how many went out.
    pub(crate) fn flush(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        let count = self.len;
        self.len = 0;
        self.send(socket, count)
    }

    /// Sends the first `count` messages and returns how many went out.
    pub(crate) fn send(&mut self, socket: &UdpSocket, count: usize) -> io::Result<usize> {
        let mut done = 0;
        while done < count {
            // SAFETY: `done..count` are initialised headers within `headers` (the slice checks the bounds); buffers
            // and addresses they name live in `self`.
            let sent = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    self.headers[done..count].as_mut_ptr(),
                    (count - done) as libc::c_uint,
                    0,
                )
            };
            if sent > 0 {
                done += sent as usize;
                continue;
            }
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => break,
                _ => return Err(error),
            }
        }
        Ok(done)
    }
}

/// The CPU time a process has used, all its threads, living and ended.
pub(crate) fn cpu_time(process: u32) -> io::Result<Duration> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: `clock` is a valid place for one clock id.
    let failed = unsafe { libc::clock_getcpuclockid(process as libc::pid_t, &raw mut clock) };
    if failed != 0 {
        return Err(io::Error::from_raw_os_error(failed));
    }
    read(clock)
}

/// The CPU time a thread of this process has used.
pub(crate) fn thread_cpu_time(thread: &JoinHandle<()>) -> io::Result<Duration> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: the handle keeps the thread's id valid, and `clock` is a valid place for one clock id.
    let failed = unsafe { libc::pthread_getcpuclockid(thread.as_pthread_t() as libc::pthread_t, &raw mut clock) };
    if failed != 0 {
        return Err(io::Error::from_raw_os_error(failed));
    }
    read(clock)
}

fn read(clock: libc::clockid_t) -> io::Result<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for one timespec.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// Lets another thread of this core run, if one wants to.
pub(crate) fn yield_core() {
    std::thread::yield_now();
}

/// A loopback address of its own for client socket `i`, so that clients look like different hosts.
pub(crate) fn client_address(i: usize) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(127, 1, (i / 250) as u8, 1 + (i % 250) as u8), 0)
}
