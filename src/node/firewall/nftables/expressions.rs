//! What a rule is made of: loads and comparisons that a packet must pass, then what is done to it.
//!
//! The numbers are those of `linux/netfilter/nf_tables.h`. The library has types for the commonest expressions; the
//! others are given by name and attributes.

use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{DefaultNla, Emitable, NlasIterator};
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, Expressions, Immediate, Meta, MetaKey, Operator, Payload, Register, Verdict,
    VerdictAttribute,
};

/// A transport that DNS uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// One of the two ends that a packet names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Source,
    Destination,
}

/// Which translation a NAT expression makes.
const NAT_DESTINATION: u32 = 1;

/// The connection's status bits as the key of a load (NFT_CT_STATUS), and the bit of a translated destination.
const CT_STATUS: u32 = 2;
const DESTINATION_TRANSLATED: u32 = 1 << 5;

/// The offsets of headers that a load counts from.
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

/// Numbers that a random one is drawn by (NFT_NG_RANDOM).
const RANDOM: u32 = 1;

/// The packet is of the address's family and has it at this end.
pub(super) fn address(end: End, address: IpAddr) -> Vec<Expressions> {
    let (family, offset, octets) = match (address, end) {
        (IpAddr::V4(address), End::Source) => (libc::NFPROTO_IPV4, 12, address.octets().to_vec()),
        (IpAddr::V4(address), End::Destination) => (libc::NFPROTO_IPV4, 16, address.octets().to_vec()),
        (IpAddr::V6(address), End::Source) => (libc::NFPROTO_IPV6, 8, address.octets().to_vec()),
        (IpAddr::V6(address), End::Destination) => (libc::NFPROTO_IPV6, 24, address.octets().to_vec()),
    };
    let family = u8::try_from(family).expect("families are octets");
    let length = octets.len();
    [meta(MetaKey::Nfproto, vec![family]), vec![load(NETWORK_HEADER, offset, length), equals(octets)]].concat()
}

/// The packet is of the transport and has this port at this end.
pub(super) fn port(end: End, transport: Transport, port: u16) -> Vec<Expressions> {
    let protocol = match transport {
        Transport::Udp => libc::IPPROTO_UDP,
        Transport::Tcp => libc::IPPROTO_TCP,
    };
    let protocol = u8::try_from(protocol).expect("protocols are octets");
    let offset = if end == End::Source { 0 } else { 2 };
    let number = port.to_be_bytes().to_vec();
    [meta(MetaKey::L4Proto, vec![protocol]), vec![load(TRANSPORT_HEADER, offset, number.len()), equals(number)]]
        .concat()
}

/// The packet bears this mark.
pub(super) fn mark(mark: u32) -> Vec<Expressions> {
    meta(MetaKey::Mark, mark.to_ne_bytes().to_vec())
}

/// The packet belongs to a connection whose destination was translated.
pub(super) fn destination_translated() -> Vec<Expressions> {
    let value = |number: u32| DataAttribute::Value(number.to_ne_bytes().to_vec());
    let only_that_bit = Expressions::Bitwise(vec![
        Bitwise::SourceRegister(Register::Reg1),
        Bitwise::DestinationRegister(Register::Reg1),
        Bitwise::Length(4),
        Bitwise::Mask(value(DESTINATION_TRANSLATED)),
        Bitwise::Xor(value(0)),
    ]);
    let status = named("ct", &[(1, u32::from(Register::Reg1)), (2, CT_STATUS)]);
    vec![status, only_that_bit, compare(Operator::NotEqual, 0_u32.to_ne_bytes().to_vec())]
}

/// One packet in `ways`, chosen at random.
pub(super) fn one_in(ways: u32) -> Vec<Expressions> {
    let draw = named("numgen", &[(1, u32::from(Register::Reg1)), (2, ways), (3, RANDOM)]);
    vec![draw, equals(0_u32.to_ne_bytes().to_vec())]
}

/// Counts the packets that come so far.
pub(super) fn counter() -> Expressions {
    named("counter", &[])
}

/// The packet is not tracked.
pub(super) fn notrack() -> Expressions {
    named("notrack", &[])
}

/// The packet goes through the rules of that chain too.
pub(super) fn jump(chain: &str) -> Expressions {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(vec![
            VerdictAttribute::Code(Verdict::Jump),
            VerdictAttribute::Chain(chain.to_owned()),
        ])),
    ])
}

/// The connection goes to this server instead.
pub(super) fn translate_to(server: SocketAddr) -> Vec<Expressions> {
    let (family, octets) = match server.ip() {
        IpAddr::V4(address) => (libc::NFPROTO_IPV4, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::NFPROTO_IPV6, address.octets().to_vec()),
    };
    let family = u32::try_from(family).expect("families are octets");
    let registers = [(3, u32::from(Register::Reg1)), (5, u32::from(Register::Reg2))];
    let nat = named("nat", &[&[(1, NAT_DESTINATION), (2, family)], registers.as_slice()].concat());
    vec![put(Register::Reg1, octets), put(Register::Reg2, server.port().to_be_bytes().to_vec()), nat]
}

/// The connection gets an address of this node as its source.
pub(super) fn masquerade() -> Expressions {
    named("masq", &[])
}

/// Whether `found`, as the kernel tells it, is what `wanted` asked for. The kernel adds attributes that were left to it
/// and values that change, as a counter's.
pub(super) fn same(wanted: &Expressions, found: &Expressions) -> bool {
    let attributes = attributes(found);
    name(wanted) == name(found) && self::attributes(wanted).iter().all(|attribute| attributes.contains(attribute))
}

/// The figures of a counter: packets, octets.
pub(super) fn counted(expression: &Expressions) -> Option<(u64, u64)> {
    let attributes = if name(expression) == "counter" { attributes(expression) } else { return None };
    let figure = |wanted: u16| {
        let found = attributes.iter().find(|(kind, _)| *kind == wanted)?;
        found.1.as_slice().try_into().ok().map(u64::from_be_bytes)
    };
    figure(2).zip(figure(1))
}

fn meta(key: MetaKey, value: Vec<u8>) -> Vec<Expressions> {
    vec![Expressions::Meta(vec![Meta::DestinationRegister(Register::Reg1), Meta::Key(key)]), equals(value)]
}

fn load(base: u32, offset: u32, length: usize) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(Register::Reg1),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(u32::try_from(length).expect("at most an address")),
    ])
}

fn equals(value: Vec<u8>) -> Expressions {
    compare(Operator::Equal, value)
}

fn compare(operator: Operator, value: Vec<u8>) -> Expressions {
    let value = Cmp::Data(DataAttribute::Value(value));
    Expressions::Cmp(vec![Cmp::SourceRegister(Register::Reg1), Cmp::Op(operator), value])
}

fn put(register: Register, value: Vec<u8>) -> Expressions {
    let value = Immediate::Data(DataAttribute::Value(value));
    Expressions::Immediate(vec![Immediate::DestinationRegister(register), value])
}

/// An expression that the library has no type for.
fn named(name: &str, numbers: &[(u16, u32)]) -> Expressions {
    let attribute = |&(kind, number): &(u16, u32)| DefaultNla::new(kind, number.to_be_bytes().to_vec());
    Expressions::Other { expression_type: name.to_owned(), attributes: numbers.iter().map(attribute).collect() }
}

fn name(expression: &Expressions) -> &str {
    match expression {
        Expressions::Bitwise(_) => "bitwise",
        Expressions::Cmp(_) => "cmp",
        Expressions::Immediate(_) => "immediate",
        Expressions::Lookup(_) => "lookup",
        Expressions::Meta(_) => "meta",
        Expressions::Payload(_) => "payload",
        Expressions::Other { expression_type, .. } => expression_type,
        _ => "",
    }
}

/// The attributes of an expression: kinds and values as they are sent.
fn attributes(expression: &Expressions) -> Vec<(u16, Vec<u8>)> {
    let mut bytes = vec![0; expression.buffer_len()];
    expression.emit(&mut bytes);
    let each = NlasIterator::new(&bytes).flatten();
    each.map(|attribute| (attribute.kind(), attribute.value().to_vec())).collect()
}
