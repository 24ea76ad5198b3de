//! Who takes part in flights: how many places one client and one zone have taken, in tables that never grow.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::dns::name::labels;

/// For whom a question is asked, and whose names it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Party {
    /// Who waits for the reply.
    pub asker: Asker,
    /// A keyed hash of the route and of the zone of QNAME, see [`zone_of`]: a flood of made-up names is one party.
    pub zone: u64,
    /// How often an upstream has recovered so far: whoever comes after that does not wait for what was sent before.
    pub recoveries: u64,
}

/// Who waits for a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// A client by its address, an IPv4 address as such. It has a share.
    Client(IpAddr),
    /// This host. All its programs have the same address, so it is nobody's share.
    Host,
    /// Nobody: it is a refresh.
    Nobody,
}

impl Party {
    /// Whether nobody waits for the reply.
    pub(super) fn is_nobody(&self) -> bool {
        self.asker == Asker::Nobody
    }
}

impl Asker {
    /// Who asks from `peer` at the address `asked`. A program of this host that chooses no address has 127.0.0.1, ::1, or
    /// the address that it asks.
    pub(super) fn of(peer: IpAddr, asked: IpAddr) -> Asker {
        let (peer, asked) = (peer.to_canonical(), asked.to_canonical());
        let host = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into(), asked].contains(&peer);
        if host { Asker::Host } else { Asker::Client(peer) }
    }
}

/// How many flights there may be, and how they are shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Flights in all; half of them for refreshes.
    pub flights: usize,
    /// Flights that queries of one client have begun.
    pub flights_per_client: usize,
    /// Flights for names of one zone.
    pub flights_per_zone: usize,
    /// Queries of one client that wait for a flight which another query began. They cost upstreams nothing.
    pub waiting_per_client: usize,
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

/// An ordinary client may need so many flights at once.
const ORDINARY: usize = 100;

/// Slots of one row.
const SLOTS: usize = 1024;

impl Bounds {
    /// A quarter of the flights for each client and each zone, and half of the places to wait for each client, where
    /// `waiting` queries may wait. Few flights are shared less strictly, so that a share is enough for an ordinary client.
    pub fn sharing(flights: usize, waiting: usize) -> Bounds {
        let share = (flights / 4).max(ORDINARY.min(flights / 2));
        Bounds { flights, flights_per_client: share, flights_per_zone: share, waiting_per_client: waiting / 2 }
    }
}

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

/// What counts as the zone of a name in wire form: as much of its end as has two labels more than the zone of its server
/// block, which has `depth`. That is a domain below `.`, and a namespace below `cluster.local`.
pub(super) fn zone_of(name: &[u8], depth: usize) -> &[u8] {
    let beyond = labels(name).count().saturating_sub(depth + 2);
    let skipped: usize = labels(name).take(beyond).map(|label| 1 + label.len()).sum();
    &name[skipped..]
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
    fn shares_are_enough_for_an_ordinary_client() {
        let shares = |flights, waiting| {
            let Bounds { flights_per_client, flights_per_zone, waiting_per_client, .. } =
                Bounds::sharing(flights, waiting);
            [flights_per_client, flights_per_zone, waiting_per_client]
        };
        assert_eq!(shares(1000, 2000), [250, 250, 1000]);
        assert_eq!(shares(300, 600), [100, 100, 300]);
        assert_eq!(shares(64, 128), [32, 32, 64]);
    }

    #[test]
    fn there_is_always_one_place() {
        let shares = Shares::new(0);
        let seat = shares.take(1);
        assert!(seat.is_some() && shares.take(1).is_none());
    }

    #[test]
    fn a_zone_is_two_labels_below_that_of_the_block() {
        for (name, depth, zone) in [
            ("a.b.example.org", 0, "example.org"),
            ("example.org", 0, "example.org"),
            ("org", 0, "org"),
            (".", 0, "."),
            ("a.db.one.svc.cluster.local", 2, "one.svc.cluster.local"),
            ("one.svc.cluster.local", 2, "one.svc.cluster.local"),
            ("cluster.local", 2, "cluster.local"),
            ("4.3.2.10.in-addr.arpa", 2, "2.10.in-addr.arpa"),
        ] {
            let (name, zone) = (Name::parse(name).unwrap(), Name::parse(zone).unwrap());
            assert_eq!(zone_of(name.as_wire(), depth), zone.as_wire());
        }
    }

    #[test]
    fn this_host_is_no_client() {
        let of = |peer: &str, asked: &str| Asker::of(peer.parse().unwrap(), asked.parse().unwrap());
        for (peer, asked) in [
            ("127.0.0.1", "127.0.0.53"),
            ("::ffff:127.0.0.1", "10.0.0.1"),
            ("::1", "::1"),
            ("169.254.20.10", "169.254.20.10"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
        ] {
            assert_eq!(of(peer, asked), Asker::Host, "{peer} at {asked}");
        }
        assert_eq!(of("::ffff:10.1.0.7", "169.254.20.10"), Asker::Client([10, 1, 0, 7].into()));
        assert_eq!(of("127.0.0.2", "127.0.0.53"), Asker::Client([127, 0, 0, 2].into()));
    }
}
