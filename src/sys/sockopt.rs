//! Listening sockets with the options they need. Whoever starts the server makes them here and hands them in.

#![allow(unsafe_code)]

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

/// How a listening socket is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bind an address that no interface has yet (IP_FREEBIND). Tried only when the plain way fails for that reason.
    pub freebind: bool,
    /// `[::]` also takes IPv4. Other IPv6 addresses never do.
    pub dual_stack: bool,
    /// Octets of receive buffer to ask for (UDP); the kernel may grant less.
    pub receive_buffer: Option<usize>,
    /// Connections that may wait to be accepted (TCP).
    pub backlog: u16,
}

/// What waits in a socket, in octets of the kernel's own accounting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queues {
    /// Came and was not read.
    pub receive: usize,
    /// Was written and not acknowledged.
    pub send: usize,
    /// Datagrams that came and found no room, or were damaged, since the socket was made. Starts again at 2^32.
    pub dropped: u32,
}

/// Octets of send buffer of a connection: with less, several of the longest replies in a row wait for acknowledgements that
/// clients delay. The kernel grants twice as much; left alone it lets them grow to megabytes for one who does not read.
const SEND_BUFFER: usize = 128 << 10;
/// Octets of receive buffer of a connection. Queries are short and are read at once; what is not, costs memory.
const STREAM_RECEIVE_BUFFER: usize = 16 << 10;
/// How long written octets may wait for their acknowledgement, also those of a connection that was closed.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// A socket and what was noticed while making it.
#[derive(Debug)]
pub struct Bound<T> {
    /// The socket, non-blocking.
    pub socket: T,
    /// No interface has the address yet; nothing arrives until one does.
    pub absent: bool,
}

/// What went wrong, with the errno untouched, so that a caller can tell "in use" from "not permitted".
#[derive(Debug)]
pub struct Error {
    /// The call that failed.
    pub step: Step,
    /// The address it was for.
    pub address: SocketAddr,
    /// Why.
    pub cause: io::Error,
}

/// A call on the way to a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// socket(2)
    Create,
    /// setsockopt(2), by option
    Set(&'static str),
    /// bind(2)
    Bind,
    /// listen(2)
    Listen,
}

impl Default for Options {
    fn default() -> Self {
        Self { freebind: false, dual_stack: true, receive_buffer: None, backlog: 1024 }
    }
}

/// A UDP socket that shares its address with others of its kind (SO_REUSEPORT), one per worker. A wildcard socket
/// reports the address each datagram was sent to.
pub fn udp(address: SocketAddr, options: &Options) -> Result<Bound<UdpSocket>, Error> {
    let socket = create(address, Type::DGRAM, Protocol::UDP, options)?;
    if let Some(size) = options.receive_buffer {
        let failed = |cause| Error { step: Step::Set("SO_RCVBUF"), address, cause };
        grow_receive_buffer(&socket, size).map_err(failed)?;
    }
    prepare_udp(socket.as_fd(), address, options.dual_stack)?;
    let absent = bind(&socket, address, options)?;
    Ok(Bound { socket: socket.into(), absent })
}

/// Sets what a UDP socket of this address needs besides a place to listen, also one that another process has bound.
pub fn prepare_udp(socket: BorrowedFd<'_>, address: SocketAddr, dual_stack: bool) -> Result<(), Error> {
    let socket = &SockRef::from(&socket);
    let failed = |step| move |cause| Error { step, address, cause };
    // Replies fit the smallest path; a forged "too big" must not make the kernel cut them into fragments or refuse
    // them. RFC 9715 section 3.1.
    let v6 = address.is_ipv6();
    let omit = if v6 {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_OMIT)
    } else {
        set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT)
    };
    omit.map_err(failed(Step::Set("MTU_DISCOVER")))?;
    if v6 && dual_stack && address.ip().is_unspecified() {
        set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT)
            .map_err(failed(Step::Set("MTU_DISCOVER")))?;
    }
    if address.ip().is_unspecified() {
        let info = if v6 {
            set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
        } else {
            set(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
        };
        info.map_err(failed(Step::Set("PKTINFO")))?;
    }
    Ok(())
}

/// A listening TCP socket. Another process may listen on the same address (SO_REUSEPORT): an upgrade overlaps.
pub fn tcp(address: SocketAddr, options: &Options) -> Result<Bound<TcpListener>, Error> {
    let socket = create(address, Type::STREAM, Protocol::TCP, options)?;
    let failed = |step| move |cause| Error { step, address, cause };
    socket.set_reuse_address(true).map_err(failed(Step::Set("SO_REUSEADDR")))?;
    prepare_tcp(socket.as_fd(), address)?;
    let absent = bind(&socket, address, options)?;
    socket.listen(i32::from(options.backlog)).map_err(failed(Step::Listen))?;
    Ok(Bound { socket: socket.into(), absent })
}

/// The same for a listening TCP socket.
pub fn prepare_tcp(socket: BorrowedFd<'_>, address: SocketAddr) -> Result<(), Error> {
    let socket = SockRef::from(&socket);
    let failed = |step| move |cause| Error { step, address, cause };
    // Accepted sockets inherit it: a reply never waits for the acknowledgement of the one before.
    socket.set_tcp_nodelay(true).map_err(failed(Step::Set("TCP_NODELAY")))?;
    // These too are inherited.
    socket.set_send_buffer_size(SEND_BUFFER).map_err(failed(Step::Set("SO_SNDBUF")))?;
    socket.set_recv_buffer_size(STREAM_RECEIVE_BUFFER).map_err(failed(Step::Set("SO_RCVBUF")))?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED)).map_err(failed(Step::Set("TCP_USER_TIMEOUT")))?;
    Ok(())
}

/// The receive buffer the kernel granted, in octets of its own accounting.
pub fn receive_buffer(socket: &UdpSocket) -> io::Result<usize> {
    SockRef::from(socket).recv_buffer_size()
}

/// What waits in the socket (SO_MEMINFO, since Linux 4.12).
pub fn queues(fd: BorrowedFd<'_>) -> io::Result<Queues> {
    // SK_MEMINFO_RMEM_ALLOC, SK_MEMINFO_WMEM_QUEUED and SK_MEMINFO_DROPS of linux/sock_diag.h.
    const RECEIVE: usize = 0;
    const SEND: usize = 5;
    const DROPS: usize = 8;
    let mut told = [0u32; DROPS + 1];
    let mut length = size_of_val(&told) as libc::socklen_t;
    // SAFETY: `told` is a valid place for `length` octets, and any of them are valid numbers.
    let result = unsafe {
        let place = (&raw mut told).cast();
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO, place, &raw mut length)
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Queues { receive: told[RECEIVE] as usize, send: told[SEND] as usize, dropped: told[DROPS] })
}

/// Makes the close of `stream` a reset: nothing is kept for a client that was turned away.
pub fn reset_on_close(fd: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&fd).set_linger(Some(Duration::ZERO))
}

/// Marks packets of the socket (SO_MARK), where this process may: CAP_NET_ADMIN or CAP_NET_RAW.
pub fn mark(fd: BorrowedFd<'_>, mark: Option<u32>) {
    if let Some(mark) = mark {
        let _ = SockRef::from(&fd).set_mark(mark);
    }
}

/// Descriptors this process may have open at once (the soft limit of RLIMIT_NOFILE).
pub fn descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the answer.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit.rlim_cur)
}

/// Raises that limit to the hard one, and returns it.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the answer, and then holds what is to be set.
    let failed = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) < 0 || {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit) < 0
        }
    };
    if failed { Err(io::Error::last_os_error()) } else { Ok(limit.rlim_cur) }
}

fn create(address: SocketAddr, kind: Type, protocol: Protocol, options: &Options) -> Result<Socket, Error> {
    let failed = |step| move |cause| Error { step, address, cause };
    let socket =
        Socket::new(Domain::for_address(address), kind.nonblocking(), Some(protocol)).map_err(failed(Step::Create))?;
    if address.is_ipv6() {
        let only = !(options.dual_stack && address.ip().is_unspecified());
        socket.set_only_v6(only).map_err(failed(Step::Set("IPV6_V6ONLY")))?;
    }
    socket.set_reuse_port(true).map_err(failed(Step::Set("SO_REUSEPORT")))?;
    Ok(socket)
}

/// Binds, and returns whether the address had to be taken on trust.
fn bind(socket: &Socket, address: SocketAddr, options: &Options) -> Result<bool, Error> {
    let failed = |step| move |cause| Error { step, address, cause };
    match socket.bind(&address.into()) {
        Ok(()) => Ok(false),
        Err(e) if options.freebind && e.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {
            if address.is_ipv6() { socket.set_freebind_v6(true) } else { socket.set_freebind_v4(true) }
                .map_err(failed(Step::Set("IP_FREEBIND")))?;
            socket.bind(&address.into()).map_err(failed(Step::Bind))?;
            Ok(true)
        }
        Err(e) => Err(failed(Step::Bind)(e)),
    }
}

/// SO_RCVBUFFORCE ignores the system's maximum but needs CAP_NET_ADMIN; without it, as much as is allowed.
fn grow_receive_buffer(socket: &Socket, size: usize) -> io::Result<()> {
    let forced = libc::c_int::try_from(size).unwrap_or(libc::c_int::MAX);
    match set(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, forced) {
        Ok(()) => Ok(()),
        Err(_) => socket.set_recv_buffer_size(size),
    }
}

fn set(socket: &Socket, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the option value is a c_int that outlives the call, and its size is given.
    let result = unsafe {
        let size = size_of::<libc::c_int>() as libc::socklen_t;
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl Error {
    /// The errno, as in `libc::EADDRINUSE`.
    pub fn errno(&self) -> Option<i32> {
        self.cause.raw_os_error()
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Create => f.write_str("socket"),
            Step::Set(option) => write!(f, "setsockopt {option}"),
            Step::Bind => f.write_str("bind"),
            Step::Listen => f.write_str("listen"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.address, self.step, self.cause)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    fn any(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    #[test]
    fn workers_share_one_udp_address() {
        let first = udp(any("127.0.0.1:0"), &Options::default()).unwrap().socket;
        let address = first.local_addr().unwrap();
        let second = udp(address, &Options::default()).unwrap();
        assert_eq!(second.socket.local_addr().unwrap(), address);
        assert!(!second.absent);
    }

    #[test]
    fn an_address_held_without_sharing_is_an_error_that_names_the_cause() {
        let holder = UdpSocket::bind("127.0.0.1:0").unwrap();
        let error = udp(holder.local_addr().unwrap(), &Options::default()).unwrap_err();
        assert_eq!((error.step, error.errno()), (Step::Bind, Some(libc::EADDRINUSE)));
        assert_eq!(error.to_string(), format!("{}: bind: {}", error.address, error.cause));
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = tcp(holder.local_addr().unwrap(), &Options::default()).unwrap_err();
        assert_eq!(error.errno(), Some(libc::EADDRINUSE));
    }

    #[test]
    fn an_address_nobody_has_needs_freebind() {
        // Addresses for documentation, RFC 5737 and RFC 3849.
        for address in ["192.0.2.7:0", "[2001:db8::7]:0"] {
            let error = udp(any(address), &Options::default()).unwrap_err();
            assert_eq!(error.errno(), Some(libc::EADDRNOTAVAIL), "{address}");
            let options = Options { freebind: true, ..Options::default() };
            assert!(udp(any(address), &options).unwrap().absent, "{address}");
            assert!(tcp(any(address), &options).unwrap().absent, "{address}");
        }
        let here = udp(any("127.0.0.1:0"), &Options { freebind: true, ..Options::default() }).unwrap();
        assert!(!here.absent);
    }

    #[test]
    fn the_wildcard_takes_both_families() {
        let listener = tcp(any("[::]:0"), &Options::default()).unwrap().socket;
        listener.set_nonblocking(false).unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "::1"] {
            let mut client = TcpStream::connect((host, port)).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            assert!(server.nodelay().unwrap());
            server.write_all(b"x").unwrap();
            client.read_exact(&mut [0]).unwrap();
        }
    }

    #[test]
    fn accepted_connections_have_small_buffers_that_do_not_grow_and_tell_what_waits_in_them() {
        let listener = tcp(any("127.0.0.1:0"), &Options::default()).unwrap().socket;
        listener.set_nonblocking(false).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let fd = std::os::fd::AsFd::as_fd(&server).try_clone_to_owned().unwrap();
        let waiting = || queues(std::os::fd::AsFd::as_fd(&fd)).unwrap();
        assert_eq!(SockRef::from(&fd).recv_buffer_size().unwrap(), 2 * STREAM_RECEIVE_BUFFER);
        assert_eq!((waiting().receive, waiting().send), (0, 0));
        server.set_nonblocking(true).unwrap();
        while server.write(&[0; 4096]).is_ok() {}
        // The last piece may be longer than what there was room for.
        let most = 2 * SEND_BUFFER + (128 << 10);
        assert!((1..most).contains(&waiting().send), "{:?}", waiting());
        SockRef::from(&fd).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
    }

    #[test]
    fn one_family_only_when_asked() {
        let options = Options { dual_stack: false, ..Options::default() };
        let listener = tcp(any("[::]:0"), &options).unwrap().socket;
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect(("::1", port)).unwrap();
        let error = TcpStream::connect(("127.0.0.1", port)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_larger_receive_buffer_is_granted() {
        let small = Options { receive_buffer: Some(16 << 10), ..Options::default() };
        let large = Options { receive_buffer: Some(64 << 10), ..Options::default() };
        let granted = |o: &Options| receive_buffer(&udp(any("127.0.0.1:0"), o).unwrap().socket).unwrap();
        assert!(granted(&large) >= 2 * granted(&small));
    }

    #[test]
    fn a_refused_client_sees_a_reset() {
        let listener = tcp(any("127.0.0.1:0"), &Options::default()).unwrap().socket;
        listener.set_nonblocking(false).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        reset_on_close(std::os::fd::AsFd::as_fd(&server)).unwrap();
        drop(server);
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn some_descriptors_are_allowed() {
        assert!(descriptor_limit().unwrap() > 3);
    }
}
