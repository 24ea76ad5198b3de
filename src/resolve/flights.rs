//! Flights: one miss in progress, however many wait for it.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::SetOnce;

use crate::cache::{HashedAlready, Key};

use super::outcome::Outcome;
use super::party::{Asker, Bounds, Party, Seat, Shares};

/// How many parts the table has, so that workers seldom meet at a lock.
const SHARDS: usize = 16;

/// The misses in progress, of all workers together: equal questions share one upstream query, whoever asks them
/// (RFC 5452 section 5).
///
/// What one client or one zone may take is bounded well below what there is, so that a flood of one leaves room for all
/// others. This host is not held to a client's share.
pub struct Flights {
    shards: [Mutex<Table>; SHARDS],
    bounds: Bounds,
    aloft: AtomicUsize,
    /// Flights of each client.
    clients: Arc<Shares>,
    /// Flights of each zone.
    zones: Arc<Shares>,
    /// Queries of each client that wait for a flight which another query began.
    waiting: Arc<Shares>,
}

type Table = HashMap<Key, Arc<Flight>, BuildHasherDefault<HashedAlready>>;

/// One miss in progress.
struct Flight {
    landed: SetOnce<Arc<Outcome>>,
    /// Its clients have had their replies; it waits for an answer that is late.
    late: bool,
    /// How often an upstream had recovered when it began.
    recoveries: u64,
    /// Whether a client waits for it, or did: a refresh that a client has joined is one no more.
    awaited: Arc<AtomicBool>,
}

/// The duty to land a flight. Dropped without [`Leader::land`], as when its task panics, it lands it with a failure, so
/// nobody waits for ever. The seats of its client and its zone are the flight's, whoever still waits for it, until it has
/// landed.
pub struct Leader {
    flights: Arc<Flights>,
    key: Key,
    flight: Arc<Flight>,
    seats: [Option<Seat>; 2],
}

/// One who waits for a flight. Dropped, it gives its client's place to wait back.
pub struct Waiter {
    flight: Arc<Flight>,
    /// `None` for who began the flight, and for who is no client.
    _seat: Option<Seat>,
}

/// The place that a query got.
pub enum Place {
    /// It waits for somebody else's flight.
    Waits(Waiter),
    /// It has to see to the flight itself, and waits for it like the others.
    Leads(Leader, Waiter),
    /// It has to do without.
    Full(Full),
}

/// Which bound was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// There are as many flights as there may be; for a refresh, half as many.
    Total,
    /// The client has its share of flights, or of places to wait.
    Client,
    /// As many names of the zone are asked for as may be.
    Zone,
}

impl Flights {
    /// None yet.
    pub fn new(bounds: Bounds) -> Arc<Flights> {
        Arc::new(Flights {
            shards: Default::default(),
            bounds,
            aloft: AtomicUsize::new(0),
            clients: Shares::new(bounds.flights_per_client),
            zones: Shares::new(bounds.flights_per_zone),
            waiting: Shares::new(bounds.waiting_per_client),
        })
    }

    /// Joins the flight of a key, or starts it.
    pub fn join(self: &Arc<Flights>, key: Key, party: &Party) -> Place {
        let mut table = self.shard(&key);
        // What was sent to an upstream before it came back is lost, and so would be the time of who waits for it.
        let in_vain = |flight: &Flight| flight.late && flight.recoveries != party.recoveries;
        if let Some(flight) = table.get(&key).filter(|flight| !in_vain(flight)) {
            let seat = match party.asker {
                Asker::Client(client) => match self.waiting.take(client) {
                    None => return Place::Full(Full::Client),
                    seat => seat,
                },
                Asker::Host | Asker::Nobody => None,
            };
            if !party.is_nobody() && !flight.awaited.load(Relaxed) {
                flight.awaited.store(true, Relaxed);
            }
            return Place::Waits(Waiter { flight: flight.clone(), _seat: seat });
        }
        let seats = match self.seats(party) {
            Ok(seats) => seats,
            Err(full) => return Place::Full(full),
        };
        // Whoever waits goes before a refresh.
        let all = self.bounds.flights;
        let limit = if party.is_nobody() { all.div_ceil(2) } else { all };
        if self.aloft.fetch_add(1, Relaxed) >= limit {
            self.aloft.fetch_sub(1, Relaxed);
            return Place::Full(Full::Total);
        }
        let flight = Arc::new(Flight::new(false, party.recoveries, !party.is_nobody()));
        table.insert(key.clone(), flight.clone());
        let waiter = Waiter { flight: flight.clone(), _seat: None };
        Place::Leads(Leader { flights: self.clone(), key, flight, seats }, waiter)
    }

    /// Whether there is room for flights that only wait.
    pub fn has_room(&self) -> bool {
        self.aloft() * 2 < self.bounds.flights
    }

    /// How many flights there are now.
    pub fn aloft(&self) -> usize {
        self.aloft.load(Relaxed)
    }

    /// What a flight takes of its client's and its zone's share.
    fn seats(&self, party: &Party) -> Result<[Option<Seat>; 2], Full> {
        let client = match party.asker {
            Asker::Client(client) => Some(self.clients.take(client).ok_or(Full::Client)?),
            Asker::Host | Asker::Nobody => None,
        };
        Ok([client, Some(self.zones.take(party.zone).ok_or(Full::Zone)?)])
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Table> {
        let index = key.hash() as usize >> 7 & (SHARDS - 1);
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight {
    fn new(late: bool, recoveries: u64, awaited: bool) -> Flight {
        Flight { landed: SetOnce::new(), late, recoveries, awaited: Arc::new(AtomicBool::new(awaited)) }
    }
}

impl Waiter {
    /// Waits for the outcome.
    pub async fn outcome(&self) -> Arc<Outcome> {
        self.flight.landed.wait().await.clone()
    }
}

impl Leader {
    /// Whether a client waits; one that comes later sets it.
    pub fn awaited(&self) -> Arc<AtomicBool> {
        self.flight.awaited.clone()
    }

    /// Hands the outcome to everyone who waits.
    pub fn land(self, outcome: Arc<Outcome>) {
        self.finish(outcome);
    }

    /// The same, and goes on with another flight in its place: who comes from then on waits for that one. Its client and
    /// its zone have their seats back: what is only late is bounded by [`Flights::has_room`].
    pub fn land_and_stay(mut self, outcome: Arc<Outcome>) -> Leader {
        self.seats = [None, None];
        let next = Arc::new(Flight::new(true, self.flight.recoveries, true));
        self.flights.shard(&self.key).insert(self.key.clone(), next.clone());
        let landed = std::mem::replace(&mut self.flight, next);
        landed.landed.set(outcome).expect("only the leader lands a flight, and once");
        self
    }

    fn finish(&self, outcome: Arc<Outcome>) {
        if self.flight.landed.initialized() {
            return;
        }
        // Out of the table first: who comes now finds the answer in the cache, or starts anew.
        let mut table = self.flights.shard(&self.key);
        // While it was late, another may have begun in its place.
        if table.get(&self.key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
            table.remove(&self.key);
        }
        drop(table);
        self.flights.aloft.fetch_sub(1, Relaxed);
        self.flight.landed.set(outcome).expect("only the leader lands a flight, and once");
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.finish(Arc::new(Outcome::aborted()));
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::cache::Cache;
    use crate::dns::{Ede, Rcode};
    use crate::resolve::{Cause, Failed};

    /// Names of keys, asked for by anybody.
    struct Lab {
        cache: Arc<Cache>,
        flights: Arc<Flights>,
    }

    impl Lab {
        fn new(flights: usize, share: usize) -> Lab {
            let bounds = Bounds {
                flights,
                flights_per_client: share,
                flights_per_zone: flights.div_ceil(4),
                waiting_per_client: 2 * share,
            };
            Lab { cache: Cache::new(1 << 20), flights: Flights::new(bounds) }
        }

        fn join(&self, name: usize, party: &Party) -> Place {
            self.flights.join(self.cache.key(1, &name.to_be_bytes()).to_key(), party)
        }

        fn all_given_back(&self) -> bool {
            let Flights { clients, zones, waiting, .. } = &*self.flights;
            self.flights.aloft() == 0 && [clients, zones, waiting].iter().all(|shares| shares.is_empty())
        }
    }

    fn party(client: u8, zone: u64) -> Party {
        Party { asker: Asker::Client(IpAddr::from([10, 0, 0, client])), zone, recoveries: 0 }
    }

    fn full(place: &Place) -> Option<Full> {
        if let Place::Full(full) = place { Some(*full) } else { None }
    }

    #[tokio::test]
    async fn a_flight_lands_for_everyone_even_if_its_leader_is_dropped() {
        let lab = Lab::new(1, 8);
        let Place::Leads(leader, first) = lab.join(1, &party(1, 1)) else { panic!("the first one leads") };
        let Place::Waits(second) = lab.join(1, &party(1, 1)) else { panic!("the second one waits") };
        drop(leader);
        assert_eq!(second.outcome().await.rcode(), Rcode::SERVFAIL);
        assert!(Arc::ptr_eq(&first.outcome().await, &second.outcome().await));
        drop((first, second));
        assert!(lab.all_given_back());
        let Place::Leads(leader, waiter) = lab.join(1, &party(1, 1)) else { panic!("the next one leads again") };
        leader.land(Arc::new(Failed::new(Cause::Timeout, Ede::OTHER, "x").into()));
        assert_eq!(waiter.outcome().await.rcode(), Rcode::SERVFAIL);
    }

    #[tokio::test]
    async fn nobody_joins_a_late_flight_from_before_a_recovery() {
        let lab = Lab::new(8, 8);
        let after = Party { recoveries: 1, ..party(1, 1) };
        let Place::Leads(leader, waiter) = lab.join(1, &party(1, 1)) else { panic!("the first one leads") };
        assert!(matches!(lab.join(1, &after), Place::Waits(_)), "its own clients still wait");
        let late = leader.land_and_stay(failed());
        assert!(matches!(lab.join(1, &party(1, 1)), Place::Waits(_)), "its answer may still come");
        let Place::Leads(next, waits) = lab.join(1, &after) else { panic!("it is asked anew") };
        late.land(failed());
        assert!(matches!(lab.join(1, &after), Place::Waits(_)), "the next flight is not that one's");
        next.land(failed());
        drop((waiter, waits));
        assert!(lab.all_given_back());
    }

    fn failed() -> Arc<Outcome> {
        Arc::new(Failed::new(Cause::Timeout, Ede::OTHER, "x").into())
    }

    #[test]
    fn one_client_cannot_take_every_place() {
        let lab = Lab::new(1000, 50);
        // Each of its own zone, so that no other bound is met.
        let mut held: Vec<Place> = (0..50).map(|name| lab.join(name, &party(1, name as u64))).collect();
        assert!(held.iter().all(|place| full(place).is_none()));
        assert_eq!(full(&lab.join(50, &party(1, 50))), Some(Full::Client));
        held.extend((0..100).map(|_| lab.join(0, &party(1, 0))));
        assert!(held.iter().all(|place| full(place).is_none()), "who waits with others costs upstreams nothing");
        assert_eq!(full(&lab.join(0, &party(1, 0))), Some(Full::Client), "but a place to wait");
        for other in 2..100 {
            held.push(lab.join(1000 + usize::from(other), &party(other, u64::from(other) << 32)));
            assert!(full(held.last().unwrap()).is_none(), "client {other}");
        }
        let host = Party { asker: Asker::Host, ..party(1, 1 << 48) };
        held.extend((2000..2200).map(|name| lab.join(name, &host)));
        held.extend((2000..2200).map(|name| lab.join(name, &host)));
        assert!(held.iter().all(|place| full(place).is_none()), "the host is not one client");
        drop(held);
        assert!(lab.all_given_back());
    }

    #[test]
    fn a_late_flight_takes_nothing_of_its_zone_and_client() {
        let lab = Lab::new(8, 2);
        let mut late = Vec::new();
        for name in 0..3 {
            let leads = [name, name + 100].map(|name| match lab.join(name, &party(1, 1)) {
                Place::Leads(leader, _) => leader,
                _ => panic!("{name} leads"),
            });
            assert_eq!(full(&lab.join(200, &party(2, 1))), Some(Full::Zone));
            assert_eq!(full(&lab.join(200, &party(1, 2))), Some(Full::Client));
            late.extend(leads.map(|leader| leader.land_and_stay(failed())));
        }
        assert_eq!(lab.flights.aloft(), 6);
        drop(late);
        assert!(lab.all_given_back());
    }

    #[test]
    fn one_zone_cannot_take_every_place() {
        let lab = Lab::new(400, 400);
        let mut held: Vec<Place> = (0..100).map(|name| lab.join(name, &party(name as u8, 7))).collect();
        assert_eq!(full(&lab.join(100, &party(1, 7))), Some(Full::Zone));
        assert!(matches!(lab.join(0, &party(1, 7)), Place::Waits(_)), "a flight there is can be joined");
        for zone in 8..100 {
            held.push(lab.join(zone, &party(1, zone as u64 * 1000)));
            assert!(full(held.last().unwrap()).is_none(), "zone {zone}");
        }
        drop(held);
        assert!(lab.all_given_back());
    }

    #[test]
    fn whoever_waits_goes_before_a_refresh() {
        let lab = Lab::new(8, 100);
        let refresh = |name: usize| lab.join(name, &Party { asker: Asker::Nobody, ..party(1, name as u64) });
        let mut held: Vec<Place> = (0..4).map(refresh).collect();
        assert_eq!(full(&refresh(4)), Some(Full::Total));
        held.extend((4..8).map(|name| lab.join(name, &party(1, name as u64))));
        assert!(held.iter().all(|place| matches!(place, Place::Leads(..))));
        assert_eq!(full(&lab.join(8, &party(1, 8))), Some(Full::Total));
        drop(held);
        assert!(lab.all_given_back());
    }

    #[test]
    fn a_client_that_joins_a_refresh_is_waited_for_like_any_other() {
        let lab = Lab::new(8, 8);
        let refresh = Party { asker: Asker::Nobody, ..party(1, 1) };
        let Place::Leads(leader, waiter) = lab.join(1, &refresh) else { panic!("the first one leads") };
        assert!(matches!(lab.join(1, &refresh), Place::Waits(_)));
        assert!(!leader.awaited().load(Relaxed));
        assert!(matches!(lab.join(1, &party(1, 1)), Place::Waits(_)));
        assert!(leader.awaited().load(Relaxed));
        let Place::Leads(other, _) = lab.join(2, &party(1, 1)) else { panic!("the first one leads") };
        assert!(other.awaited().load(Relaxed));
        drop((leader, waiter, other));
        assert!(lab.all_given_back());
    }

    #[test]
    fn a_client_that_hangs_up_gives_its_place_to_wait_back_and_its_flight_goes_on() {
        let lab = Lab::new(8, 1);
        let Place::Leads(leader, first) = lab.join(1, &party(1, 1)) else { panic!("the first one leads") };
        let waits = [(); 2].map(|()| lab.join(1, &party(1, 1)));
        assert_eq!(full(&lab.join(1, &party(1, 1))), Some(Full::Client));
        drop((first, waits));
        assert!(matches!(lab.join(1, &party(1, 1)), Place::Waits(_)));
        assert_eq!(lab.flights.aloft(), 1);
        assert_eq!(full(&lab.join(2, &party(1, 2))), Some(Full::Client), "who hangs up has not stopped his flight");
        drop(leader);
        assert!(lab.all_given_back());
    }
}
