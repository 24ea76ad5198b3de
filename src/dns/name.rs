//! Domain names in wire form.

use std::fmt;

/// The most octets a name may have on the wire, the root's zero octet included (RFC 1035 section 2.3.4).
pub const MAX_NAME: usize = 255;

/// The most labels a name of 255 octets can have, the root not counted.
pub const MAX_LABELS: usize = 127;

/// A domain name: canonical (lower-case), uncompressed wire form, ending in the root's zero octet.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

/// Why a text is not a domain name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// Two dots in a row, or a leading dot.
    EmptyLabel,
    /// A label of more than 63 octets.
    LabelTooLong,
    /// More than 255 octets in all.
    NameTooLong,
    /// A backslash that is not followed by a character or by three digits up to 255.
    BadEscape,
}

impl Name {
    /// The root, `.`.
    pub fn root() -> Name {
        Name(Box::new([0]))
    }

    /// Reads presentation form (RFC 1035 section 5.1: `\.` and `\DDD` are escapes), with or without the final dot.
    pub fn parse(text: &str) -> Result<Name, NameError> {
        if text.is_empty() || text == "." {
            return Ok(Name::root());
        }
        let mut wire = Vec::with_capacity(text.len() + 2);
        let mut bytes = text.bytes();
        loop {
            let (label, more) = read_label(&mut bytes)?;
            match label.len() {
                0 => return Err(NameError::EmptyLabel),
                64.. => return Err(NameError::LabelTooLong),
                length => wire.push(length as u8),
            }
            wire.extend(label);
            if !more || bytes.len() == 0 {
                break;
            }
        }
        wire.push(0);
        Name::from_wire(&wire).ok_or(NameError::NameTooLong)
    }

    /// Takes an uncompressed name as it stands on the wire; `None` where it is not exactly one whole name.
    pub fn from_wire(wire: &[u8]) -> Option<Name> {
        let mut at = 0;
        loop {
            match *wire.get(at)? {
                0 => break,
                length @ 1..=63 => at += usize::from(length) + 1,
                _ => return None,
            }
        }
        (at + 1 == wire.len() && wire.len() <= MAX_NAME).then(|| Name(wire.to_ascii_lowercase().into()))
    }

    /// The wire form, lower-case, with the root's zero octet.
    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }

    /// How many labels there are, the root not counted.
    pub fn label_count(&self) -> usize {
        labels(&self.0).count()
    }

    /// Whether this name is `zone` or lies beneath it.
    pub fn is_under(&self, zone: &Name) -> bool {
        is_under(&self.0, zone.as_wire())
    }
}

/// Whether `name` is `zone` or lies beneath it; both canonical wire forms.
pub fn is_under(name: &[u8], zone: &[u8]) -> bool {
    let Some(mut rest) = name.len().checked_sub(zone.len()) else { return false };
    if &name[rest..] != zone {
        return false;
    }
    // The tail may only begin where a label begins.
    let mut at = 0;
    while rest > 0 {
        let step = usize::from(name[at]) + 1;
        let Some(left) = rest.checked_sub(step) else { return false };
        rest = left;
        at += step;
    }
    true
}

/// The labels of an uncompressed wire name, first to last, without the root.
pub fn labels(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = wire;
    std::iter::from_fn(move || {
        let (&length, tail) = rest.split_first()?;
        if length == 0 {
            return None;
        }
        let (label, tail) = tail.split_at_checked(usize::from(length))?;
        rest = tail;
        Some(label)
    })
}

/// Writes an uncompressed wire name in presentation form, with the final dot.
pub fn write_presentation(wire: &[u8], out: &mut impl fmt::Write) -> fmt::Result {
    let mut any = false;
    for label in labels(wire) {
        any = true;
        for &octet in label {
            match octet {
                b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$' => write!(out, "\\{}", char::from(octet))?,
                b'!'..=b'~' => out.write_char(char::from(octet))?,
                _ => write!(out, "\\{octet:03}")?,
            }
        }
        out.write_char('.')?;
    }
    if any { Ok(()) } else { out.write_char('.') }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_presentation(&self.0, f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_presentation(&self.0, f)
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NameError::EmptyLabel => "a label is empty (two dots in a row)",
            NameError::LabelTooLong => "a label is longer than 63 octets",
            NameError::NameTooLong => "the name is longer than 255 octets",
            NameError::BadEscape => "a backslash needs a character or three digits after it",
        })
    }
}

impl std::error::Error for NameError {}

/// Reads up to the next unescaped dot; also tells whether a dot ended the label.
fn read_label(bytes: &mut std::str::Bytes<'_>) -> Result<(Vec<u8>, bool), NameError> {
    let mut label = Vec::new();
    while let Some(octet) = bytes.next() {
        match octet {
            b'.' => return Ok((label, true)),
            b'\\' => label.push(read_escape(bytes)?),
            _ => label.push(octet),
        }
    }
    Ok((label, false))
}

fn read_escape(bytes: &mut std::str::Bytes<'_>) -> Result<u8, NameError> {
    let first = bytes.next().ok_or(NameError::BadEscape)?;
    if !first.is_ascii_digit() {
        return Ok(first);
    }
    let mut value = u32::from(first - b'0');
    for _ in 0..2 {
        let digit = bytes.next().filter(u8::is_ascii_digit).ok_or(NameError::BadEscape)?;
        value = value * 10 + u32::from(digit - b'0');
    }
    u8::try_from(value).map_err(|_| NameError::BadEscape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presentation_goes_both_ways() {
        for (text, shown) in [
            ("", "."),
            (".", "."),
            ("Example.ORG", "example.org."),
            ("a\\.b.c.", "a\\.b.c."),
            ("a\\000b.", "a\\000b."),
            ("_http._tcp.x", "_http._tcp.x."),
        ] {
            assert_eq!(Name::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn limits_are_those_of_rfc_1035() {
        assert_eq!(Name::parse("a..b"), Err(NameError::EmptyLabel));
        assert_eq!(Name::parse(".a"), Err(NameError::EmptyLabel));
        assert!(Name::parse(&"a".repeat(63)).is_ok());
        assert_eq!(Name::parse(&"a".repeat(64)), Err(NameError::LabelTooLong));
        let labels_127 = ["a"; 127].join(".");
        assert_eq!(Name::parse(&labels_127).unwrap().label_count(), 127);
        assert_eq!(Name::parse(&format!("{labels_127}.a")), Err(NameError::NameTooLong));
        assert_eq!(Name::parse("a\\25"), Err(NameError::BadEscape));
        assert_eq!(Name::parse("a\\256"), Err(NameError::BadEscape));
    }

    #[test]
    fn under_means_on_a_label_boundary() {
        let zone = Name::parse("cluster.local").unwrap();
        assert!(Name::parse("a.Cluster.local").unwrap().is_under(&zone));
        assert!(zone.is_under(&zone));
        assert!(zone.is_under(&Name::root()));
        assert!(!Name::parse("xcluster.local").unwrap().is_under(&zone));
        assert!(!Name::parse("local").unwrap().is_under(&zone));
        // A label whose text looks like the zone's wire form is not the zone.
        let trick = Name::parse("x\\007cluster\\005local").unwrap();
        assert!(!trick.is_under(&zone));
    }
}
