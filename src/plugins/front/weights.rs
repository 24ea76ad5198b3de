//! The file of `loadbalance weighted`: text in, the weight of each address under each name out, or the line that is wrong.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use crate::dns::{MAX_NAME, Name};

/// How often each address of a name comes first, relative to the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weights(HashMap<Box<[u8]>, Domain>);

/// The weights of the addresses of one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Domain(BTreeMap<IpAddr, u8>);

impl Weights {
    /// Reads lines: a name alone, then `ADDRESS WEIGHT` for each of its addresses; empty lines and lines that start with
    /// `#` say nothing. A name may come again, and the first weight of an address counts. The error is the number of the
    /// line, from 1, and what is wrong with it.
    pub fn parse(text: &str) -> Result<Weights, (usize, String)> {
        let mut weights = Weights::default();
        let mut domain = None;
        for (line, number) in text.lines().zip(1..) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let fault = |reason: String| Err((number, reason));
            match words[..] {
                [] => {}
                [first, ..] if first.starts_with('#') => {}
                [address] if address.parse::<IpAddr>().is_ok() => {
                    return fault(format!("`{address}` has no weight; write `{address} WEIGHT`"));
                }
                [name] => match Name::parse(name) {
                    Ok(name) => domain = Some(weights.0.entry(name.as_wire().into()).or_default()),
                    Err(error) => return fault(format!("`{name}` is not a name: {error}")),
                },
                [address, weight] => {
                    let Ok(ip) = address.parse::<IpAddr>() else {
                        return fault(format!("`{address}` is not an IP address"));
                    };
                    let Some(weight) = weight.parse().ok().filter(|weight| *weight > 0) else {
                        return fault(format!("`{weight}` is not a weight; write a number from 1 to 255"));
                    };
                    let Some(Domain(addresses)) = &mut domain else {
                        return fault(format!("`{address}` belongs to no name; write the name on a line above it"));
                    };
                    addresses.entry(ip.to_canonical()).or_insert(weight);
                }
                _ => return fault("a line is a name, or an address and its weight".to_owned()),
            }
        }
        Ok(weights)
    }

    /// What the file says of a name: uncompressed wire form in any spelling. `None`: nothing.
    pub fn domain(&self, name: &[u8]) -> Option<&Domain> {
        let mut lower = [0; MAX_NAME];
        let lower = lower.get_mut(..name.len())?;
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        self.0.get(&*lower)
    }
}

impl Domain {
    /// The weight of an address, 1 where the file does not say.
    pub fn weight(&self, address: IpAddr) -> u8 {
        self.0.get(&address.to_canonical()).copied().unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_addresses_with_weights() {
        let text = "# all of them\n\nWWW.Example.org\n  192.0.2.1\t3 \r\n2001:db8::1 255\n# none\nexample.net.\n\
                    192.0.2.1 7\nwww.example.org.\n192.0.2.2 4\n192.0.2.1 9\n";
        let weights = Weights::parse(text).unwrap();
        for (name, address, weight) in [
            (&b"\x03www\x07example\x03org\0"[..], "192.0.2.1", Some(3)),
            (b"\x03wWw\x07eXample\x03ORG\0", "192.0.2.2", Some(4)),
            (b"\x03www\x07example\x03org\0", "2001:db8::1", Some(255)),
            (b"\x03www\x07example\x03org\0", "192.0.2.3", Some(1)),
            (b"\x07example\x03net\0", "192.0.2.1", Some(7)),
            (b"\x07example\x03org\0", "192.0.2.1", None),
        ] {
            let found = weights.domain(name).map(|domain| domain.weight(address.parse().unwrap()));
            assert_eq!(found, weight, "{name:?} {address}");
        }
        assert_eq!(Weights::parse("").unwrap(), Weights::default());
    }

    #[test]
    fn a_fault_has_its_line() {
        for (text, line, reason) in [
            ("192.0.2.1 3", 1, "`192.0.2.1` belongs to no name; write the name on a line above it"),
            ("a\n\n192.0.2.1", 3, "`192.0.2.1` has no weight; write `192.0.2.1 WEIGHT`"),
            ("a\n192.0.2 3", 2, "`192.0.2` is not an IP address"),
            ("a\n192.0.2.1 0", 2, "`0` is not a weight; write a number from 1 to 255"),
            ("a\n192.0.2.1 256", 2, "`256` is not a weight; write a number from 1 to 255"),
            ("a\n192.0.2.1 -1", 2, "`-1` is not a weight; write a number from 1 to 255"),
            ("a\n192.0.2.1 1 # one", 2, "a line is a name, or an address and its weight"),
        ] {
            assert_eq!(Weights::parse(text), Err((line, reason.to_owned())), "{text}");
        }
        let (line, reason) = Weights::parse("ok\na..b").unwrap_err();
        assert!(line == 2 && reason.starts_with("`a..b` is not a name: "), "{line}: {reason}");
    }
}
