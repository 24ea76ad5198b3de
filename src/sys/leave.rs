//! Leaving an address that other sockets share (SO_REUSEPORT): nothing new is given to ours, and what they were given before
//! can still be read and answered.

#![allow(unsafe_code)]

use socket2::{SockFilter, SockRef};
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};

/// Where a connected socket is connected to: discard (RFC 863). Nothing is sent there.
const NOWHERE: u16 = 9;
/// Instructions of classic BPF, as in linux/bpf_common.h: load an octet, and with a constant, jump if equal, return.
const LOAD: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
const LOAD_PORT: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
/// Where the flags of a segment are (RFC 9293 section 3.1), and those of interest. Its first field is the sender's port.
const FLAGS: u32 = 13;
const SYN: u32 = 1 << 1;
const ACK: u32 = 1 << 4;

/// The kernel gives the socket no more datagrams: it is connected, and those that share its address without being connected
/// get them (since Linux 5.4). What is in its queue can be read, and datagrams can be sent from it as before.
///
/// # Errors
/// errno of connect(2); the socket is as it was.
pub fn quiet(socket: &UdpSocket) -> io::Result<()> {
    // An address of its own: no packet can come from there, and there is a route.
    let mut nowhere = socket.local_addr()?;
    nowhere.set_port(NOWHERE);
    socket.connect(nowhere)
}

/// The kernel gives new connections to the listener that came to the address as number `index` (counted from 0, and when
/// one leaves, the last takes its number), whichever of those on the address is told. Where there are fewer, each gets its
/// share as before. This outlives the listener that was told.
///
/// # Errors
/// errno of setsockopt(2).
pub fn lead_to(listener: &TcpListener, index: u32) -> io::Result<()> {
    lead(listener, &[filter(RETURN, 0, 0, index)])
}

/// The same for the connection of `client` alone, a socket of this machine: the others are shared as before.
///
/// # Errors
/// errno of setsockopt(2).
pub fn lead_one_to(listener: &TcpListener, client: SocketAddr, index: u32) -> io::Result<()> {
    /// Where the network header is, for instructions that load; the program sees what follows the transport header.
    const NETWORK: u32 = libc::SKF_NET_OFF.cast_unsigned();
    // The client sends no options and no extension headers, so its port follows at once.
    let port = NETWORK + if client.is_ipv4() { 20 } else { 40 };
    lead(
        listener,
        &[
            filter(LOAD_PORT, 0, 0, port),
            filter(IF_EQUAL, 0, 1, client.port().into()),
            filter(RETURN, 0, 0, index),
            filter(RETURN, 0, 0, u32::MAX),
        ],
    )
}

/// Each listener on the address gets its share of new connections, whatever was said before by [`lead_to`].
///
/// # Errors
/// errno of setsockopt(2): ENOENT where nothing was said before.
pub fn lead_nowhere(listener: &TcpListener) -> io::Result<()> {
    set(listener, libc::SO_DETACH_REUSEPORT_BPF, &0)
}

/// The listener takes no notice of new connections. Those that are being made go on, and can be accepted. A client that is
/// not heard tries again after a second.
///
/// # Errors
/// errno of setsockopt(2).
pub fn ignore_new(listener: &TcpListener) -> io::Result<()> {
    SockRef::from(listener).attach_filter(&[
        filter(LOAD, 0, 0, FLAGS),
        filter(AND, 0, 0, SYN | ACK),
        filter(IF_EQUAL, 0, 1, SYN),
        filter(RETURN, 0, 0, 0),
        filter(RETURN, 0, 0, u32::MAX),
    ])
}

/// The same for whoever has this port.
///
/// # Errors
/// errno of setsockopt(2).
pub fn ignore_one(listener: &TcpListener, client: SocketAddr) -> io::Result<()> {
    SockRef::from(listener).attach_filter(&[
        filter(LOAD_PORT, 0, 0, 0),
        filter(IF_EQUAL, 0, 1, client.port().into()),
        filter(RETURN, 0, 0, 0),
        filter(RETURN, 0, 0, u32::MAX),
    ])
}

/// Waits until no packet is on its way to a socket that was chosen for it before: a grace period of RCU, some 20 ms. Not every
/// kernel has it (nohz_full).
///
/// # Errors
/// errno of membarrier(2).
pub fn settle() -> io::Result<()> {
    /// linux/membarrier.h
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: the call takes three numbers and touches no memory of ours.
    match unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn lead(listener: &TcpListener, program: &[SockFilter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).expect("a handful of instructions");
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut().cast() };
    set(listener, libc::SO_ATTACH_REUSEPORT_CBPF, &program)
}

fn filter(code: u16, if_true: u8, if_false: u8, operand: u32) -> SockFilter {
    SockFilter::new(code, if_true, if_false, operand)
}

fn set<T>(socket: &impl AsFd, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the value outlives the call, which copies it and what it points at, and its size is given.
    let result = unsafe {
        let size = size_of::<T>() as libc::socklen_t;
        let value = std::ptr::from_ref(value).cast();
        libc::setsockopt(socket.as_fd().as_raw_fd(), libc::SOL_SOCKET, option, value, size)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::sockopt::{Options, queues, tcp, udp};
    use std::io::{ErrorKind, Read, Write};
    use std::net::TcpStream;
    use std::os::fd::AsFd;

    fn listener(address: SocketAddr) -> TcpListener {
        tcp(address, &Options::default()).unwrap().socket
    }

    /// Each with so many sockets, on one address.
    fn shared(address: &str, old: usize, new: usize) -> (Vec<UdpSocket>, Vec<UdpSocket>) {
        let first = udp(address.parse().unwrap(), &Options::default()).unwrap().socket;
        let address = first.local_addr().unwrap();
        let mut all = vec![first];
        all.extend((1..old + new).map(|_| udp(address, &Options::default()).unwrap().socket));
        let others = all.split_off(old);
        (all, others)
    }

    /// Answers everything that waits, as the server would, and counts it.
    fn answer(sockets: &[UdpSocket], control: bool) -> usize {
        let mut batch = crate::sys::mmsg::Batch::new();
        let mut answered = 0;
        for socket in sockets {
            while let Ok(n) = batch.receive(socket.as_fd(), control) {
                (0..n).for_each(|i| batch.queue(i, 1));
                while batch.unsent() > 0 {
                    batch.send(socket.as_fd()).unwrap();
                }
                answered += n;
            }
        }
        answered
    }

    #[test]
    fn datagrams_go_to_the_others_and_those_that_wait_are_answered() {
        for (bound, asked) in [
            ("127.0.0.1:0", "127.0.0.1"),
            ("[::1]:0", "::1"),
            ("0.0.0.0:0", "127.0.0.7"),
            ("[::]:0", "127.0.0.7"),
            ("[::]:0", "::1"),
        ] {
            let (old, new) = shared(bound, 2, 3);
            let local = old[0].local_addr().unwrap();
            let (port, wildcard) = (local.port(), local.ip().is_unspecified());
            let ask = |_| {
                let client = UdpSocket::bind(if asked.contains(':') { "[::1]:0" } else { "127.0.0.1:0" }).unwrap();
                client.connect((asked, port)).unwrap();
                client.send(b"?").unwrap();
                client.set_nonblocking(true).unwrap();
                client
            };
            let mut clients: Vec<UdpSocket> = (0..200).map(ask).collect();
            old.iter().for_each(|socket| quiet(socket).unwrap());
            settle().unwrap();
            clients.extend((0..200).map(ask));
            let (of_old, of_new) = (answer(&old, wildcard), answer(&new, wildcard));
            assert!((1..200).contains(&of_old) && of_old + of_new == 400, "{bound}: {of_old} and {of_new}");
            // To a connected client only a reply from the address that it asked gets through.
            assert!(clients.iter().all(|client| client.recv(&mut [0]).is_ok()), "{bound}");
            drop(old);
            clients = (0..100).map(ask).collect();
            assert_eq!((answer(&new, wildcard), clients.len()), (100, 100), "{bound}");
        }
    }

    /// Connects so often, and counts which of the listeners got how many.
    fn connect(listeners: &[&TcpListener], times: usize) -> Vec<usize> {
        let address = listeners[0].local_addr().unwrap();
        let _clients: Vec<TcpStream> = (0..times).map(|_| TcpStream::connect(address).unwrap()).collect();
        listeners.iter().map(|one| std::iter::from_fn(|| one.accept().ok()).count()).collect()
    }

    #[test]
    fn connections_are_led_to_one_of_the_listeners_in_the_order_they_came() {
        for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let first = listener(address.parse().unwrap());
            let (second, third) = (listener(first.local_addr().unwrap()), listener(first.local_addr().unwrap()));
            let all = [&first, &second, &third];
            for (index, expected) in [(0, [20, 0, 0]), (1, [0, 20, 0]), (2, [0, 0, 20])] {
                lead_to(&second, index).unwrap();
                assert_eq!(connect(&all, 20), expected, "{address}");
            }
            // The last one's number is void once there is one less.
            drop(first);
            let shares = connect(&[&second, &third], 100);
            assert!(shares.iter().all(|share| *share > 0), "{address}: {shares:?}");
            lead_to(&third, 0).unwrap();
            assert_eq!(connect(&[&second, &third], 20), [0, 20], "{address}: the last took the number of the first");
            lead_nowhere(&second).unwrap();
            let shares = connect(&[&second, &third], 100);
            assert!(shares.iter().all(|share| *share > 0), "{address}: {shares:?}");
            assert_eq!(lead_nowhere(&second).unwrap_err().raw_os_error(), Some(libc::ENOENT));
        }
    }

    #[test]
    fn one_connection_can_be_led_and_ignored_alone() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let first = listener(address.parse().unwrap());
            let (second, address) = (listener(first.local_addr().unwrap()), first.local_addr().unwrap());
            for (index, is_ignored) in [(0, true), (1, false)] {
                let client = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None);
                let client = client.unwrap();
                client.bind(&SocketAddr::new(address.ip(), 0).into()).unwrap();
                let from = client.local_addr().unwrap().as_socket().unwrap();
                lead_one_to(&second, from, index).unwrap();
                ignore_one(&first, from).unwrap();
                let before = queues(first.as_fd()).unwrap().dropped;
                let made = client.connect_timeout(&address.into(), std::time::Duration::from_millis(20));
                let ignored = queues(first.as_fd()).unwrap().dropped > before;
                assert_eq!((made.is_err(), ignored), (is_ignored, is_ignored), "{address} {index}");
            }
            second.accept().unwrap();
            let shares = connect(&[&first, &second], 100);
            assert!(shares.iter().all(|share| *share > 0), "{address}: {shares:?}");
        }
    }

    #[test]
    fn a_listener_that_ignores_new_connections_keeps_those_it_has() {
        let leaving = listener("127.0.0.1:0".parse().unwrap());
        let address = leaving.local_addr().unwrap();
        let mut waiting = TcpStream::connect(address).unwrap();
        ignore_new(&leaving).unwrap();
        let refused = TcpStream::connect_timeout(&address, std::time::Duration::from_millis(20)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::TimedOut);
        assert!(queues(leaving.as_fd()).unwrap().dropped > 0, "it is seen to ignore");
        let (mut accepted, _) = leaving.accept().unwrap();
        assert_eq!(leaving.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(leaving);
        accepted.write_all(b"late").unwrap();
        waiting.read_exact(&mut [0; 4]).unwrap();
    }

    #[test]
    fn a_connection_that_is_being_made_is_made() {
        let leaving = listener("127.0.0.1:0".parse().unwrap());
        let address = leaving.local_addr().unwrap();
        let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        // What the listener replies is lost until further notice.
        client.attach_filter(&[filter(RETURN, 0, 0, 0)]).unwrap();
        client.set_nonblocking(true).unwrap();
        let begun = client.connect(&address.into()).unwrap_err();
        assert_eq!(begun.raw_os_error(), Some(libc::EINPROGRESS));
        ignore_new(&leaving).unwrap();
        settle().unwrap();
        client.detach_filter().unwrap();
        leaving.set_nonblocking(false).unwrap();
        leaving.accept().unwrap();
    }
}
