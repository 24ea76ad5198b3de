//! Resource records as they stand in a message: where they start and end, their names written out in full.

use super::codes::{Class, Type};
use super::header::read_u16;
use super::name::{MAX_LABELS, MAX_NAME};

/// The place of one resource record in a message (RFC 1035 section 4.1.3).
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Where the owner name starts.
    pub start: usize,
    /// TYPE.
    pub rtype: Type,
    /// CLASS; the sender's UDP size in an OPT record.
    pub class: Class,
    /// TTL; the extended RCODE, version and flags in an OPT record.
    pub ttl: u32,
    /// Where the TTL stands.
    pub ttl_at: usize,
    /// Where RDATA starts.
    pub rdata: usize,
    /// Where RDATA, and so the record, ends.
    pub end: usize,
}

/// A name written out: wire form without pointers, in the spelling of the message.
#[derive(Clone, Copy)]
pub struct Expanded {
    octets: [u8; MAX_NAME],
    length: u8,
}

/// One piece of the RDATA of a type that holds names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// So many octets without a name.
    Octets(u8),
    /// A character string: one octet of length, then so many octets.
    Text,
    /// A name.
    Name,
}

impl Record {
    /// Reads the record that starts at `at`; `None` where it does not fit into the message (RFC 9267).
    pub fn read(message: &[u8], at: usize) -> Option<Record> {
        let fixed = skip_name(message, at)?;
        let rdata = fixed.checked_add(10)?;
        if message.len() < rdata {
            return None;
        }
        let end = rdata + usize::from(read_u16(message, fixed + 8));
        (end <= message.len()).then(|| Record {
            start: at,
            rtype: Type(read_u16(message, fixed)),
            class: Class(read_u16(message, fixed + 2)),
            ttl: u32::from(read_u16(message, fixed + 4)) << 16 | u32::from(read_u16(message, fixed + 6)),
            ttl_at: fixed + 4,
            rdata,
            end,
        })
    }

    /// The owner name written out.
    pub fn owner(&self, message: &[u8]) -> Option<Expanded> {
        Expanded::read(message, self.start).map(|(name, _)| name)
    }
}

impl Expanded {
    /// Writes out the name at `at`; also gives where the name ends in the message. Pointers may only go backwards, so
    /// the work is bounded by the length of a name (RFC 1035 section 4.1.4).
    pub fn read(message: &[u8], at: usize) -> Option<(Expanded, usize)> {
        let mut name = Expanded { octets: [0; MAX_NAME], length: 0 };
        let (mut at, mut floor, mut end) = (at, at, None);
        let mut jumps = 0;
        loop {
            let length = *message.get(at)?;
            match length {
                0 => {
                    name.push(&[0])?;
                    return Some((name, end.unwrap_or(at + 1)));
                }
                1..=63 => {
                    let next = at + 1 + usize::from(length);
                    name.push(message.get(at..next)?)?;
                    at = next;
                }
                0xc0.. => {
                    let low = *message.get(at + 1)?;
                    let target = usize::from(length & 0x3f) << 8 | usize::from(low);
                    end = end.or(Some(at + 2));
                    // Each jump lands before every place read so far, so there is no loop; nor a long ladder.
                    jumps += 1;
                    if target >= floor || jumps > MAX_LABELS {
                        return None;
                    }
                    at = target;
                    floor = target;
                }
                _ => return None,
            }
        }
    }

    /// The wire form.
    pub fn as_wire(&self) -> &[u8] {
        &self.octets[..usize::from(self.length)]
    }

    /// Whether the two are the same name in any case (RFC 4343).
    pub fn is(&self, wire: &[u8]) -> bool {
        self.as_wire().eq_ignore_ascii_case(wire)
    }

    fn push(&mut self, octets: &[u8]) -> Option<()> {
        let from = usize::from(self.length);
        let to = from + octets.len();
        self.octets.get_mut(from..to)?.copy_from_slice(octets);
        self.length = to as u8;
        Some(())
    }
}

/// Where the name at `at` ends, without following pointers.
pub fn skip_name(message: &[u8], at: usize) -> Option<usize> {
    let mut here = at;
    loop {
        match *message.get(here)? {
            0 => return Some(here + 1),
            length @ 1..=63 => here += usize::from(length) + 1,
            0xc0.. => return (here + 2 <= message.len()).then_some(here + 2),
            _ => return None,
        }
        if here - at > MAX_NAME {
            return None;
        }
    }
}

/// The pieces of a type's RDATA up to its last name; empty where the type holds none. What follows is octets.
pub fn fields(rtype: Type) -> &'static [Field] {
    use Field::{Name, Octets, Text};
    match rtype {
        Type::NS | Type::MD | Type::MF | Type::CNAME | Type::MB | Type::MG | Type::MR | Type::PTR | Type::DNAME => {
            &[Name]
        }
        Type::SOA | Type::MINFO | Type::RP => &[Name, Name],
        Type::MX | Type::AFSDB | Type::RT | Type::KX => &[Octets(2), Name],
        Type::PX => &[Octets(2), Name, Name],
        Type::SRV => &[Octets(6), Name],
        Type::NAPTR => &[Octets(4), Text, Text, Text, Name],
        Type::NXT | Type::NSEC => &[Name],
        Type::SIG | Type::RRSIG => &[Octets(18), Name],
        Type::SVCB | Type::HTTPS => &[Octets(2), Name],
        _ => &[],
    }
}

/// Whether names in this type's RDATA may have arrived compressed (RFC 3597 section 4); in the newer types they must not
/// have (RFC 4034 sections 3.1.7 and 4.1.1, RFC 9460 section 2.2), so their RDATA is octets to us.
pub fn may_arrive_compressed(rtype: Type) -> bool {
    !matches!(rtype, Type::RRSIG | Type::NSEC | Type::SVCB | Type::HTTPS)
}

/// Whether names in this type's RDATA may be sent compressed: those of RFC 1035 alone (RFC 3597 section 4).
pub fn may_compress(rtype: Type) -> bool {
    matches!(
        rtype,
        Type::NS
            | Type::MD
            | Type::MF
            | Type::CNAME
            | Type::SOA
            | Type::MB
            | Type::MG
            | Type::MR
            | Type::PTR
            | Type::MINFO
            | Type::MX
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_go_backwards_only() {
        // At 0: "a.", at 3: "b" then a pointer to 0, at 7: a pointer to itself, at 9: forward to 11.
        let message = b"\x01a\x00\x01b\xc0\x00\xc0\x07\xc0\x0b\x00";
        let (name, end) = Expanded::read(message, 3).unwrap();
        assert_eq!(name.as_wire(), b"\x01b\x01a\x00");
        assert_eq!(end, 7);
        assert!(Expanded::read(message, 7).is_none());
        assert!(Expanded::read(message, 9).is_none());
    }

    #[test]
    fn a_name_over_255_octets_is_refused_however_it_is_made() {
        let mut message = Vec::new();
        for _ in 0..4 {
            message.push(63);
            message.extend([b'x'; 63]);
        }
        message.push(0);
        assert!(Expanded::read(&message, 0).is_none());
        assert!(Expanded::read(&message, 64).is_some());
    }

    #[test]
    fn a_record_must_fit() {
        let whole = b"\x00\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\x01\x02\x03\x04";
        let record = Record::read(whole, 0).unwrap();
        assert_eq!((record.rtype, record.ttl, record.end), (Type::A, 5, 15));
        assert!((0..whole.len()).all(|cut| Record::read(&whole[..cut], 0).is_none()));
    }
}
