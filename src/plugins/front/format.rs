//! The format of a log line: compiled once, written per query.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::dns::name::write_presentation;
use crate::dns::{Class, Protocol, Rcode, Type};

/// A format, cut into text and placeholders once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format(Vec<Piece>);

/// What is known about one query and its reply.
#[derive(Clone, Debug)]
pub struct LogFacts<'a> {
    /// The name asked for: wire form, lower-case.
    pub name: &'a [u8],
    /// The type asked for.
    pub qtype: Type,
    /// The class asked for.
    pub qclass: Class,
    /// How the query came.
    pub protocol: Protocol,
    /// Its size in octets.
    pub size: usize,
    /// Who asked.
    pub remote: SocketAddr,
    /// Which of our addresses was asked.
    pub local: IpAddr,
    /// The ID.
    pub id: u16,
    /// The opcode.
    pub opcode: u8,
    /// The DO bit.
    pub dnssec_ok: bool,
    /// The UDP size the client can take; 512 without EDNS, 65535 over TCP.
    pub bufsize: u16,
    /// The reply's RCODE.
    pub rcode: Rcode,
    /// The reply's two octets of flags as on the wire.
    pub flags: u16,
    /// The reply's size in octets.
    pub reply_size: usize,
    /// What kind of reply it was.
    pub class: ReplyClass,
    /// From the query's arrival to the reply.
    pub duration: Duration,
}

/// What kind of reply it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyClass {
    /// NOERROR with answers, or a delegation.
    Success,
    /// NXDOMAIN or NODATA, with SOA.
    Denial,
    /// Everything else.
    Error,
}

/// `{common}` and, without its tail, `{combined}`.
const COMMON: &str = "{remote}:{port} - {>id} \"{type} {class} {name} {proto} {size} {>do} {>bufsize}\" \
                      {rcode} {>rflags} {rsize} {duration}";

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field(Field),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Type,
    Name,
    Class,
    Protocol,
    Size,
    Remote,
    Port,
    Local,
    Id,
    Opcode,
    DnssecOk,
    Bufsize,
    Rcode,
    ReplySize,
    Duration,
    Flags,
    ReplyClass,
    /// A fact that is not gathered here.
    Absent,
}

const FIELDS: [(&str, Field); 17] = [
    ("{type}", Field::Type),
    ("{name}", Field::Name),
    ("{class}", Field::Class),
    ("{proto}", Field::Protocol),
    ("{size}", Field::Size),
    ("{remote}", Field::Remote),
    ("{port}", Field::Port),
    ("{local}", Field::Local),
    ("{>id}", Field::Id),
    ("{>opcode}", Field::Opcode),
    ("{>do}", Field::DnssecOk),
    ("{>bufsize}", Field::Bufsize),
    ("{rcode}", Field::Rcode),
    ("{rsize}", Field::ReplySize),
    ("{duration}", Field::Duration),
    ("{>rflags}", Field::Flags),
    ("{/log/class}", Field::ReplyClass),
];

impl Default for Format {
    fn default() -> Format {
        Format::compile("{common}")
    }
}

impl Format {
    /// Cuts a format up. Unknown placeholders stay as they are; metadata (`{/...}`) prints `-`.
    pub fn compile(text: &str) -> Format {
        let text = text.replace("{combined}", "{common} \"{>opcode}\"").replace("{common}", COMMON);
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text.as_str();
        // The innermost braces count: the last `{` before the first `}`.
        while let Some(close) = rest.find('}') {
            let (head, tail) = rest.split_at(close + 1);
            rest = tail;
            let open = head.rfind('{').unwrap_or(close);
            let word = &head[open..];
            let known = FIELDS.iter().find(|(name, _)| *name == word).map(|(_, field)| *field);
            let field = known.or_else(|| word.starts_with("{/").then_some(Field::Absent));
            literal.push_str(if field.is_some() { &head[..open] } else { head });
            if let Some(field) = field {
                if !literal.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut literal)));
                }
                pieces.push(Piece::Field(field));
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal));
        }
        Format(pieces)
    }

    /// Appends the line for one query, without a line break.
    pub fn write(&self, out: &mut String, facts: &LogFacts<'_>) {
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.push_str(text),
                // Writing to a string does not fail.
                Piece::Field(field) => _ = write_field(*field, out, facts),
            }
        }
    }
}

fn write_field(field: Field, out: &mut String, facts: &LogFacts<'_>) -> std::fmt::Result {
    match field {
        Field::Type => write!(out, "{}", facts.qtype),
        Field::Name => write_presentation(facts.name, out),
        Field::Class => write!(out, "{}", facts.qclass),
        Field::Protocol => out.write_str(if facts.protocol == Protocol::Udp { "udp" } else { "tcp" }),
        Field::Size => write!(out, "{}", facts.size),
        Field::Remote => write_ip(out, facts.remote.ip()),
        Field::Port => write!(out, "{}", facts.remote.port()),
        Field::Local => write_ip(out, facts.local),
        Field::Id => write!(out, "{}", facts.id),
        Field::Opcode => write!(out, "{}", facts.opcode),
        Field::DnssecOk => write!(out, "{}", facts.dnssec_ok),
        Field::Bufsize => write!(out, "{}", facts.bufsize),
        Field::Rcode => write!(out, "{}", facts.rcode),
        Field::ReplySize => write!(out, "{}", facts.reply_size),
        Field::Duration => write!(out, "{}s", facts.duration.as_secs_f64()),
        Field::Flags => write_flags(out, facts.flags),
        Field::ReplyClass => out.write_str(match facts.class {
            ReplyClass::Success => "success",
            ReplyClass::Denial => "denial",
            ReplyClass::Error => "error",
        }),
        Field::Absent => out.write_char('-'),
    }
}

fn write_ip(out: &mut String, address: IpAddr) -> std::fmt::Result {
    match address.to_canonical() {
        IpAddr::V4(v4) => write!(out, "{v4}"),
        IpAddr::V6(v6) => write!(out, "[{v6}]"),
    }
}

fn write_flags(out: &mut String, flags: u16) -> std::fmt::Result {
    const NAMES: [(u16, &str); 8] = [
        (0x8000, "qr"),
        (0x0400, "aa"),
        (0x0200, "tc"),
        (0x0100, "rd"),
        (0x0080, "ra"),
        (0x0040, "z"),
        (0x0020, "ad"),
        (0x0010, "cd"),
    ];
    let mut separator = "";
    for (_, name) in NAMES.iter().filter(|(bit, _)| flags & bit != 0) {
        write!(out, "{separator}{name}")?;
        separator = ",";
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> LogFacts<'static> {
        LogFacts {
            name: b"\x01a\x07example\x03org\x00",
            qtype: Type::A,
            qclass: Class::IN,
            protocol: Protocol::Udp,
            size: 58,
            remote: "10.0.0.9:44373".parse().unwrap(),
            local: "fd00::1".parse().unwrap(),
            id: 5921,
            opcode: 0,
            dnssec_ok: false,
            bufsize: 1232,
            rcode: Rcode::NOERROR,
            flags: 0x8580,
            reply_size: 101,
            class: ReplyClass::Success,
            duration: Duration::from_nanos(153_271),
        }
    }

    fn line(format: &str) -> String {
        let mut out = String::new();
        Format::compile(format).write(&mut out, &facts());
        out
    }

    #[test]
    fn the_default_line() {
        let mut out = String::new();
        Format::default().write(&mut out, &facts());
        assert_eq!(
            out,
            "10.0.0.9:44373 - 5921 \"A IN a.example.org. udp 58 false 1232\" NOERROR qr,aa,rd,ra 101 0.000153271s"
        );
        assert_eq!(line("{combined}"), out + " \"0\"");
    }

    #[test]
    fn placeholders() {
        for (format, expected) in [
            ("", ""),
            ("{type}{nope} {", "A{nope} {"),
            ("a}b{ {name}}", "a}b{ a.example.org.}"),
            ("{local} {/forward/upstream} {/log/class}", "[fd00::1] - success"),
            ("{>opcode} {proto} {rsize}", "0 udp 101"),
        ] {
            assert_eq!(line(format), expected, "{format:?}");
        }
    }
}
