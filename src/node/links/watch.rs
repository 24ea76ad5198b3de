//! Tells when the kernel changed something about the interface or the addresses.
//!
//! Datagrams are looked at as they come, without decoding what does not matter: a node where pods come and go has many
//! events a second, and few of them are about us. Nothing is queued here; what does not fit into the socket's buffer is
//! dropped by the kernel, which says so, and that counts as a change.

use std::future;
use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NetlinkBuffer, NlasIterator};
use rtnetlink::MulticastGroup;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

/// The groups that tell of links and addresses.
const GROUPS: [MulticastGroup; 3] = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];

/// Message types, lengths of their fixed parts and attributes, from linux/rtnetlink.h, if_link.h and if_addr.h.
const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
const LINK_NAME: u16 = 3;
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;

/// Room for one datagram. The kernel sends one event in each; one that fills this is taken as a change.
const DATAGRAM: usize = 32 * 1024;

/// A subscription to the kernel's events.
pub(super) struct Watch {
    socket: TokioSocket,
    buffer: Vec<u8>,
    broken: bool,
}

/// What events have to be about to count.
#[derive(Clone, Debug, Default)]
pub(super) struct Interest {
    /// The interface's name.
    pub(super) name: String,
    /// The number of the interface that is ours to look after.
    pub(super) index: Option<u32>,
    /// The addresses.
    pub(super) addresses: Vec<IpAddr>,
}

impl Watch {
    /// Subscribes.
    pub(super) fn open() -> io::Result<Watch> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        let groups = GROUPS.iter().fold(0, |bits, group| bits | 1 << (*group as u32 - 1));
        socket.socket_mut().bind(&SocketAddr::new(0, groups))?;
        Ok(Watch { socket, buffer: Vec::with_capacity(DATAGRAM), broken: false })
    }

    /// Waits for an event of interest, or for the kernel saying that it dropped some. Cancel-safe.
    pub(super) async fn changed(&mut self, interest: &Interest) {
        if self.broken {
            return future::pending().await;
        }
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer).await {
                Ok(()) if interest.concerned(&self.buffer) => return,
                Ok(()) => {}
                Err(error) => {
                    self.broken = error.raw_os_error() != Some(libc::ENOBUFS);
                    return;
                }
            }
        }
    }

    /// Whether no more events will come, and a new subscription is needed.
    pub(super) const fn broken(&self) -> bool {
        self.broken
    }
}

impl Interest {
    /// Whether a datagram tells of something that matters. What cannot be read matters.
    fn concerned(&self, mut datagram: &[u8]) -> bool {
        if datagram.len() >= DATAGRAM {
            return true;
        }
        while !datagram.is_empty() {
            let Ok(message) = NetlinkBuffer::new_checked(datagram) else { return true };
            if self.message(message.message_type(), message.payload()).unwrap_or(true) {
                return true;
            }
            datagram = datagram.get((message.length() as usize).next_multiple_of(4)..).unwrap_or_default();
        }
        false
    }

    /// As [`Interest::concerned`], for one message; `None` if it cannot be read.
    fn message(&self, kind: u16, payload: &[u8]) -> Option<bool> {
        let header = match kind {
            NEW_LINK | DELETE_LINK => LINK_HEADER,
            NEW_ADDRESS | DELETE_ADDRESS => ADDRESS_HEADER,
            _ => return Some(false),
        };
        let index = u32::from_ne_bytes(payload.get(4..8)?.try_into().ok()?);
        if self.index == Some(index) {
            return Some(true);
        }
        for attribute in NlasIterator::new(payload.get(header..)?) {
            let attribute = attribute.ok()?;
            let found = match (header, attribute.kind()) {
                (LINK_HEADER, LINK_NAME) => attribute.value().strip_suffix(&[0])? == self.name.as_bytes(),
                (ADDRESS_HEADER, ADDRESS | LOCAL) => self.addresses.contains(&address(attribute.value())?),
                _ => false,
            };
            if found {
                return Some(true);
            }
        }
        Some(false)
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::namespace::{block_on, private, run};
    use std::time::Duration;
    use tokio::time::timeout;

    #[test]
    fn dropped_events_are_a_change_and_events_go_on_afterwards() {
        private(|| {
            block_on(async {
                let mut watch = Watch::open().unwrap();
                watch.socket.socket_ref().set_rx_buf_sz(4096).unwrap();
                run("ip link add br0 type bridge");
                let interest = Interest { name: "br1".to_owned(), ..Interest::default() };
                let others = "for i in $(seq 50); do echo link set br0 up; echo link set br0 down; done | ip -batch -";
                run(others);
                let patience = Duration::from_secs(10);
                timeout(patience, watch.changed(&interest)).await.expect("the kernel says that it dropped events");
                assert!(!watch.broken());
                assert!(timeout(Duration::from_millis(50), watch.changed(&interest)).await.is_err(), "only once");
                run("ip link add br1 type bridge");
                timeout(patience, watch.changed(&interest)).await.expect("an event of interest");
            });
        });
    }

    #[test]
    fn what_cannot_be_read_is_a_change() {
        let interest = Interest { name: "lo".to_owned(), ..Interest::default() };
        let cut = [24, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0];
        assert!(interest.concerned(&cut), "shorter than what every message of a link starts with");
        assert!(interest.concerned(&cut[..10]), "shorter than any message");
        assert!(interest.concerned(&vec![0; DATAGRAM]));
        assert!(!interest.concerned(&[]));
    }
}
