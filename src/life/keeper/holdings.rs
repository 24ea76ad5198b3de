//! The listening sockets, held here so that they outlive a server: what arrives while there is none waits in them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use tokio::time::timeout_at;

use crate::sys::clock;
use crate::sys::process::{PortOf, other_holder_of};
use crate::sys::{leave, sockopt};

use crate::life::{machine, refusal};

use super::inherited::Inherited;
use super::leaving;

/// Addresses that may be held; a Corefile with more does not start.
const MOST: usize = 1024;

/// How long it may take in all to leave the addresses that others serve too.
const LEAVING: Duration = Duration::from_secs(1);

/// What a socket is for; one address may serve HTTP on a port and DNS on another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Use {
    Dns,
    Http,
}

/// Everything that is held, by address.
#[derive(Debug)]
pub(super) struct Holdings {
    held: BTreeMap<(SocketAddr, Use), Held>,
    /// Octets to ask for per UDP socket.
    receive_buffer: usize,
    inherited: Inherited,
}

/// The sockets of one address.
#[derive(Debug)]
pub(super) struct Held {
    udp: Vec<UdpSocket>,
    tcp: TcpListener,
    /// How many workers it is for. Where the sockets are inherited there may be fewer.
    workers: usize,
    /// No interface had the address when it was bound.
    pub(super) absent: bool,
}

impl Holdings {
    /// Nothing but what was inherited; each UDP socket of ours will have a receive buffer of so many octets, if it may.
    pub(super) fn new(receive_buffer: usize, inherited: Inherited) -> Holdings {
        Holdings { held: BTreeMap::new(), receive_buffer, inherited }
    }

    /// The sockets of this address: those that are held or inherited, or new ones. The error is a sentence for the operator.
    pub(super) fn claim(&mut self, address: SocketAddr, purpose: Use, workers: usize) -> Result<&Held, String> {
        let key = (address, purpose);
        let fits = |held: &Held| held.workers == workers;
        if !self.held.get(&key).is_some_and(fits) {
            self.held.remove(&key);
            let held = Held::bind(address, workers, self.receive_buffer, &self.inherited)?;
            self.held.insert(key, held);
        }
        let held = self.held.get_mut(&key).expect("it was there or has been put there");
        // Its interface may have come since.
        held.absent = held.absent && !machine::has(address.ip());
        Ok(held)
    }

    /// Whether the address is held for this.
    pub(super) fn holds(&self, address: SocketAddr, purpose: Use) -> bool {
        self.held.contains_key(&(address, purpose))
    }

    /// Whether there are as many addresses as may be held.
    pub(super) fn are_full(&self) -> bool {
        self.held.len() >= MOST
    }

    /// Names what was inherited and is read by nobody where these are served, if that was not said before.
    pub(super) fn say_unread(&mut self, served: &[SocketAddr]) {
        for socket in self.inherited.unread(served) {
            tracing::warn!(
                "the service manager holds {socket} and nothing is served there: what comes waits unanswered; take it \
                 out of the socket unit, or bind it in the Corefile"
            );
        }
    }

    /// These are served; whatever else is held, nobody reads.
    pub(super) fn keep(&mut self, dns: &[SocketAddr], http: &[SocketAddr]) {
        self.held.retain(|(address, purpose), _| match purpose {
            Use::Dns => dns.contains(address),
            Use::Http => http.contains(address),
        });
    }

    /// Leaves every address that other processes have sockets on to them: from then on no query comes to ours there. What
    /// came before can still be answered. What was inherited stays as it is: the service manager has it open too. What fails
    /// at one address or over one transport keeps no other from being left.
    pub(super) async fn leave(&self) {
        let deadline = (clock::now() + LEAVING).into();
        let mut left = Left::default();
        for (address, held) in self.ours() {
            left.note(address, leaving::datagrams(address, &held.udp));
        }
        for (address, held) in self.ours() {
            let done = timeout_at(deadline, leaving::connections(address, &held.tcp)).await;
            left.note(address, done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())));
        }
        if !left.addresses.is_empty() {
            let named: Vec<String> = left.addresses.iter().map(ToString::to_string).collect();
            tracing::info!("left to the other instance on the same addresses: {}", named.join(", "));
        }
        if left.has_begun {
            leaving::arrive().await;
        }
    }

    /// What is held and was not inherited.
    fn ours(&self) -> impl Iterator<Item = (SocketAddr, &Held)> {
        let ours = self.held.iter().filter(|((address, _), _)| !self.inherited.holds(machine::bindable(*address)));
        ours.map(|((address, _), held)| (machine::bindable(*address), held))
    }
}

/// What was left to others.
#[derive(Debug, Default)]
struct Left {
    addresses: BTreeSet<SocketAddr>,
    /// Some socket may have been left, be it that not all of its address were.
    has_begun: bool,
}

impl Left {
    fn note(&mut self, address: SocketAddr, done: io::Result<bool>) {
        self.has_begun |= !matches!(done, Ok(false));
        match done {
            Ok(true) => drop(self.addresses.insert(address)),
            Ok(false) => {}
            Err(error) => tracing::warn!(
                "{address} cannot be left to the other instance on it ({error}): what comes last may get no answer"
            ),
        }
    }
}

impl Held {
    /// Takes what was inherited, and else binds UDP once per worker and TCP once.
    fn bind(address: SocketAddr, workers: usize, receive_buffer: usize, inherited: &Inherited) -> Result<Held, String> {
        let at = machine::bindable(address);
        let options = sockopt::Options {
            freebind: true,
            dual_stack: true,
            receive_buffer: Some(receive_buffer),
            ..sockopt::Options::default()
        };
        let mut absent = inherited.holds(at) && !at.ip().is_unspecified();
        // What is for HTTP reads no UDP, so that a socket for it at the same address is somebody else's.
        let mut udp = if workers > 0 { inherited.udp(at, workers)? } else { Vec::new() };
        if udp.is_empty() {
            for _ in 0..workers {
                let bound = sockopt::udp(at, &options).map_err(|error| refusal::explain(&error, PortOf::Udp))?;
                absent |= bound.absent;
                udp.push(bound.socket);
            }
        }
        let tcp = match inherited.tcp(at)? {
            Some(tcp) => tcp,
            None => {
                let bound = sockopt::tcp(at, &options).map_err(|error| refusal::explain(&error, PortOf::Tcp))?;
                absent |= bound.absent;
                // Whoever left the address may have led connections past this listener. Mostly nobody has, which is an error.
                let _ = leave::lead_nowhere(&bound.socket);
                bound.socket
            }
        };
        Ok(Held { udp, tcp, workers, absent })
    }

    /// All its descriptors, UDP first.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.udp.iter().map(AsFd::as_fd).chain([self.tcp.as_fd()]).collect()
    }
}

/// Which other process answers at this address already, sharing it by SO_REUSEPORT.
pub(super) fn sharer(address: SocketAddr) -> Option<String> {
    other_holder_of(address, PortOf::Udp).or_else(|| other_holder_of(address, PortOf::Tcp))
}

/// An error of the kernel about descriptors, as a sentence.
pub(super) fn cannot_pass(error: &io::Error) -> String {
    format!("cannot hand the sockets over: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free_address() -> SocketAddr {
        UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    #[test]
    fn each_worker_gets_its_own_socket_on_the_same_address() {
        let (mut holdings, address) = (Holdings::new(1 << 16, Inherited::default()), free_address());
        let held = holdings.claim(address, Use::Dns, 3).unwrap();
        assert_eq!((held.udp.len(), held.absent, held.descriptors().len()), (3, false, 4));
        assert!(held.udp.iter().all(|socket| socket.local_addr().unwrap() == address));
        let everywhere = SocketAddr::from(([0, 0, 0, 0], address.port()));
        assert_eq!((sharer(address), sharer(everywhere)), (None, None), "we share it with nobody else");
    }

    #[test]
    fn a_foreign_holder_is_named_and_an_absent_address_is_bound() {
        let (mut holdings, holder) =
            (Holdings::new(1 << 16, Inherited::default()), UdpSocket::bind("127.0.0.1:0").unwrap());
        let error = holdings.claim(holder.local_addr().unwrap(), Use::Dns, 1).unwrap_err();
        assert!(error.contains("in use by") && error.contains(&format!("pid {}", std::process::id())), "{error}");
        assert!(holdings.claim("192.0.2.77:5399".parse().unwrap(), Use::Dns, 1).unwrap().absent);
    }

    #[test]
    fn the_next_server_gets_the_same_sockets_with_what_waits_in_them() {
        let (mut holdings, address) = (Holdings::new(1 << 16, Inherited::default()), free_address());
        holdings.claim(address, Use::Dns, 1).unwrap();
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"waiting", address).unwrap();
        let held = holdings.claim(address, Use::Dns, 1).unwrap();
        let mut message = [0; 16];
        assert_eq!(held.udp[0].recv(&mut message).unwrap(), 7);
    }

    #[test]
    fn what_was_inherited_is_used_alone_and_outlives_what_is_let_go() {
        let address = free_address();
        let theirs = UdpSocket::bind(address).unwrap();
        let inherited = Inherited::new(vec![theirs.into()]).unwrap();
        let mut holdings = Holdings::new(1 << 16, inherited);
        assert_eq!(
            holdings.claim(address, Use::Dns, 3).unwrap().descriptors().len(),
            2,
            "one for UDP, and TCP of ours"
        );
        holdings.keep(&[], &[]);
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"waiting", address).unwrap();
        let held = holdings.claim(address, Use::Dns, 3).unwrap();
        assert_eq!(held.udp[0].recv(&mut [0; 16]).unwrap(), 7);
        assert!(!held.absent);
    }

    #[test]
    fn http_takes_no_notice_of_an_inherited_udp_socket_at_its_address() {
        let address = free_address();
        let inherited = Inherited::new(vec![UdpSocket::bind(address).unwrap().into()]).unwrap();
        let mut holdings = Holdings::new(1 << 16, inherited);
        assert_eq!(holdings.claim(address, Use::Http, 0).unwrap().descriptors().len(), 1);
    }

    #[test]
    fn what_is_not_served_is_closed() {
        let (mut holdings, kept, left) = (Holdings::new(1 << 16, Inherited::default()), free_address(), free_address());
        for address in [kept, left] {
            holdings.claim(address, Use::Dns, 1).unwrap();
        }
        holdings.keep(&[kept], &[left]);
        UdpSocket::bind(left).expect("it is free again");
        UdpSocket::bind(kept).expect_err("it is held");
    }
}
