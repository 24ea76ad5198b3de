//! Numbers and names on the wire, written and read without the product's own code, so that a mistake there cannot
//! hide itself here.

pub const A: u16 = 1;
pub const NS: u16 = 2;
pub const CNAME: u16 = 5;
pub const SOA: u16 = 6;
pub const PTR: u16 = 12;
pub const MX: u16 = 15;
pub const TXT: u16 = 16;
pub const AAAA: u16 = 28;
pub const OPT: u16 = 41;
pub const DS: u16 = 43;
pub const RRSIG: u16 = 46;
pub const NSEC: u16 = 47;
pub const IXFR: u16 = 251;
pub const AXFR: u16 = 252;
pub const ANY: u16 = 255;
pub const TSIG: u16 = 250;
/// A type of the private range (RFC 6895 section 3.1).
pub const PRIVATE: u16 = 65280;

pub const IN: u16 = 1;
pub const CH: u16 = 3;

pub const NOERROR: u16 = 0;
pub const FORMERR: u16 = 1;
pub const SERVFAIL: u16 = 2;
pub const NXDOMAIN: u16 = 3;
pub const NOTIMP: u16 = 4;
pub const REFUSED: u16 = 5;
pub const BADVERS: u16 = 16;

pub const QR: u16 = 0x8000;
pub const AA: u16 = 0x0400;
pub const TC: u16 = 0x0200;
pub const RD: u16 = 0x0100;
pub const RA: u16 = 0x0080;
pub const Z: u16 = 0x0040;
pub const AD: u16 = 0x0020;
pub const CD: u16 = 0x0010;

/// EDNS option codes (IANA registry).
pub const NSID: u16 = 3;
pub const ECS: u16 = 8;
pub const EXPIRE: u16 = 9;
pub const COOKIE: u16 = 10;
pub const KEEPALIVE: u16 = 11;
pub const PADDING: u16 = 12;
pub const EDE: u16 = 15;

/// The wire form of a name given as text; `\.` and `\DDD` are understood, the final dot may be left out.
pub fn name(text: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut label = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'.' => push_label(&mut wire, &mut label),
            b'\\' => {
                let next = bytes.next().expect("something after a backslash");
                if next.is_ascii_digit() {
                    let rest = [next, bytes.next().expect("a digit"), bytes.next().expect("a digit")];
                    let value = rest.iter().fold(0u16, |sum, digit| sum * 10 + u16::from(digit - b'0'));
                    label.push(u8::try_from(value).expect("an octet"));
                } else {
                    label.push(next);
                }
            }
            other => label.push(other),
        }
    }
    push_label(&mut wire, &mut label);
    wire.push(0);
    wire
}

fn push_label(wire: &mut Vec<u8>, label: &mut Vec<u8>) {
    if !label.is_empty() {
        wire.push(u8::try_from(label.len()).expect("a label of at most 255 octets"));
        wire.append(label);
    }
}

/// Reads a name at `at`: its text with a final dot and the offset behind it. Pointers may only lead backwards.
pub fn read_name(message: &[u8], at: usize) -> Option<(String, usize)> {
    let (mut text, mut position, mut end) = (String::new(), at, None);
    loop {
        let length = usize::from(*message.get(position)?);
        match length {
            0 => {
                let text = if text.is_empty() { ".".to_owned() } else { text };
                return Some((text, end.unwrap_or(position + 1)));
            }
            1..=63 => {
                for &byte in message.get(position + 1..position + 1 + length)? {
                    match byte {
                        b'.' | b'\\' => text.extend(['\\', char::from(byte)]),
                        0x21..=0x7e => text.push(char::from(byte)),
                        _ => text.push_str(&format!("\\{byte:03}")),
                    }
                }
                text.push('.');
                position += 1 + length;
            }
            0xc0.. => {
                let target = (length & 0x3f) << 8 | usize::from(*message.get(position + 1)?);
                end = end.or(Some(position + 2));
                if target >= position {
                    return None;
                }
                position = target;
            }
            _ => return None,
        }
    }
}

/// A 16-bit number at `at`.
pub fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?))
}

/// A 32-bit number at `at`.
pub fn u32_at(message: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(message.get(at..at + 4)?.try_into().ok()?))
}

/// One resource record with its owner uncompressed.
pub fn record(owner: &[u8], kind: u16, class: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut wire = owner.to_vec();
    wire.extend(kind.to_be_bytes());
    wire.extend(class.to_be_bytes());
    wire.extend(ttl.to_be_bytes());
    wire.extend(u16::try_from(data.len()).expect("RDATA of at most 65535 octets").to_be_bytes());
    wire.extend(data);
    wire
}

/// RDATA of an SOA record with the given MINIMUM.
pub fn soa(minimum: u32) -> Vec<u8> {
    let mut data = name("ns.test.");
    data.extend(name("host.test."));
    for number in [1, 3600, 600, 86400, minimum] {
        data.extend(number.to_be_bytes());
    }
    data
}

/// An EDNS option.
pub fn option(code: u16, data: &[u8]) -> Vec<u8> {
    let mut wire = code.to_be_bytes().to_vec();
    wire.extend(u16::try_from(data.len()).expect("a short option").to_be_bytes());
    wire.extend(data);
    wire
}
