//! EDNS: the OPT record of a query read, that of a reply written (RFC 6891, RFC 8914).

use super::codes::{Ede, Rcode, Type};
use super::header::read_u16;
use super::record::Record;

/// The UDP size that we name as our own, and the most that we send over UDP (RFC 9715 section 3).
pub const OWN_SIZE: u16 = 1232;

/// The size of an OPT record without options.
pub const EMPTY_OPT: usize = 11;

/// The size of our OPT with one explained error, as large as it can be.
pub const LARGEST_OPT: usize = EMPTY_OPT + 6 + MAX_EXTRA_TEXT;

/// The option code of extended errors.
pub const OPTION_EDE: u16 = 15;

/// The longest explanation that is passed on with an extended error, in octets.
const MAX_EXTRA_TEXT: usize = 120;

/// What the client's OPT says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// The UDP size it can take, as sent.
    pub size: u16,
    /// VERSION.
    pub version: u8,
    /// DO.
    pub dnssec_ok: bool,
}

/// An extended error with its words, to be put into a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explained<'a> {
    /// INFO-CODE.
    pub code: Ede,
    /// EXTRA-TEXT, for people.
    pub text: &'a str,
}

impl Edns {
    /// Reads an OPT record. `None` where an option does not fit into its RDATA (FORMERR with OPT, RFC 6891 section 7).
    pub fn read(message: &[u8], record: &Record) -> Option<Edns> {
        debug_assert_eq!(record.rtype, Type::OPT);
        let version = (record.ttl >> 16) as u8;
        if version == 0 {
            // What options of a later version look like is not known here (RFC 6891 section 6.1.3).
            options(&message[record.rdata..record.end]).try_for_each(|option| option.map(drop))?;
        }
        Some(Edns { size: record.class.0, version, dnssec_ok: record.ttl & 0x8000 != 0 })
    }

    /// Appends an OPT record that says the same, without options.
    pub fn write_bare(&self, message: &mut Vec<u8>) {
        message.extend([0, 0, Type::OPT.0 as u8]);
        message.extend(self.size.to_be_bytes());
        message.extend([0, self.version, if self.dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
    }
}

/// The options of an OPT's RDATA: code and value. A `None` item says that the rest is malformed.
pub fn options(rdata: &[u8]) -> impl Iterator<Item = Option<(u16, &[u8])>> {
    let mut rest = rdata;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let parsed = rest.split_at_checked(4).and_then(|(head, tail)| {
            let (value, tail) = tail.split_at_checked(usize::from(read_u16(head, 2)))?;
            Some(((read_u16(head, 0), value), tail))
        });
        match parsed {
            Some((option, tail)) => {
                rest = tail;
                Some(Some(option))
            }
            None => {
                rest = &[];
                Some(None)
            }
        }
    })
}

/// Writes our OPT at the head of `out` and gives its length. `errors` are whole EDE options in wire form, `explained`
/// one more; both are left out where they would not fit into `out` (RFC 8914 section 3).
pub fn write_opt(
    out: &mut [u8],
    rcode: Rcode,
    dnssec_ok: bool,
    errors: &[u8],
    explained: Option<Explained<'_>>,
) -> usize {
    out[..EMPTY_OPT].copy_from_slice(&[
        0,
        0,
        Type::OPT.0 as u8,
        (OWN_SIZE >> 8) as u8,
        OWN_SIZE as u8,
        (rcode.0 >> 4) as u8,
        0,
        if dnssec_ok { 0x80 } else { 0 },
        0,
        0,
        0,
    ]);
    let mut at = EMPTY_OPT;
    if let Some(Explained { code, text }) = explained {
        let text = cut(text.as_bytes());
        if at + 6 + text.len() <= out.len() {
            at += write_ede(&mut out[at..], code, text);
        }
    }
    if at + errors.len() <= out.len() {
        out[at..at + errors.len()].copy_from_slice(errors);
        at += errors.len();
    }
    let length = at - EMPTY_OPT;
    out[9] = (length >> 8) as u8;
    out[10] = length as u8;
    at
}

/// The EDE options of an upstream's OPT in wire form, explanations cut to a bearable length, at most four of them.
pub fn keep_errors(rdata: &[u8]) -> Vec<u8> {
    let mut kept = Vec::new();
    let errors =
        options(rdata).map_while(|option| option).filter(|&(code, value)| code == OPTION_EDE && value.len() >= 2);
    for (_, value) in errors.take(4) {
        let text = cut(&value[2..]);
        kept.extend(OPTION_EDE.to_be_bytes());
        kept.extend((2 + text.len() as u16).to_be_bytes());
        kept.extend(&value[..2]);
        kept.extend(text);
    }
    kept
}

/// An EDE option without text, in wire form.
pub fn error_option(code: Ede) -> Vec<u8> {
    [OPTION_EDE.to_be_bytes(), 2_u16.to_be_bytes(), code.0.to_be_bytes()].concat()
}

fn write_ede(out: &mut [u8], code: Ede, text: &[u8]) -> usize {
    out[0..2].copy_from_slice(&OPTION_EDE.to_be_bytes());
    out[2..4].copy_from_slice(&(2 + text.len() as u16).to_be_bytes());
    out[4..6].copy_from_slice(&code.0.to_be_bytes());
    out[6..6 + text.len()].copy_from_slice(text);
    6 + text.len()
}

/// Cuts an explanation without leaving half a UTF-8 character.
fn cut(text: &[u8]) -> &[u8] {
    if text.len() <= MAX_EXTRA_TEXT {
        return text;
    }
    let mut end = MAX_EXTRA_TEXT;
    while end > 0 && text[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_options_are_seen() {
        assert_eq!(options(b"\x00\x0a\x00\x02hi").collect::<Vec<_>>(), [Some((10, &b"hi"[..]))]);
        assert_eq!(options(b"\x00\x0a\x00\x03hi").collect::<Vec<_>>(), [None]);
        assert_eq!(options(b"\x00").collect::<Vec<_>>(), [None]);
    }

    #[test]
    fn a_bare_opt_is_read_as_it_was_written() {
        let edns = Edns { size: 4096, version: 1, dnssec_ok: true };
        let mut wire = Vec::new();
        edns.write_bare(&mut wire);
        assert_eq!(Edns::read(&wire, &Record::read(&wire, 0).unwrap()), Some(edns));
    }

    #[test]
    fn an_error_is_left_out_before_it_overflows() {
        let explained = Some(Explained { code: Ede::NETWORK_ERROR, text: "why" });
        let mut wide = [0; 64];
        assert_eq!(write_opt(&mut wide, Rcode::SERVFAIL, true, &[], explained), EMPTY_OPT + 9);
        let mut narrow = [0; EMPTY_OPT + 8];
        assert_eq!(write_opt(&mut narrow, Rcode::SERVFAIL, true, &[], explained), EMPTY_OPT);
        assert_eq!(narrow[9..11], [0, 0]);
    }
}
