//! Checks: whether an upstream can be asked is found out by asking it once queries have failed, until it answers.
//!
//! Nothing is checked while all goes well. What failed is asked `<domain> NS`; any response ends it. Each failed check
//! counts, and above `max_fails` the upstream is down. A dead one gets there in about a second and a half, because a
//! check waits little longer than a query would. From then on it is probed once a second, so that it is back within
//! two (RFC 2308 section 7.2 allows five minutes).
//!
//! A server may be reached over one transport and not over the other. Checks change between UDP and TCP, so that one
//! answer of either kind keeps it up, except where only TCP is used.

use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rand::RngExt;
use tokio::time::{sleep, timeout};

use super::Upstreams;
use super::health::{Prober, SUSPECT};
use super::selection::Via;
use super::server::Upstream;
use super::spec::PoolSpec;
use super::transport::tcp::Keeping;
use super::transport::{Attempt, Event};
use crate::dns::convert::Outgoing;
use crate::dns::{Class, Name, Type};
use crate::sys::clock;

/// The shortest time from one check to the next.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
/// Bounds of the wait for a check: twice the patience with a query, and all of it where the upstream is down. A
/// connection that takes longer to open is there for the next check.
const LIMITS: std::ops::RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_secs(1);
/// Of so many checks of an upstream that is down one goes over the transport that queries do not use: most are to find what
/// is most likely.
const OTHER: u32 = 4;
/// The longest pause after a check that was answered: it may be the last one.
const AFTER_SUCCESS: Duration = Duration::from_millis(500);
/// As many lost queries in a row are reason for a check: one alone may be a slow name.
const REASON: u32 = 2;

/// How the upstreams of a pool are checked.
#[derive(Debug)]
pub(crate) struct Check {
    query: Vec<u8>,
    interval: Duration,
    max_fails: u32,
    via: Via,
    keeping: Keeping,
    upstreams: Upstreams,
}

impl Check {
    pub(crate) fn new(spec: &PoolSpec, keeping: Keeping, upstreams: &Upstreams) -> Check {
        Check {
            query: ns_query(&spec.health_check.domain, !spec.health_check.no_rec),
            interval: spec.health_check.interval.max(SHORTEST_INTERVAL),
            max_fails: spec.max_fails,
            via: if spec.force_tcp { Via::Stream } else { Via::Datagram },
            keeping,
            upstreams: upstreams.clone(),
        }
    }

    /// Whether checks are made at all.
    pub(crate) fn is_on(&self) -> bool {
        self.max_fails != 0
    }

    /// Whether the upstream is to be passed by.
    pub(crate) fn is_down(&self, upstream: &Upstream) -> bool {
        self.is_on() && upstream.health().fails() > self.max_fails
    }

    /// Whether the last failed check was the one that made it so.
    pub(crate) fn has_just_gone_down(&self, upstream: &Upstream) -> bool {
        self.is_on() && upstream.health().fails() == self.max_fails.saturating_add(1)
    }

    /// Over what a query goes that leaves at `now`. Must be called on a tokio runtime.
    pub(crate) fn via(self: &Arc<Check>, upstream: &Arc<Upstream>, now: Instant) -> Via {
        let via = self.usual(upstream);
        let alternates = via != upstream.via(self.via);
        // Where checks have failed, those under way try UDP as well.
        if alternates && upstream.health().fails() == 0 && upstream.silence().is_due(!self.is_on(), now) {
            if !self.is_on() {
                return Via::Datagram;
            }
            let (check, upstream) = (self.clone(), upstream.clone());
            tokio::spawn(async move {
                if check.make(&upstream, Via::Datagram).await.is_ok() {
                    check.answered(&upstream, Via::Datagram, clock::now());
                }
            });
        }
        via
    }

    /// A response came from `upstream` over `via`.
    pub(crate) fn answered(&self, upstream: &Upstream, via: Via, now: Instant) {
        if via == Via::Datagram {
            upstream.silence().end(now);
        }
        self.upstreams.answered(upstream, self.is_on(), now);
    }

    /// A query brought nothing in time, or nothing at all. Must be called on a tokio runtime.
    pub(crate) fn lost(self: &Arc<Check>, upstream: &Arc<Upstream>) {
        let lost = upstream.health().lost();
        if lost == SUSPECT {
            upstream.tally().suspected();
            upstream.health().probed(clock::now());
        }
        if lost >= REASON {
            self.start(upstream);
        }
    }

    /// Checks the upstream until it answers, if that is not being done already. Must be called on a tokio runtime.
    pub(crate) fn start(self: &Arc<Check>, upstream: &Arc<Upstream>) {
        if self.is_on() && upstream.health().checks_begin() {
            let running = Running(Arc::downgrade(upstream));
            let check = self.clone();
            tokio::spawn(async move { check.run(running).await });
        }
    }

    async fn run(&self, running: Running) {
        let (mut turn, mut unheard) = (0, None);
        // Between checks the upstream may be dropped from the configuration.
        while let Some(upstream) = running.0.upgrade() {
            let health = upstream.health();
            let started = clock::now();
            if !self.is_down(&upstream) {
                health.probed(started);
            } else if !health.may_probe(Prober::Check, started) {
                let pause = health.until_probe(started);
                drop(upstream);
                sleep(pause).await;
                continue;
            }
            let via = self.turn(&upstream, turn);
            turn = turn.wrapping_add(1);
            let result = self.make(&upstream, via).await;
            let healthy = result.is_ok();
            match result {
                Ok(()) => {
                    let now = clock::now();
                    if let Some(asked) = unheard.filter(|_| via == Via::Stream) {
                        upstream.silence().begin(asked, now);
                    }
                    self.answered(&upstream, via, now);
                }
                Err(why) => {
                    if via == Via::Datagram {
                        unheard = Some(started);
                    }
                    self.upstreams.check_failed(&upstream, &why);
                }
            }
            drop(upstream);
            // The pause after a success keeps a slow upstream from being checked for every slow answer.
            let longest = if healthy { AFTER_SUCCESS } else { Duration::MAX };
            let pause = self.interval.min(longest).mul_f64(rand::rng().random_range(0.8..1.0));
            sleep(pause.saturating_sub(clock::now().duration_since(started))).await;
            if healthy {
                return;
            }
        }
    }

    /// Over what queries go.
    fn usual(&self, upstream: &Upstream) -> Via {
        if upstream.silence().is_on() { Via::Stream } else { upstream.via(self.via) }
    }

    /// Over what the check of this number goes, counted from 0.
    fn turn(&self, upstream: &Upstream, number: u32) -> Via {
        let over_stream = if self.is_down(upstream) {
            (self.usual(upstream) == Via::Stream) != (number % OTHER == 1)
        } else {
            number % 2 == 1
        };
        if over_stream { Via::Stream } else { upstream.via(self.via) }
    }

    /// One check; the error says why it failed.
    async fn make(&self, upstream: &Arc<Upstream>, via: Via) -> Result<(), String> {
        let was_warm = upstream.streams().is_warm();
        // A check is not held back by the cap on packets, but others are held back by it.
        let _ = self.upstreams.budget().packet(false, clock::now());
        let down = self.is_down(upstream);
        let attempt = upstream.attempt(&self.query, via, self.keeping, !down);
        let mut attempt = attempt.map_err(|failure| failure.to_string())?;
        let patience = upstream.patience(self.usual(upstream));
        let limit = if down { *LIMITS.end() } else { (patience * 2).clamp(*LIMITS.start(), *LIMITS.end()) };
        let mut wrong = 0;
        let answer = poll_fn(|cx| attempt.poll(cx, &self.query, upstream.tally(), &mut wrong));
        match timeout(limit, answer).await {
            Ok(Event::Answer(_)) => Ok(()),
            Ok(Event::Failed(failure)) => Err(failure.to_string()),
            Ok(Event::Spoiled) => Err("an answer that cannot be read".to_owned()),
            Ok(Event::Forged) => Err("answers to other questions".to_owned()),
            Err(_) => {
                // A connection that was opened only just may yet be the one that works.
                if was_warm && let Attempt::Stream(question) = &attempt {
                    upstream.streams().distrust(question);
                }
                Err(format!("no answer within {} ms", limit.as_millis()))
            }
        }
    }
}

/// That a check is running; ends with it, also when its runtime ends.
struct Running(Weak<Upstream>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(upstream) = self.0.upgrade() {
            upstream.health().checks_end();
        }
    }
}

fn ns_query(domain: &Name, recursion_desired: bool) -> Vec<u8> {
    Outgoing { recursion_desired, ..Outgoing::plain(domain.as_wire(), Type::NS, Class::IN) }.to_wire(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::Query;

    #[test]
    fn a_check_asks_for_name_servers() {
        let query = ns_query(&Name::parse("cluster.local").unwrap(), true);
        let parsed = Query::parse(&query).expect("a well-formed query");
        assert_eq!(parsed.name(), b"\x07cluster\x05local\x00");
        assert_eq!((parsed.qtype, parsed.qclass), (Type::NS, Class::IN));
        assert!(parsed.recursion_desired());
        let query = ns_query(&Name::root(), false);
        assert!(!Query::parse(&query).expect("a well-formed query").recursion_desired());
    }
}
