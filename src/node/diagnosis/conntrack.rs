//! Entries of the connection tracking table for the addresses of the cache. There should be none while packets to them
//! are intercepted.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Tuple};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use socket2::SockRef;

use super::Seen;

/// How long to wait for the kernel.
const PATIENCE: Duration = Duration::from_secs(2);

/// The most entries that are looked at: a node with more has a table that is far too full for other reasons.
const MOST: u64 = 2_000_000;

/// Larger than any datagram that the kernel makes for a list.
const LARGEST_DATAGRAM: usize = 64 << 10;

/// Entries found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tracked {
    /// How many there are for each address; addresses without one are left out.
    pub entries: BTreeMap<IpAddr, u64>,
    /// One of them in words.
    pub example: Option<String>,
    /// Whether the whole table was looked at.
    pub complete: bool,
}

/// What one end of an entry says.
#[derive(Default)]
struct Flow {
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    protocol: Option<Protocol>,
    source_port: u16,
    destination_port: u16,
}

/// Goes through the table. Errors: it takes CAP_NET_ADMIN; the kernel tracks nothing.
pub(super) fn look(addresses: &[IpAddr], ports: &[u16]) -> Seen<Tracked> {
    let mut tracked = Tracked::default();
    match tracked.read(addresses, ports) {
        // Without the module nothing is tracked.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT)) => {
            Ok(Tracked { complete: true, ..Tracked::default() })
        }
        read => read.map(|()| tracked).map_err(Into::into),
    }
}

impl Tracked {
    fn read(&mut self, addresses: &[IpAddr], ports: &[u16]) -> io::Result<()> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        SockRef::from(&socket).set_read_timeout(Some(PATIENCE))?;
        socket.send(&request(), 0)?;
        let mut looked_at = 0;
        let mut datagram = Vec::with_capacity(LARGEST_DATAGRAM);
        while looked_at < MOST {
            datagram.clear();
            socket.recv(&mut datagram, 0)?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let message: NetlinkMessage<NetfilterMessage> =
                    NetlinkMessage::deserialize(rest).map_err(|error| io::Error::other(error.to_string()))?;
                let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
                match message.payload {
                    NetlinkPayload::Done(_) => {
                        self.complete = true;
                        return Ok(());
                    }
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(message) => {
                        looked_at += 1;
                        self.take(&Flow::of(message.inner), addresses, ports);
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Counts a flow to one of the addresses, or one that began with a reply from there.
    fn take(&mut self, flow: &Flow, addresses: &[IpAddr], ports: &[u16]) {
        let ends = [(flow.destination, flow.destination_port), (flow.source, flow.source_port)];
        let wanted = |(address, port): &(Option<IpAddr>, u16)| {
            address.is_some_and(|address| addresses.contains(&address)) && ports.contains(port)
        };
        let Some((Some(address), _)) = ends.into_iter().find(wanted) else { return };
        *self.entries.entry(address).or_default() += 1;
        self.example.get_or_insert_with(|| flow.words());
    }
}

impl Flow {
    /// The direction in which an entry began.
    fn of(message: NetfilterMessageInner) -> Self {
        let mut flow = Flow::default();
        let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = message else { return flow };
        let original = attributes.into_iter().find_map(|attribute| match attribute {
            ConntrackAttribute::CtaTupleOrig(parts) => Some(parts),
            _ => None,
        });
        for part in original.unwrap_or_default() {
            match part {
                Tuple::Ip(ends) => ends.into_iter().for_each(|end| match end {
                    IPTuple::SourceAddress(address) => flow.source = Some(address),
                    IPTuple::DestinationAddress(address) => flow.destination = Some(address),
                    _ => {}
                }),
                Tuple::Proto(parts) => parts.into_iter().for_each(|part| match part {
                    ProtoTuple::Protocol(protocol) => flow.protocol = Some(protocol),
                    ProtoTuple::SourcePort(port) => flow.source_port = port,
                    ProtoTuple::DestinationPort(port) => flow.destination_port = port,
                    _ => {}
                }),
                _ => {}
            }
        }
        flow
    }

    fn words(&self) -> String {
        let protocol = match self.protocol {
            Some(Protocol::Udp) => "UDP",
            Some(Protocol::Tcp) => "TCP",
            _ => "packets",
        };
        let end = |address: Option<IpAddr>, port| {
            address.map_or_else(String::new, |address| std::net::SocketAddr::new(address, port).to_string())
        };
        let (from, to) = (end(self.source, self.source_port), end(self.destination, self.destination_port));
        format!("{protocol} from {from} to {to}")
    }
}

fn request() -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let ask = NetfilterMessage::new(
        NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0),
        ConntrackMessage::Get(Vec::new()),
    );
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(ask));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}
