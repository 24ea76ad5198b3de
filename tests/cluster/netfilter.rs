//! What this namespace's packet filter holds, asked over netlink: tracked flows (linux/netfilter/nfnetlink_conntrack.h)
//! and tables of rules (linux/netfilter/nf_tables.h).

use std::io;
use std::net::IpAddr;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

/// Message types; the high octet is the subsystem.
const CONNTRACK_GET: u16 = 1 << 8 | 1;
const CONNTRACK_DELETE: u16 = 1 << 8 | 2;
const TABLES_GET: u16 = 10 << 8 | 1;
const ERROR: u16 = 2;
const DONE: u16 = 3;

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;

/// Attributes of a tracked flow: the first packet's tuple, its addresses and protocol, and what is in those.
const TUPLE: u16 = 1;
const TUPLE_ADDRESSES: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const TARGET_V4: u16 = 2;
const TARGET_V6: u16 = 4;
const TARGET_PORT: u16 = 3;

/// Attribute of a table.
const TABLE_NAME: u16 = 1;

/// Where the first packet of each tracked DNS flow was sent to.
pub fn dns_flows() -> io::Result<Vec<IpAddr>> {
    let mut flows = Vec::new();
    request(CONNTRACK_GET, REQUEST | DUMP, |flow| flows.extend(target(flow)))?;
    Ok(flows)
}

/// Forgets every flow.
pub fn forget_flows() -> io::Result<()> {
    request(CONNTRACK_DELETE, REQUEST | ACK, |_| ())
}

/// The names of all tables of rules, of whatever family.
pub fn tables() -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    request(TABLES_GET, REQUEST | DUMP, |table| {
        let name = attribute(table, TABLE_NAME).map(|name| name.strip_suffix(&[0]).unwrap_or(name));
        names.extend(name.map(|name| String::from_utf8_lossy(name).into_owned()));
    })?;
    Ok(names)
}

/// Sends one request and hands `each` the attributes of every object that comes back.
fn request(kind: u16, flags: u16, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    // Length, type, flags, sequence number, port; then any family, version 0.
    let words = [20u32.to_ne_bytes(), join(kind, flags), 1u32.to_ne_bytes(), [0; 4], [0; 4]];
    socket.send_to(&words.concat(), &SocketAddr::new(0, 0), 0)?;
    loop {
        let (packet, _) = socket.recv_from_full()?;
        let mut rest = &packet[..];
        while let Some(header) = rest.get(..16) {
            let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let body = rest.get(16..length).ok_or_else(cut)?;
            match u16::from_ne_bytes([header[4], header[5]]) {
                DONE => return Ok(()),
                ERROR => {
                    let code = body.first_chunk().map(|code| i32::from_ne_bytes(*code)).ok_or_else(cut)?;
                    return if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) };
                }
                _ => each(body.get(4..).ok_or_else(cut)?),
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// The address a flow was sent to, if it was sent to port 53.
fn target(flow: &[u8]) -> Option<IpAddr> {
    let tuple = attribute(flow, TUPLE)?;
    let port = attribute(attribute(tuple, TUPLE_PROTOCOL)?, TARGET_PORT)?;
    let addresses = attribute(tuple, TUPLE_ADDRESSES)?;
    let v4 = || Some(IpAddr::from(*attribute(addresses, TARGET_V4)?.first_chunk::<4>()?));
    let v6 = || Some(IpAddr::from(*attribute(addresses, TARGET_V6)?.first_chunk::<16>()?));
    (port == 53u16.to_be_bytes()).then(|| v4().or_else(v6)).flatten()
}

/// The value of the first attribute of that type.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let &[a, b, c, d] = attributes.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        // The two upper bits say how the value is written, not what it is.
        if u16::from_ne_bytes([c, d]) & 0x3fff == wanted {
            return attributes.get(4..length);
        }
        attributes = attributes.get(length.next_multiple_of(4)..).filter(|_| length >= 4)?;
    }
}

fn join(low: u16, high: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (low.to_ne_bytes(), high.to_ne_bytes());
    [a, b, c, d]
}

fn cut() -> io::Error {
    io::Error::other("a netlink message that ends too early")
}
