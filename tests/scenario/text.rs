//! Messages as the lines of a scenario, and the other way round.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::support::Message;
use crate::support::message::Record;
use crate::support::wire::*;

const TYPES: [(&str, u16); 14] = [
    ("A", A),
    ("NS", NS),
    ("CNAME", CNAME),
    ("SOA", SOA),
    ("PTR", PTR),
    ("MX", MX),
    ("TXT", TXT),
    ("AAAA", AAAA),
    ("DS", DS),
    ("RRSIG", RRSIG),
    ("NSEC", NSEC),
    ("AXFR", AXFR),
    ("IXFR", IXFR),
    ("ANY", ANY),
];

const RCODES: [(&str, u16); 7] = [
    ("NOERROR", NOERROR),
    ("FORMERR", FORMERR),
    ("SERVFAIL", SERVFAIL),
    ("NXDOMAIN", NXDOMAIN),
    ("NOTIMP", NOTIMP),
    ("REFUSED", REFUSED),
    ("BADVERS", BADVERS),
];

/// Header bits in the order they are printed. QR goes without saying.
const FLAGS: [(&str, u16); 6] = [("AA", AA), ("TC", TC), ("RD", RD), ("RA", RA), ("AD", AD), ("CD", CD)];

const SECTIONS: [&str; 3] = ["ANSWER", "AUTHORITY", "ADDITIONAL"];

fn number_of(table: &[(&str, u16)], word: &str) -> Option<u16> {
    table.iter().find(|(name, _)| *name == word).map(|(_, number)| *number)
}

fn name_of(table: &[(&'static str, u16)], number: u16) -> Option<&'static str> {
    table.iter().find(|(_, other)| *other == number).map(|(name, _)| *name)
}

pub fn kind(word: &str) -> u16 {
    let numbered = || word.strip_prefix("TYPE").and_then(|number| number.parse().ok());
    number_of(&TYPES, word).or_else(numbered).unwrap_or_else(|| panic!("no type is called {word}"))
}

pub fn rcode(word: &str) -> Option<u16> {
    number_of(&RCODES, word)
}

pub fn flag(word: &str) -> Option<u16> {
    number_of(&FLAGS, word)
}

pub fn section(word: &str) -> Option<usize> {
    SECTIONS.iter().position(|section| *section == word)
}

fn kind_name(kind: u16) -> String {
    name_of(&TYPES, kind).map_or_else(|| format!("TYPE{kind}"), str::to_owned)
}

fn flags(message: &Message) -> impl Iterator<Item = &'static str> {
    FLAGS.into_iter().filter(|(_, bit)| message.has(*bit)).map(|(name, _)| name)
}

fn edns(message: &Message) -> Option<String> {
    let opt = message.opt.as_ref()?;
    let dnssec_ok = if message.dnssec_ok() { " DO" } else { "" };
    Some(format!("EDNS {}{dnssec_ok}", opt.size))
}

/// A reply as the lines below an EXPECT.
pub fn reply(message: &Message) -> Vec<String> {
    let rcode = name_of(&RCODES, message.rcode).map_or_else(|| message.rcode.to_string(), str::to_owned);
    let head = flags(message).fold(rcode, |head, flag| format!("{head} {flag}"));
    let mut lines = vec![head];
    lines.extend(edns(message));
    lines.extend(message.errors().iter().map(|code| format!("EDE {code}")));
    for (name, records) in SECTIONS.iter().zip([&message.answers, &message.authority, &message.additional]) {
        lines.extend(records.iter().map(|record| format!("{name} {}", print(record))));
    }
    lines
}

/// An upstream query as a line below an ASKED.
pub fn query(message: &Message) -> String {
    let question = &message.questions[0];
    let head = format!("{} {}", question.name, kind_name(question.kind));
    let rest = flags(message).map(str::to_owned).chain(edns(message));
    std::iter::once(head).chain(rest).collect::<Vec<_>>().join(" ")
}

fn print(record: &Record) -> String {
    let data = &record.data;
    let text = match (record.kind, data.len()) {
        (A, 4) => Ipv4Addr::from(<[u8; 4]>::try_from(&data[..]).expect("four octets")).to_string(),
        (AAAA, 16) => Ipv6Addr::from(<[u8; 16]>::try_from(&data[..]).expect("sixteen octets")).to_string(),
        (CNAME | NS | PTR, _) => read_name(data, 0).expect("a name").0,
        (SOA, _) => {
            let (primary, next) = read_name(data, 0).expect("a name");
            let (contact, at) = read_name(data, next).expect("a name");
            let numbers = (0..5).map(|index| u32_at(data, at + index * 4).expect("five numbers").to_string());
            [primary, contact].into_iter().chain(numbers).collect::<Vec<_>>().join(" ")
        }
        _ => format!("\\# {}", data.iter().map(|octet| format!("{octet:02x}")).collect::<String>()),
    };
    format!("{} {} {} {text}", record.name, record.ttl, kind_name(record.kind))
}

/// Owner, type, TTL and RDATA from `owner ttl type data...`.
pub fn record(words: &[&str]) -> (Vec<u8>, u16, u32, Vec<u8>) {
    let [owner, ttl, kind_word, data @ ..] = words else { panic!("a record is owner, TTL, type, data: {words:?}") };
    let kind = kind(kind_word);
    let data = match (kind, data) {
        (_, ["\\#", hex]) => {
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
        }
        (A, [address]) => address.parse::<Ipv4Addr>().expect("an address").octets().to_vec(),
        (AAAA, [address]) => address.parse::<Ipv6Addr>().expect("an address").octets().to_vec(),
        (CNAME | NS | PTR, [target]) => name(target),
        (SOA, [primary, contact, numbers @ ..]) => {
            let numbers = numbers.iter().flat_map(|number| number.parse::<u32>().expect("a number").to_be_bytes());
            name(primary).into_iter().chain(name(contact)).chain(numbers).collect()
        }
        _ => panic!("data of this type is written as \\# and hex: {words:?}"),
    };
    (name(owner), kind, ttl.parse().expect("a TTL"), data)
}
