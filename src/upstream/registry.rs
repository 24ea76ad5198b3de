//! All upstreams of the process. What was learnt about one (health, round-trip time, connections) is shared by the
//! pools that use it and outlives a reload; an upstream that no pool uses any more is dropped.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use super::budget::Budget;
use super::selection::Via;
use super::tally::Tally;
use super::transport::tls::{CertificateError, Certificates};
use super::{Address, Pool, Transport, Upstream, notice};
use crate::observe::Exposition;
use crate::observe::counters::{
    FORWARD_HEALTHCHECK_BROKEN, FORWARD_REJECTS, UPSTREAM_CONNECTIONS, UPSTREAM_PACED, UPSTREAM_RETRIES_REFUSED,
    UPSTREAM_RTT, UPSTREAM_UP,
};
use crate::sys::clock;

/// Counts of upstreams that are gone are kept up to this many.
const MAX_TALLIES: usize = 1024;

/// The registry; clones are the same registry.
#[derive(Clone, Debug)]
pub struct Upstreams(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    budget: Arc<Budget>,
    known: Mutex<Known>,
    totals: Totals,
}

#[derive(Debug, Default)]
struct Known {
    upstreams: HashMap<Identity, Weak<Upstream>>,
    tallies: HashMap<String, Arc<Tally>>,
    pools: Vec<Weak<Pool>>,
}

/// What makes two upstreams the same: connections, health and round-trip time of one are true of the other.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Identity {
    address: Address,
    source: Option<IpAddr>,
    certificates: Option<[u8; 32]>,
    /// Where UDP is never asked: that it is dead over TCP is no news to those who ask over UDP, and the other way round.
    streams_only: bool,
}

/// Counts that belong to no single upstream.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    broken: AtomicU64,
    rejects: AtomicU64,
    recoveries: AtomicU64,
    retries_refused: AtomicU64,
}

impl Upstreams {
    /// An empty registry.
    pub fn new() -> Upstreams {
        Upstreams::with_pps(0)
    }

    /// An empty one whose upstreams together are sent at most so many packets a second; 0: as many as there are.
    pub fn with_pps(pps: u32) -> Upstreams {
        let budget = Arc::new(Budget::new(pps, clock::now()));
        Upstreams(Arc::new(Inner { budget, known: Mutex::default(), totals: Totals::default() }))
    }

    /// Hands every upstream in use to `see`, in no particular order.
    pub fn for_each(&self, mut see: impl FnMut(&Upstream)) {
        let upstreams: Vec<_> = self.known().upstreams.values().filter_map(Weak::upgrade).collect();
        upstreams.iter().for_each(|upstream| see(upstream));
    }

    /// How often an upstream that did not answer its checks has answered again, or others took an upstream's place:
    /// who could not be reached before may be reached since.
    pub fn recoveries(&self) -> u64 {
        self.totals().recoveries.load(Relaxed)
    }

    /// Adds what is known of all upstreams to a scrape.
    pub fn expose(&self, into: &mut Exposition) {
        let totals = self.totals();
        into.counter(&FORWARD_HEALTHCHECK_BROKEN, &[], totals.broken.load(Relaxed));
        into.counter(&FORWARD_REJECTS, &[], totals.rejects.load(Relaxed));
        into.counter(&UPSTREAM_RETRIES_REFUSED, &[], totals.retries_refused.load(Relaxed));
        into.counter(&UPSTREAM_PACED, &[], self.budget().paced());
        let tallies: Vec<_> = self.known().tallies.values().cloned().collect();
        tallies.iter().for_each(|tally| tally.expose(into));
        // Upstreams with one label differ in source address, certificates or transport: the label is up if one of them is.
        let (mut up, pools) = (BTreeMap::new(), self.pools());
        self.for_each(|upstream| {
            let to = upstream.address().label();
            into.gauge(&UPSTREAM_CONNECTIONS, &[&to], upstream.connections() as f64);
            let (healthy, fastest) = up.entry(to).or_insert((false, None));
            *healthy |= !pools.iter().any(|pool| pool.passes_by(upstream));
            *fastest = [*fastest, upstream.round_trip()].into_iter().flatten().min();
        });
        for (to, (healthy, fastest)) in up {
            into.gauge(&UPSTREAM_UP, &[&to], f64::from(u8::from(healthy)));
            if let Some(fastest) = fastest {
                into.gauge(&UPSTREAM_RTT, &[&to], fastest.as_secs_f64());
            }
        }
    }

    /// What may be sent in all.
    pub(crate) fn budget(&self) -> &Budget {
        &self.0.budget
    }

    /// Others are asked than before, so what failed may come from them.
    pub fn replaced(&self) {
        self.totals().recoveries.fetch_add(1, Relaxed);
    }

    /// A response came from `upstream` at `now` to a pool that makes checks, or does not.
    pub(crate) fn answered(&self, upstream: &Upstream, checked: bool, now: Instant) {
        if upstream.health().answered(checked, now) {
            self.totals().recoveries.fetch_add(1, Relaxed);
            if let Some(after) = upstream.health().came_back(now) {
                notice::back(upstream, after);
            }
        }
    }

    /// `upstream` did not answer a check.
    pub(crate) fn check_failed(&self, upstream: &Upstream, why: &str) {
        upstream.health().failed();
        upstream.tally().check_failure();
        let mut pools = self.pools();
        pools.retain(|pool| pool.passes_by(upstream));
        if !pools.is_empty() {
            notice::down(upstream, why, &pools, clock::now());
        }
    }

    /// Keeps an eye on a pool for as long as it is used.
    pub(crate) fn watch(&self, pool: &Arc<Pool>) {
        let mut known = self.known();
        known.pools.retain(|pool| pool.strong_count() > 0);
        known.pools.push(Arc::downgrade(pool));
    }

    /// The pools in use.
    fn pools(&self) -> Vec<Arc<Pool>> {
        self.known().pools.iter().filter_map(Weak::upgrade).collect()
    }

    /// Counts that belong to no single upstream.
    pub(crate) fn totals(&self) -> &Totals {
        &self.0.totals
    }

    /// The upstream at `address`, asked from `source`, its certificate checked against `certificates`, over `plain` if
    /// it is classic DNS.
    pub(crate) fn get(
        &self,
        address: Address,
        source: Option<IpAddr>,
        certificates: Option<&Certificates>,
        plain: Via,
    ) -> Result<Arc<Upstream>, CertificateError> {
        let certificates = match address.transport {
            Transport::Plain => None,
            Transport::Tls => Some(certificates.ok_or(CertificateError::NotLoaded)?),
        };
        let streams_only = plain == Via::Stream || address.transport == Transport::Tls;
        let certificates_digest = certificates.map(|loaded| loaded.digest);
        let identity = Identity { address, source, certificates: certificates_digest, streams_only };
        let mut known = self.known();
        if let Some(upstream) = known.upstreams.get(&identity).and_then(Weak::upgrade) {
            return Ok(upstream);
        }
        let address = &identity.address;
        let tls = match certificates {
            None => None,
            Some(loaded) => Some(loaded.client(address.server_name.as_deref(), address.socket.ip())?),
        };
        let tally = known.tally(address.label());
        let upstream = Arc::new(Upstream::new(address.clone(), source, tls, tally, self.0.budget.clone()));
        known.upstreams.retain(|_, upstream| upstream.strong_count() > 0);
        known.upstreams.insert(identity, Arc::downgrade(&upstream));
        Ok(upstream)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Upstreams {
    fn default() -> Upstreams {
        Upstreams::new()
    }
}

impl Known {
    fn tally(&mut self, to: String) -> Arc<Tally> {
        if self.tallies.len() >= MAX_TALLIES {
            self.tallies.retain(|_, tally| Arc::strong_count(tally) > 1);
        }
        self.tallies.entry(to).or_insert_with_key(|to| Arc::new(Tally::new(to.clone()))).clone()
    }
}

impl Totals {
    /// A query found every upstream down.
    pub(crate) fn broken(&self) {
        self.broken.fetch_add(1, Relaxed);
    }

    /// A further try was not made.
    pub(crate) fn refuse_retry(&self) {
        self.retries_refused.fetch_add(1, Relaxed);
    }

    /// A query was over `max_concurrent`.
    pub(crate) fn reject(&self) {
        self.rejects.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::testing::value;

    fn count(upstreams: &Upstreams) -> usize {
        let mut count = 0;
        upstreams.for_each(|_| count += 1);
        count
    }

    fn retries(upstreams: &Upstreams) -> u64 {
        value(upstreams, r#"dnslet_upstream_retries_total{to="10.0.0.0:53"}"#)
    }

    #[test]
    fn one_address_is_one_upstream_for_as_long_as_it_is_used() {
        let upstreams = Upstreams::new();
        let address = Address::parse("10.0.0.10").unwrap();
        let first = upstreams.get(address.clone(), None, None, Via::Datagram).unwrap();
        let second = upstreams.clone().get(address.clone(), None, None, Via::Datagram).unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        let elsewhere = upstreams.get(address.clone(), Some("10.0.0.1".parse().unwrap()), None, Via::Datagram).unwrap();
        assert!(!Arc::ptr_eq(&first, &elsewhere), "connections from another source are others");
        assert!(Arc::ptr_eq(first.tally(), elsewhere.tally()), "but the label is the same");
        let forced = upstreams.get(address.clone(), None, None, Via::Stream).unwrap();
        assert!(!Arc::ptr_eq(&first, &forced), "what is true over TCP need not be over UDP");
        assert_eq!(count(&upstreams), 3);
        drop((first, second, elsewhere, forced));
        assert_eq!(count(&upstreams), 0);
    }

    #[test]
    fn counts_outlive_their_upstream_and_are_bounded() {
        let upstreams = Upstreams::new();
        let address = |index: usize| Address::parse(&format!("10.0.{}.{}", index / 256, index % 256)).unwrap();
        upstreams.get(address(0), None, None, Via::Datagram).unwrap().tally().retry();
        let again = upstreams.get(address(0), None, None, Via::Datagram).unwrap();
        assert_eq!(retries(&upstreams), 1);
        for index in 1..3000 {
            upstreams.get(address(index), None, None, Via::Datagram).unwrap();
        }
        let kept = upstreams.known().tallies.len();
        assert!(kept <= MAX_TALLIES, "{kept}");
        assert_eq!(retries(&upstreams), 1);
        drop(again);
    }
}
