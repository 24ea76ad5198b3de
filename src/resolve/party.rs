//! Who takes part in flights: how many places one client and one zone have taken, in tables that never grow.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// For whom a question is asked, and whose names it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Party {
    /// The address that waits for the reply, an IPv4 address as such; `None` for a refresh.
    pub client: Option<IpAddr>,
    /// A keyed hash of the route and of the last two labels of QNAME: a flood of made-up names is one party.
    pub zone: u64,
    /// How often an upstream has recovered so far: whoever comes after that does not wait for what was sent before.
    pub recoveries: u64,
}

/// How many a party has taken, for any number of parties, and how many each may take.
///
/// Each party has one slot in either row, by hashes that are keyed with a secret of this process. It is held to its share
/// only where both of its slots are full, so that who shares one slot with a greedy party still gets through.
pub(super) struct Shares {
    rows: [Box<[AtomicU32]>; 2],
    keys: [RandomState; 2],
    most: u32,
}

/// One place that a party has taken; given back when dropped.
pub(super) struct Seat {
    shares: Arc<Shares>,
    slots: [usize; 2],
}

/// Slots of one row.
const SLOTS: usize = 1024;

impl Shares {
    /// At most `most` places for each party.
    pub(super) fn new(most: usize) -> Arc<Shares> {
        let row = || (0..SLOTS).map(|_| AtomicU32::new(0)).collect();
        let most = u32::try_from(most).unwrap_or(u32::MAX / 2).max(1);
        Arc::new(Shares { rows: [row(), row()], keys: [RandomState::new(), RandomState::new()], most })
    }

    /// Takes a place for a party, unless it has its share.
    pub(super) fn take(self: &Arc<Shares>, party: impl std::hash::Hash) -> Option<Seat> {
        let slots = [0, 1].map(|row| self.keys[row].hash_one(&party) as usize % SLOTS);
        // Taken before it is compared: two who come at once cannot both get the last place.
        let taken = [0, 1].map(|row| self.rows[row][slots[row]].fetch_add(1, Relaxed));
        let seat = Seat { shares: self.clone(), slots };
        (taken[0].min(taken[1]) < self.most).then_some(seat)
    }

    /// Whether nobody has a place.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.rows.iter().flatten().all(|slot| slot.load(Relaxed) == 0)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        for (row, slot) in self.shares.rows.iter().zip(self.slots) {
            row[slot].fetch_sub(1, Relaxed);
        }
    }
}

/// The last two labels of a name in wire form, the final zero included; of a shorter name all of it.
pub(super) fn last_two_labels(name: &[u8]) -> &[u8] {
    let (mut last, mut at) = ([0; 2], 0);
    while let Some(&length) = name.get(at).filter(|&&length| length > 0) {
        last = [last[1], at];
        at += 1 + usize::from(length);
    }
    &name[last[0]..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::Name;

    #[test]
    fn a_party_has_its_share_and_others_theirs() {
        let shares = Shares::new(100);
        let greedy: Vec<Seat> = (0..200).filter_map(|_| shares.take("greedy")).collect();
        assert_eq!(greedy.len(), 100);
        let others: Vec<Seat> = (0..500).filter_map(|other| shares.take(other)).collect();
        assert!(others.len() >= 499, "only who shares both slots could be refused: {}", others.len());
        drop(greedy);
        assert!(shares.take("greedy").is_some());
        drop(others);
        assert!(shares.is_empty(), "a refusal takes nothing, and what was taken is given back");
    }

    #[test]
    fn there_is_always_one_place() {
        let shares = Shares::new(0);
        let seat = shares.take(1);
        assert!(seat.is_some() && shares.take(1).is_none());
    }

    #[test]
    fn a_zone_is_the_last_two_labels() {
        for (name, zone) in
            [("a.b.example.org", "example.org"), ("example.org", "example.org"), ("org", "org"), (".", ".")]
        {
            let (name, zone) = (Name::parse(name).unwrap(), Name::parse(zone).unwrap());
            assert_eq!(last_two_labels(name.as_wire()), zone.as_wire());
        }
    }
}
