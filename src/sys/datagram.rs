//! A connected UDP socket on the current tokio runtime that reports ICMP errors as soon as they arrive.

#![allow(unsafe_code)]

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A connected, non-blocking UDP socket. tokio's own socket waits for data only: an ICMP error makes a UDP socket
/// neither readable nor closed for reading, so its `recv` would sleep through it.
#[derive(Debug)]
pub struct Datagram(AsyncFd<UdpSocket>);

impl Datagram {
    /// Registers `socket`, which is connected and non-blocking, with the current runtime.
    pub fn new(socket: UdpSocket) -> io::Result<Datagram> {
        // SAFETY: `UdpSocket` owns an open descriptor and never changes it; nothing outside this module reaches the
        // socket, and here it is only read from.
        let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Datagram(registered))
    }

    /// Receives one datagram, cut to `buffer`; or the error the peer's host or the network sent instead of one.
    pub fn poll_recv(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            // Writability is not watched, so the write side becomes ready for errors only.
            let mut ready = match self.0.poll_read_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => ready!(self.0.poll_write_ready(cx))?,
            };
            match self.0.get_ref().recv(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                result => return Poll::Ready(result),
            }
        }
    }

    /// The address the socket is bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().local_addr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    fn pair() -> (UdpSocket, UdpSocket) {
        let one = UdpSocket::bind("127.0.0.1:0").unwrap();
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        one.connect(other.local_addr().unwrap()).unwrap();
        other.connect(one.local_addr().unwrap()).unwrap();
        one.set_nonblocking(true).unwrap();
        (one, other)
    }

    #[tokio::test]
    async fn datagrams_arrive_one_by_one_and_are_cut_to_the_buffer() {
        let (one, other) = pair();
        let socket = Datagram::new(one).unwrap();
        other.send(b"first").unwrap();
        other.send(b"a longer one").unwrap();
        let mut buffer = [0; 8];
        assert_eq!(poll_fn(|cx| socket.poll_recv(cx, &mut buffer)).await.unwrap(), 5);
        assert_eq!(poll_fn(|cx| socket.poll_recv(cx, &mut buffer)).await.unwrap(), 8);
        assert_eq!(&buffer, b"a longer");
    }

    #[tokio::test]
    async fn a_refusal_is_an_error_whether_it_comes_before_or_after_registration() {
        let mut buffer = [0; 8];
        for early in [true, false] {
            let (one, other) = pair();
            drop(other);
            let sender = one.try_clone().unwrap();
            if early {
                sender.send(b"?").unwrap();
            }
            let socket = Datagram::new(one).unwrap();
            if !early {
                sender.send(b"?").unwrap();
            }
            let error = poll_fn(|cx| socket.poll_recv(cx, &mut buffer)).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "early: {early}");
        }
    }
}
