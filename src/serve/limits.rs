//! How much the server takes on at once, and who gives way when that is reached.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The bounds. None is unlimited; where flags set more than memory or descriptors allow, there is less.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Questions that wait to be answered, over both protocols, all workers together. One more is answered SERVFAIL.
    pub inflight: usize,
    /// Open TCP connections, all workers together.
    pub connections: usize,
    /// Open TCP connections from one address.
    pub per_source: usize,
    /// Questions one connection may have in flight; beyond that it is not read.
    pub per_connection: usize,
    /// Octets that the TCP connections of one worker hold beyond 4 KiB each: what came and is not asked, and replies that
    /// their clients have not read. Over that, connections that stand still are closed.
    pub octets: usize,
    /// How long a message may take to arrive whole, where the listen address does not say.
    pub read: Duration,
    /// How long a client may take to read what is ready for it, where the listen address does not say.
    pub write: Duration,
    /// How long a connection may be idle, where the listen address does not say.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            inflight: 8192,
            connections: 10_000,
            // All pods on the host's network, and all programs of a plain host, are one source.
            per_source: 1000,
            per_connection: 100,
            octets: 32 << 20,
            read: Duration::from_secs(3),
            write: Duration::from_secs(5),
            idle: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// The same, with connections held to half of the descriptors this process may open: the other half is for
    /// upstreams and files.
    pub fn within(mut self, descriptors: u64) -> Self {
        let half = usize::try_from(descriptors / 2).unwrap_or(usize::MAX).max(1);
        self.connections = self.connections.min(half);
        self
    }
}

/// So many idle connections are looked at when one has to go.
const CANDIDATES: usize = 64;
/// So many clients may each have few places at once.
const FEW: usize = 16;

/// The places for questions that wait and for TCP connections, shared by all workers. Lives as long as the process.
pub struct Places {
    inflight: usize,
    waiting: AtomicUsize,
    connections: usize,
    per_source: usize,
    /// Places taken; changed under the lock of `sources`.
    taken: AtomicUsize,
    sources: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection's place; free again when dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    source: IpAddr,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Total,
    Source,
}

impl Places {
    /// Places as `limits` allows.
    pub fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            inflight: limits.inflight,
            waiting: AtomicUsize::new(0),
            connections: limits.connections,
            per_source: limits.per_source,
            taken: AtomicUsize::new(0),
            sources: Mutex::default(),
        })
    }

    /// Takes a place for a question that waits, if there is one; to be given back with [`Places::go_on`].
    pub(crate) fn wait(&self) -> bool {
        // Taken before it is compared: two who come at once cannot both get the last place.
        let free = self.waiting.fetch_add(1, Relaxed) < self.inflight;
        if !free {
            self.go_on();
        }
        free
    }

    /// A question waits no longer.
    pub(crate) fn go_on(&self) {
        self.waiting.fetch_sub(1, Relaxed);
    }

    /// Takes a place for a connection from `source`.
    pub(crate) fn take(self: &Arc<Self>, source: IpAddr) -> Result<Place, Refusal> {
        let mut sources = self.sources();
        if sources.get(&source).is_some_and(|&n| n >= self.per_source) {
            return Err(Refusal::Source);
        }
        if self.taken.load(Relaxed) >= self.connections {
            return Err(Refusal::Total);
        }
        self.taken.fetch_add(1, Relaxed);
        *sources.entry(source).or_default() += 1;
        Ok(Place { places: self.clone(), source })
    }

    /// Whether `source` has so few places that it may have one of a client that has many.
    pub(crate) fn has_few(&self, source: IpAddr) -> bool {
        self.sources().get(&source).is_none_or(|&n| n < self.connections / FEW)
    }

    /// How long a connection may be idle now: `full` while half of the places are free, down to a tenth of it when
    /// none is (RFC 7766 section 6.2.3).
    pub(crate) fn idle(&self, full: Duration) -> Duration {
        let taken = self.taken.load(Relaxed);
        let half = self.connections / 2;
        let pressure = taken.saturating_sub(half) as f64 / (self.connections - half).max(1) as f64;
        full.mul_f64(1.0 - 0.9 * pressure.min(1.0))
    }

    fn sources(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // Nothing panics between the first and the last change, so the counts are right even after a panic elsewhere.
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut sources = self.places.sources();
        self.places.taken.fetch_sub(1, Relaxed);
        if let Some(n) = sources.get_mut(&self.source) {
            *n -= 1;
            if *n == 0 {
                sources.remove(&self.source);
            }
        }
    }
}

/// A worker's idle connections, the one that has been idle longest first.
pub(crate) struct IdleList<T> {
    since: BTreeMap<(Instant, u64), Rc<T>>,
}

impl<T> IdleList<T> {
    pub(crate) fn new() -> Self {
        Self { since: BTreeMap::new() }
    }

    /// Connection `id` has been idle since `since`.
    pub(crate) fn enter(&mut self, since: Instant, id: u64, connection: &Rc<T>) {
        self.since.insert((since, id), connection.clone());
    }

    /// Connection `id`, entered with `since`, is busy or gone.
    pub(crate) fn leave(&mut self, since: Instant, id: u64) {
        self.since.remove(&(since, id));
    }

    /// Takes out the connection that has been idle longest, if it became idle at or before `until`.
    pub(crate) fn take_oldest(&mut self, until: Instant) -> Option<Rc<T>> {
        let first = self.since.first_entry()?;
        (first.key().0 <= until).then(|| first.remove())
    }

    /// Takes out the first that `may` go, of the few that have been idle longest.
    pub(crate) fn take(&mut self, may: impl Fn(&T) -> bool) -> Option<Rc<T>> {
        let at = self.since.iter().take(CANDIDATES).find(|(_, connection)| may(connection)).map(|(at, _)| *at)?;
        self.since.remove(&at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;

    fn places(connections: usize, per_source: usize) -> Arc<Places> {
        Places::new(&Limits { connections, per_source, ..Limits::default() })
    }

    fn source(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn one_source_cannot_take_every_place() {
        let places = places(3, 2);
        let first = places.take(source(1)).ok().unwrap();
        let _second = places.take(source(1)).ok().unwrap();
        assert_eq!(places.take(source(1)).err(), Some(Refusal::Source));
        let _other = places.take(source(2)).ok().unwrap();
        assert_eq!(places.take(source(2)).err(), Some(Refusal::Total));
        drop(first);
        assert!(places.take(source(1)).is_ok());
    }

    #[test]
    fn nothing_is_remembered_of_sources_that_left() {
        let places = places(10, 2);
        for last in 0..100 {
            drop(places.take(source(last)));
        }
        assert!(places.sources().is_empty());
        assert_eq!(places.taken.load(Relaxed), 0);
    }

    #[test]
    fn idle_time_goes_down_when_more_than_half_is_taken() {
        let places = places(4, 4);
        let full = Duration::from_secs(10);
        let mut held = vec![places.take(source(1)), places.take(source(1))];
        assert_eq!(places.idle(full), full);
        held.push(places.take(source(1)));
        assert_eq!(places.idle(full), Duration::from_millis(5500));
        held.push(places.take(source(1)));
        assert_eq!(places.idle(full), Duration::from_secs(1));
    }

    #[test]
    fn descriptors_bound_the_connections() {
        assert_eq!(Limits::default().within(1024).connections, 512);
        assert_eq!(Limits::default().within(1 << 20).connections, 10_000);
        assert_eq!(Limits::default().within(0).connections, 1);
    }

    #[test]
    fn so_many_questions_wait_and_no_more() {
        let places = Places::new(&Limits { inflight: 2, ..Limits::default() });
        assert_eq!([(); 4].map(|()| places.wait()), [true, true, false, false]);
        places.go_on();
        assert_eq!([(); 2].map(|()| places.wait()), [true, false]);
    }

    #[test]
    fn the_longest_idle_goes_first() {
        let (mut list, start) = (IdleList::new(), clock::now());
        let second = start + Duration::from_secs(1);
        list.enter(second, 1, &Rc::new("later"));
        list.enter(start, 2, &Rc::new("sooner"));
        list.enter(start, 3, &Rc::new("busy again"));
        list.leave(start, 3);
        assert_eq!(list.take_oldest(start).as_deref(), Some(&"sooner"));
        assert_eq!(list.take_oldest(start), None);
        assert_eq!(list.take_oldest(second).as_deref(), Some(&"later"));
        list.enter(start, 4, &Rc::new("spared"));
        list.enter(second, 5, &Rc::new("next"));
        assert_eq!(list.take(|name| *name != "spared").as_deref(), Some(&"next"));
        assert_eq!(list.take(|name| *name != "spared"), None);
    }
}
