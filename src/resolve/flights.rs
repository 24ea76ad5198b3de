//! Flights: one miss in progress, however many wait for it.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::SetOnce;

use crate::cache::{HashedAlready, Key};

use super::outcome::Outcome;

/// How many parts the table has, so that workers seldom meet at a lock.
const SHARDS: usize = 16;

/// The misses in progress, of all workers together: equal questions share one upstream query, whoever asks them
/// (RFC 5452 section 5).
pub struct Flights {
    shards: [Mutex<Table>; SHARDS],
    limit: usize,
    aloft: AtomicUsize,
}

type Table = HashMap<Key, Arc<Flight>, BuildHasherDefault<HashedAlready>>;

/// One miss in progress.
pub struct Flight {
    landed: SetOnce<Arc<Outcome>>,
}

/// The duty to land a flight. Dropped without [`Leader::land`], as when its task panics, it lands it with a failure, so
/// nobody waits for ever.
pub struct Leader {
    flights: Arc<Flights>,
    key: Key,
    flight: Arc<Flight>,
}

/// The place that a query got.
pub enum Place {
    /// It waits for somebody else's flight.
    Waits(Arc<Flight>),
    /// It has to see to the flight itself.
    Leads(Leader),
    /// There are as many flights as there may be.
    Full,
}

impl Flights {
    /// A table of at most `limit` flights.
    pub fn new(limit: usize) -> Arc<Flights> {
        Arc::new(Flights { shards: Default::default(), limit, aloft: AtomicUsize::new(0) })
    }

    /// Joins the flight of a key, or starts it.
    pub fn join(self: &Arc<Flights>, key: Key) -> Place {
        let mut table = self.shard(&key);
        if let Some(flight) = table.get(&key) {
            return Place::Waits(flight.clone());
        }
        if self.aloft.load(Relaxed) >= self.limit {
            return Place::Full;
        }
        self.aloft.fetch_add(1, Relaxed);
        let flight = Arc::new(Flight { landed: SetOnce::new() });
        table.insert(key.clone(), flight.clone());
        Place::Leads(Leader { flights: self.clone(), key, flight })
    }

    /// How many flights there are now.
    pub fn aloft(&self) -> usize {
        self.aloft.load(Relaxed)
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Table> {
        let index = key.hash() as usize >> 7 & (SHARDS - 1);
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight {
    /// Waits for the outcome.
    pub async fn outcome(&self) -> Arc<Outcome> {
        self.landed.wait().await.clone()
    }
}

impl Leader {
    /// The flight, to wait for it like everybody else.
    pub fn flight(&self) -> Arc<Flight> {
        self.flight.clone()
    }

    /// Hands the outcome to everyone who waits.
    pub fn land(self, outcome: Outcome) {
        self.finish(outcome);
    }

    fn finish(&self, outcome: Outcome) {
        if self.flight.landed.initialized() {
            return;
        }
        // Out of the table first: who comes now finds the answer in the cache, or starts anew.
        self.flights.shard(&self.key).remove(&self.key);
        self.flights.aloft.fetch_sub(1, Relaxed);
        self.flight.landed.set(Arc::new(outcome)).expect("only the leader lands a flight, and once");
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.finish(Outcome::aborted());
    }
}
