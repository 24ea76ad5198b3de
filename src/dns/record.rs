//! Resource records as they stand in a message: where they start and end, their names written out in full.

use super::codes::{Class, Type};
use super::header::{self, Count, read_u16};
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

    /// Whether the owner can be read, and RDATA is what its type says where that type is an address or holds names.
    /// RDATA of other types is octets.
    fn is_readable(&self, message: &[u8]) -> bool {
        let length = self.end - self.rdata;
        let fits = match self.rtype {
            Type::A if self.class == Class::IN => length == 4,
            Type::AAAA if self.class == Class::IN => length == 16,
            rtype if !may_arrive_compressed(rtype) || fields(rtype).is_empty() => true,
            rtype => self.names_end(message).is_some_and(|at| match rtype {
                // SERIAL, REFRESH, RETRY, EXPIRE, MINIMUM.
                Type::SOA => at + 20 == self.end,
                Type::SIG | Type::NXT => at <= self.end,
                _ => at == self.end,
            }),
        };
        fits && self.owner(message).is_some()
    }

    /// Where the last name of RDATA ends, which may be beyond the end of the record.
    fn names_end(&self, message: &[u8]) -> Option<usize> {
        fields(self.rtype).iter().try_fold(self.rdata, |at, field| match field {
            Field::Octets(count) => Some(at + usize::from(*count)),
            Field::Text => message.get(at).map(|length| at + 1 + usize::from(*length)),
            Field::Name => Expanded::read(message, at).map(|(_, end)| end),
        })
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

/// Whether every record that the header counts is there and can be read: its owner, its length, and the names in its
/// RDATA (RFC 9267). Octets after the last one are let pass, as other resolvers do. `question_end` is where the first
/// record starts.
pub fn well_formed(message: &[u8], question_end: usize) -> bool {
    let counts = [Count::Answer, Count::Authority, Count::Additional].map(|section| header::count(message, section));
    let mut at = question_end;
    (0..counts.into_iter().map(u32::from).sum()).all(|_| {
        let record = Record::read(message, at).filter(|record| record.is_readable(message));
        record.inspect(|record| at = record.end).is_some()
    })
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

    /// A response without question and with one record of the root.
    fn holding(rtype: Type, class: Class, rdata: &[u8]) -> Vec<u8> {
        let mut message = vec![0; header::LENGTH];
        header::set_count(&mut message, Count::Answer, 1);
        message.push(0);
        message.extend(rtype.0.to_be_bytes());
        message.extend(class.0.to_be_bytes());
        message.extend([0, 0, 0, 60]);
        message.extend((rdata.len() as u16).to_be_bytes());
        message.extend(rdata);
        message
    }

    #[test]
    fn rdata_of_known_types_has_to_be_readable() {
        let soa = [&b"\x01a\x00\xc0\x0c"[..], &[0; 20]].concat();
        let whole: [(Type, &[u8]); 9] = [
            (Type::A, b"abcd"),
            (Type::AAAA, b"0123456789abcdef"),
            (Type::CNAME, b"\x01a\x00"),
            (Type::NS, b"\xc0\x0c"),
            (Type::SOA, &soa),
            (Type::MX, b"\x00\x0a\x01a\x00"),
            (Type::SRV, b"\x00\x00\x00\x00\x00\x35\x01a\xc0\x0c"),
            (Type::NAPTR, b"\x00\x01\x00\x02\x01s\x00\x00\x01a\x00"),
            (Type::RP, b"\x01a\x00\x00"),
        ];
        for (rtype, rdata) in whole {
            assert!(well_formed(&holding(rtype, Class::IN, rdata), header::LENGTH), "{rtype}");
            for cut in 0..rdata.len() {
                let message = holding(rtype, Class::IN, &rdata[..cut]);
                assert!(!well_formed(&message, header::LENGTH), "{rtype} cut to {cut}");
            }
            let longer = [rdata, &[0]].concat();
            assert!(!well_formed(&holding(rtype, Class::IN, &longer), header::LENGTH), "{rtype} with an octet more");
        }
        for rdata in [&b"\xc0\x17"[..], b"\xc0\xff", b"\x40a\x00", b"\x3fa"] {
            assert!(!well_formed(&holding(Type::CNAME, Class::IN, rdata), header::LENGTH), "{rdata:?}");
        }
    }

    #[test]
    fn what_a_type_does_not_define_is_octets() {
        for (rtype, class) in [
            (Type(65280), Class::IN),
            (Type::TXT, Class::IN),
            (Type::A, Class::CH),
            (Type::SVCB, Class::IN),
            (Type::NSEC, Class::IN),
        ] {
            for rdata in [&b""[..], b"\xc0\xff\x3f\x01X"] {
                assert!(well_formed(&holding(rtype, class, rdata), header::LENGTH), "{rtype} {class} {rdata:?}");
            }
        }
    }

    #[test]
    fn counts_have_to_be_true() {
        let mut message = holding(Type::A, Class::IN, b"abcd");
        for section in [Count::Answer, Count::Authority, Count::Additional] {
            let right = header::count(&message, section);
            for more in [right + 1, u16::MAX] {
                header::set_count(&mut message, section, more);
                assert!(!well_formed(&message, header::LENGTH), "{section:?} {more}");
            }
            header::set_count(&mut message, section, right);
        }
        message.extend(b"tail");
        assert!(well_formed(&message, header::LENGTH));
    }
}
