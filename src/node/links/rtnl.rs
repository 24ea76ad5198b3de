//! The few questions and orders about links and addresses, over rtnetlink.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::pin;

use futures_util::{Stream, StreamExt, TryStreamExt};
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol, AddressScope,
};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::{AddressMessageBuilder, Error, Handle, LinkMessageBuilder, LinkUnspec};
use tokio::task::JoinHandle;

/// Who put an address there (IFA_PROTO, Linux 5.18): the port of DNS, to know ours again after a restart.
const OURS: AddressProtocol = AddressProtocol::Other(53);

/// How often the addresses are read again because they changed meanwhile.
const MOST_READINGS: usize = 8;

/// Set in a message of a list that changed while it was read (NLM_F_DUMP_INTR).
const INTERRUPTED: u16 = 0x10;

/// A connection to the kernel.
pub(super) struct Rtnl {
    handle: Handle,
    pub(super) connection: JoinHandle<()>,
}

/// An interface.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    /// `None` for network cards, `lo` and others without a kind.
    pub(super) kind: Option<InfoKind>,
    pub(super) up: bool,
    pub(super) loopback: bool,
}

/// An address on an interface.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) index: u32,
    pub(super) address: IpAddr,
    /// Whether the prefix is the whole address.
    pub(super) whole: bool,
    /// Whether it bears the mark of ours.
    pub(super) marked: bool,
    /// Whether it is as we place addresses on `lo`, which kernels without marks leave as the only sign.
    pub(super) alike: bool,
}

impl Rtnl {
    /// Connects; must be called inside a runtime.
    pub(super) fn connect() -> io::Result<Rtnl> {
        let (mut connection, handle, _) = rtnetlink::new_connection()?;
        // Only the end of a list says whether it is whole.
        connection.set_forward_done(true);
        Ok(Rtnl { handle, connection: tokio::spawn(connection) })
    }

    /// Whether the connection has ended and another is needed.
    pub(super) fn broken(&self) -> bool {
        self.connection.is_finished()
    }

    /// The interface of that name, if there is one.
    pub(super) async fn named(&self, name: &str) -> io::Result<Option<Link>> {
        self.link(self.handle.link().get().match_name(name)).await
    }

    /// The interface of that number, if there is one.
    pub(super) async fn numbered(&self, index: u32) -> io::Result<Option<Link>> {
        self.link(self.handle.link().get().match_index(index)).await
    }

    async fn link(&self, request: rtnetlink::LinkGetRequest) -> io::Result<Option<Link>> {
        match pin!(request.execute()).try_next().await.map_err(plain) {
            Ok(found) => Ok(found.map(Link::from)),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every address of this network namespace. Read again if the list changed meanwhile.
    pub(super) async fn addresses(&self) -> io::Result<Vec<Placed>> {
        for _ in 0..MOST_READINGS {
            let mut question = NetlinkMessage::from(RouteNetlinkMessage::GetAddress(AddressMessage::default()));
            question.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
            let answers = self.handle.clone().request(question).map_err(plain)?;
            if let Some(found) = listed(answers).await? {
                return Ok(found);
            }
        }
        Err(io::Error::from(io::ErrorKind::Interrupted))
    }

    /// Makes an interface and brings it up.
    pub(super) async fn add(&self, name: &str, kind: &InfoKind) -> io::Result<()> {
        let link = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(kind.clone()).name(name.to_owned()).up();
        self.handle.link().add(link.build()).execute().await.map_err(plain)
    }

    /// Brings an interface up.
    pub(super) async fn up(&self, link: &Link) -> io::Result<()> {
        let change = LinkUnspec::new_with_index(link.index).up().build();
        self.handle.link().set(change).execute().await.map_err(plain)
    }

    /// Deletes an interface with its addresses.
    pub(super) async fn delete(&self, link: &Link) -> io::Result<()> {
        self.handle.link().del(link.index).execute().await.map_err(plain)
    }

    /// Puts an address on an interface, with the whole address as prefix, usable at once.
    pub(super) async fn place(&self, address: IpAddr, link: &Link) -> io::Result<()> {
        let mut request = self.handle.address().add(link.index, address, whole(address));
        let message = request.message_mut();
        message.attributes.push(AddressAttribute::Protocol(OURS));
        if address.is_ipv6() {
            // No other host can have the address, and until duplicates have been looked for nobody could bind to it.
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        } else if link.loopback {
            // Anything wider would offer the address as the source of packets to other hosts.
            message.header.scope = AddressScope::Host;
        }
        request.execute().await.map_err(plain)
    }

    /// Takes an address with the whole address as prefix off an interface.
    pub(super) async fn displace(&self, address: IpAddr, link: &Link) -> io::Result<()> {
        let message = match address {
            IpAddr::V4(v4) => {
                AddressMessageBuilder::<Ipv4Addr>::new().address(v4, whole(address)).index(link.index).build()
            }
            IpAddr::V6(v6) => {
                AddressMessageBuilder::<Ipv6Addr>::new().address(v6, whole(address)).index(link.index).build()
            }
        };
        self.handle.address().del(message).execute().await.map_err(plain)
    }
}

impl Drop for Rtnl {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let mut link = Link {
            index: message.header.index,
            name: String::new(),
            kind: None,
            up: message.header.flags.contains(LinkFlags::Up),
            loopback: message.header.flags.contains(LinkFlags::Loopback),
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::LinkInfo(infos) => {
                    let kind = infos
                        .into_iter()
                        .find_map(|info| if let LinkInfo::Kind(kind) = info { Some(kind) } else { None });
                    link.kind = kind;
                }
                _ => {}
            }
        }
        link
    }
}

/// The addresses of a whole list; `None` if it changed while it was read.
async fn listed(answers: impl Stream<Item = NetlinkMessage<RouteNetlinkMessage>>) -> io::Result<Option<Vec<Placed>>> {
    let (mut answers, mut found, mut interrupted) = (pin!(answers), Vec::new(), false);
    while let Some(answer) = answers.next().await {
        interrupted |= answer.header.flags & INTERRUPTED != 0;
        match answer.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(message)) => found.extend(placed(&message)),
            NetlinkPayload::Error(error) => return Err(error.to_io()),
            NetlinkPayload::Done(end) if end.code == 0 => return Ok((!interrupted).then_some(found)),
            NetlinkPayload::Done(end) => return Err(io::Error::from_raw_os_error(end.code.abs())),
            _ => {}
        }
    }
    // The connection ended first.
    Err(io::Error::from(io::ErrorKind::UnexpectedEof))
}

/// The address that is this host's own: on a point-to-point link the other attribute is the peer's.
fn placed(message: &AddressMessage) -> Option<Placed> {
    let (mut local, mut other, mut marked) = (None, None, false);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => other = Some(*address),
            AddressAttribute::Protocol(by) => marked = *by == OURS,
            _ => {}
        }
    }
    let address = local.or(other)?;
    let whole = message.header.prefix_len == whole(address);
    let alike = match address {
        IpAddr::V4(_) => message.header.scope == AddressScope::Host,
        IpAddr::V6(_) => message.header.flags.contains(AddressHeaderFlags::Nodad),
    };
    Some(Placed { index: message.header.index, address, whole, marked: whole && marked, alike: whole && alike })
}

const fn whole(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn plain(error: Error) -> io::Error {
    match error {
        Error::NetlinkError(error) => error.to_io(),
        error => io::Error::other(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use netlink_packet_core::{DoneMessage, NetlinkHeader};

    fn message(flags: u16, payload: NetlinkPayload<RouteNetlinkMessage>) -> NetlinkMessage<RouteNetlinkMessage> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        NetlinkMessage::new(header, payload)
    }

    fn address() -> NetlinkPayload<RouteNetlinkMessage> {
        let message = AddressMessageBuilder::<Ipv4Addr>::new().address([169, 254, 20, 10].into(), 32).build();
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(message))
    }

    fn end(code: i32) -> NetlinkPayload<RouteNetlinkMessage> {
        let mut end = DoneMessage::default();
        end.code = code;
        NetlinkPayload::Done(end)
    }

    #[tokio::test]
    async fn only_a_whole_list_counts() {
        let read = async |answers: Vec<_>| {
            let found = listed(stream::iter(answers)).await;
            found.map(|found| found.map(|found| found.len())).map_err(|error| error.raw_os_error())
        };
        assert_eq!(read(vec![message(0, address()), message(0, end(0))]).await, Ok(Some(1)));
        assert_eq!(read(vec![message(INTERRUPTED, address()), message(0, end(0))]).await, Ok(None));
        assert_eq!(read(vec![message(0, address()), message(INTERRUPTED, end(0))]).await, Ok(None));
        let refused = read(vec![message(0, address()), message(0, end(-libc::ENOMEM))]).await;
        assert_eq!(refused, Err(Some(libc::ENOMEM)));
        assert_eq!(read(vec![message(0, address())]).await, Err(None), "cut off");
    }
}
