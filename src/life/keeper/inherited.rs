//! Sockets that the service manager opened for this process. It has them open too, so they outlive any process of ours:
//! what arrives while there is none waits in them for the next one. At an address that it holds we bind nothing of our own
//! beside them, whose queue would end with us.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

use socket2::{SockRef, Type};

use crate::sys::sockopt;

/// What was handed over, by address. It stays open: a reload may bring an address back.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    udp: BTreeMap<SocketAddr, Vec<UdpSocket>>,
    tcp: BTreeMap<SocketAddr, TcpListener>,
    /// Addresses that were said to be read by nobody.
    said: BTreeSet<String>,
}

impl Inherited {
    /// Sorts the sockets and gives them the options that ours have; the size of their buffers is up to who opened them.
    /// The error is a sentence for the operator.
    pub(super) fn new(sockets: Vec<OwnedFd>) -> Result<Inherited, String> {
        let mut inherited = Inherited::default();
        for socket in sockets {
            inherited.add(socket)?;
        }
        Ok(inherited)
    }

    fn add(&mut self, socket: OwnedFd) -> Result<(), String> {
        let unusable = |error: io::Error| format!("a socket of the service manager cannot be used: {error}");
        let found = SockRef::from(&socket);
        let (kind, address) = (found.r#type().map_err(unusable)?, found.local_addr().map_err(unusable)?);
        let address = address.as_socket().ok_or(
            "a socket of the service manager has no IP address: ListenDatagram= and ListenStream= take an address and a port",
        )?;
        let listens = found.is_listener().map_err(unusable)?;
        found.set_nonblocking(true).map_err(unusable)?;
        if kind == Type::DGRAM {
            sockopt::prepare_udp(socket.as_fd(), address, true).map_err(|error| error.to_string())?;
            self.udp.entry(address).or_default().push(socket.into());
        } else if kind == Type::STREAM && listens {
            sockopt::prepare_tcp(socket.as_fd(), address).map_err(|error| error.to_string())?;
            if self.tcp.insert(address, socket.into()).is_some() {
                return Err(format!(
                    "the service manager holds tcp {address} twice: one ListenStream= line is enough, all workers share it"
                ));
            }
        } else {
            return Err(format!(
                "the service manager holds a connection at {address}, not a listening socket: say Accept=no in the socket unit"
            ));
        }
        Ok(())
    }

    /// Whether there is a socket at the address.
    pub(super) fn holds(&self, address: SocketAddr) -> bool {
        self.udp.contains_key(&address) || self.tcp.contains_key(&address)
    }

    /// The UDP sockets at the address, one for each of as many workers; none if it is not held. The error is a sentence
    /// for the operator.
    pub(super) fn udp(&self, address: SocketAddr, workers: usize) -> Result<Vec<UdpSocket>, String> {
        let sockets = self.udp.get(&address).map(Vec::as_slice).unwrap_or_default();
        if sockets.len() > workers {
            return Err(format!(
                "the service manager holds udp {address} {} times, and {workers} workers read it: take ListenDatagram= \
                 lines away, or say -workers",
                sockets.len()
            ));
        }
        sockets
            .iter()
            .map(UdpSocket::try_clone)
            .collect::<io::Result<_>>()
            .map_err(|error| cannot_open(address, &error))
    }

    /// The listening TCP socket at the address, if it is held. The error is a sentence for the operator.
    pub(super) fn tcp(&self, address: SocketAddr) -> Result<Option<TcpListener>, String> {
        let socket = self.tcp.get(&address).map(TcpListener::try_clone);
        socket.transpose().map_err(|error| cannot_open(address, &error))
    }

    /// What is held and not among the addresses that are served, as in `udp 127.0.0.1:53`, if it was not said before.
    pub(super) fn unread(&mut self, served: &[SocketAddr]) -> Vec<String> {
        let udp = self.udp.keys().map(|address| ("udp", address));
        let all = udp.chain(self.tcp.keys().map(|address| ("tcp", address)));
        let unread = all.filter(|(_, address)| !served.contains(address));
        let unread: BTreeSet<String> = unread.map(|(transport, address)| format!("{transport} {address}")).collect();
        let news = unread.difference(&self.said).cloned().collect();
        self.said = unread;
        news
    }
}

fn cannot_open(address: SocketAddr, error: &io::Error) -> String {
    format!("the service manager's socket of {address} cannot be duplicated: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets() -> (UdpSocket, TcpListener, SocketAddr) {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        (UdpSocket::bind(address).unwrap(), tcp, address)
    }

    #[test]
    fn sockets_are_found_by_address_and_those_nobody_serves_are_named_once() {
        let (udp, tcp, address) = sockets();
        let mut inherited = Inherited::new(vec![udp.into(), tcp.into()]).unwrap();
        assert!(inherited.holds(address) && inherited.tcp(address).unwrap().is_some());
        assert_eq!(inherited.udp(address, 1).unwrap().len(), 1);
        let other = SocketAddr::from(([192, 0, 2, 1], 53));
        assert!(inherited.udp(other, 1).unwrap().is_empty() && inherited.tcp(other).unwrap().is_none());
        assert_eq!(inherited.unread(&[address]), Vec::<String>::new());
        assert_eq!(inherited.unread(&[other]), [format!("tcp {address}"), format!("udp {address}")]);
        assert_eq!(inherited.unread(&[other]), Vec::<String>::new());
    }

    #[test]
    fn what_cannot_be_served_is_refused_with_the_way_out() {
        let (udp, tcp, address) = sockets();
        let twice = Inherited::new(vec![tcp.try_clone().unwrap().into(), tcp.try_clone().unwrap().into()]).unwrap_err();
        assert!(twice.contains(&format!("holds tcp {address} twice")), "{twice}");
        let connection = std::net::TcpStream::connect(address).unwrap();
        let connection = Inherited::new(vec![connection.into()]).unwrap_err();
        assert!(connection.contains("Accept=no"), "{connection}");
        let path = std::os::unix::net::UnixDatagram::unbound().unwrap();
        let path = Inherited::new(vec![path.into()]).unwrap_err();
        assert!(path.contains("no IP address"), "{path}");
        let more = Inherited::new(vec![udp.try_clone().unwrap().into(), udp.into()]).unwrap();
        let more = more.udp(address, 1).unwrap_err();
        assert!(more.contains("2 times") && more.contains("-workers"), "{more}");
    }
}
