//! Which route answers a name: a table of zones, asked for the longest one that holds the name.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::dns::{Name, Type};

/// The zones of one listen address.
#[derive(Clone, Debug, Default)]
pub struct ZoneTable {
    entries: Vec<(Name, usize)>,
    by_name: HashMap<Box<[u8]>, u32, BuildHasherDefault<Mix>>,
    /// Bit *n* is set when a zone has *n* labels: other depths need no look.
    depths: u128,
}

impl ZoneTable {
    /// Adds a zone. The place of the one that is already there, if there is one; then nothing changes.
    pub(super) fn insert(&mut self, zone: Name, route: usize) -> Option<usize> {
        if let Some(at) = self.by_name.get(zone.as_wire()) {
            return Some(*at as usize);
        }
        self.depths |= 1 << zone.label_count();
        self.by_name.insert(zone.as_wire().into(), self.entries.len() as u32);
        self.entries.push((zone, route));
        None
    }

    /// Zones and their routes, in the order of their indices.
    pub fn entries(&self) -> impl Iterator<Item = (&Name, usize)> {
        self.entries.iter().map(|(zone, route)| (zone, *route))
    }

    /// The zone with this index.
    pub fn zone(&self, index: usize) -> &Name {
        &self.entries[index].0
    }

    /// The route and the zone (their indices) for a name in lower-case wire form whose labels start at `offsets`: that
    /// of the longest zone above it. For DS, which belongs to the parent side of a cut (RFC 4035 section 3.1.4.1), the
    /// shortest, the root only when there is no other. Does not allocate.
    #[inline]
    pub fn find(&self, name: &[u8], offsets: &[u8], qtype: Type) -> Option<(usize, usize)> {
        let mut found = None;
        for (at, offset) in offsets.iter().enumerate() {
            let depth = offsets.len() - at;
            if self.depths >> depth & 1 == 0 {
                continue;
            }
            if let Some(zone) = self.by_name.get(name.get(usize::from(*offset)..)?) {
                found = Some(*zone);
                if qtype != Type::DS {
                    break;
                }
            }
        }
        let zone = match found {
            Some(zone) => zone,
            None if self.depths & 1 == 1 => *self.by_name.get([0_u8].as_slice())?,
            None => return None,
        };
        Some((self.entries[zone as usize].1, zone as usize))
    }
}

/// Hashes a few octets with one multiplication per eight. The keys are those of the Corefile, so nobody can choose
/// colliding ones.
#[derive(Clone, Copy, Debug, Default)]
struct Mix(u64);

impl Mix {
    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.add(u64::from_le_bytes(*word)));
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.add(u64::from_le_bytes(word));
        }
    }

    fn write_usize(&mut self, length: usize) {
        self.add(length as u64);
    }

    fn finish(&self) -> u64 {
        // The table uses the top and the bottom bits; a multiplication leaves the bottom ones poor.
        self.0 ^ (self.0 >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::name::labels;

    fn table(zones: &[&str]) -> ZoneTable {
        let mut table = ZoneTable::default();
        for (at, zone) in zones.iter().enumerate() {
            assert_eq!(table.insert(Name::parse(zone).unwrap(), 10 + at), None);
        }
        table
    }

    fn find(table: &ZoneTable, name: &str, qtype: Type) -> Option<(usize, usize)> {
        let name = Name::parse(name).unwrap();
        let offsets: Vec<u8> = labels(name.as_wire())
            .scan(0, |at, label| Some(std::mem::replace(at, *at + label.len() as u8 + 1)))
            .collect();
        table.find(name.as_wire(), &offsets, qtype)
    }

    #[test]
    fn the_longest_zone_wins() {
        let table = table(&["org", "b.example.org", "example.com", "x.y.z.example.org"]);
        for (name, expected) in [
            ("org", Some((10, 0))),
            ("example.org", Some((10, 0))),
            ("b.example.org", Some((11, 1))),
            ("a.b.example.org", Some((11, 1))),
            ("w.x.y.z.example.org", Some((13, 3))),
            ("ab.example.org", Some((10, 0))),
            ("com", None),
            (".", None),
        ] {
            assert_eq!(find(&table, name, Type::A), expected, "{name}");
        }
    }

    #[test]
    fn ds_is_for_the_parent_and_the_root_is_the_last_resort() {
        let table = table(&[".", "example.org", "b.example.org"]);
        assert_eq!(find(&table, "b.example.org", Type::A), Some((12, 2)));
        assert_eq!(find(&table, "b.example.org", Type::DS), Some((11, 1)));
        assert_eq!(find(&table, "com", Type::DS), Some((10, 0)));
        assert_eq!(find(&table, ".", Type::A), Some((10, 0)));
        assert_eq!(find(&table, "org", Type::A), Some((10, 0)));
    }

    #[test]
    fn a_zone_is_there_once() {
        let mut table = table(&["a", "b"]);
        assert_eq!(table.insert(Name::parse("B").unwrap(), 5), Some(1));
        assert_eq!(table.entries().map(|(zone, route)| format!("{zone}{route}")).collect::<Vec<_>>(), ["a.10", "b.11"]);
    }
}
