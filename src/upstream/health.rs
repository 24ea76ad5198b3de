//! Whether an upstream can be asked: found out by asking it once a query has failed, until it answers again.
//!
//! Nothing is probed while all goes well. The first failure starts a check, `<domain> NS`; any response ends it. Each
//! failed check counts, and above `max_fails` the upstream is down: queries pass it by, while checks go on with
//! growing pauses of at most [`LONGEST_PAUSE`], so that it is back soon after it recovers (RFC 2308 section 7.2 allows
//! five minutes). A response to a real query clears it as well.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rand::RngExt;
use tokio::time::{sleep, timeout};

use super::Upstreams;
use super::selection::Via;
use super::server::Upstream;
use super::spec::PoolSpec;
use super::transport::tcp::Keeping;
use super::transport::{Attempt, Event};
use crate::dns::convert::Outgoing;
use crate::dns::{Class, Name, Type};

/// The shortest pause between checks.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between checks, unless `health_check` asks for a longer one.
const LONGEST_PAUSE: Duration = Duration::from_millis(1500);
/// How long a check over UDP waits.
const DATAGRAM_LIMIT: Duration = Duration::from_secs(1);
/// How long a check over TCP or TLS waits, handshakes included.
const STREAM_LIMIT: Duration = Duration::from_secs(2);

/// The health of one upstream, shared by all pools that use it.
#[derive(Debug, Default)]
pub(crate) struct Health {
    fails: AtomicU32,
    checking: AtomicBool,
}

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

impl Health {
    /// Failed checks in a row.
    pub(crate) fn fails(&self) -> u32 {
        self.fails.load(Relaxed)
    }

    /// A response came. Whether checks had failed before, which makes it a recovery.
    #[must_use]
    pub(crate) fn answered(&self) -> bool {
        // Reading first keeps the line shared between workers while all is well.
        self.fails() != 0 && self.fails.swap(0, Relaxed) != 0
    }

    fn failed(&self) {
        // Saturation is far above any `max_fails` that makes sense.
        if self.fails() != u32::MAX {
            self.fails.fetch_add(1, Relaxed);
        }
    }
}

impl Check {
    pub(crate) fn new(spec: &PoolSpec, keeping: Keeping, upstreams: &Upstreams) -> Check {
        Check {
            query: ns_query(&spec.health_check.domain, !spec.health_check.no_rec),
            interval: spec.health_check.interval,
            max_fails: spec.max_fails,
            via: if spec.force_tcp { Via::Stream } else { Via::Datagram },
            keeping,
            upstreams: upstreams.clone(),
        }
    }

    /// Whether the upstream is to be passed by.
    pub(crate) fn is_down(&self, upstream: &Upstream) -> bool {
        self.max_fails != 0 && upstream.health().fails() > self.max_fails
    }

    /// A query to the upstream has failed: checks it until it answers, if that is not being done already. Must be
    /// called on a tokio runtime.
    pub(crate) fn start(self: &Arc<Check>, upstream: &Arc<Upstream>) {
        if self.max_fails == 0 || upstream.health().checking.swap(true, Relaxed) {
            return;
        }
        let running = Running(Arc::downgrade(upstream));
        let check = self.clone();
        tokio::spawn(async move { check.run(running).await });
    }

    async fn run(&self, running: Running) {
        let mut pauses = Pauses::from(self.interval);
        // Between checks the upstream may be dropped from the configuration.
        while let Some(upstream) = running.0.upgrade() {
            let healthy = self.passes(&upstream).await;
            if healthy {
                self.upstreams.answered(&upstream);
            } else {
                upstream.health().failed();
                upstream.tally().check_failure();
            }
            drop(upstream);
            // The pause after a success keeps a slow upstream from being checked for every slow answer.
            sleep(pauses.draw()).await;
            if healthy {
                return;
            }
        }
    }

    async fn passes(&self, upstream: &Arc<Upstream>) -> bool {
        let via = upstream.via(self.via);
        let limit = if via == Via::Stream { STREAM_LIMIT } else { DATAGRAM_LIMIT };
        let Ok(mut attempt) = upstream.attempt(&self.query, via, self.keeping, true) else { return false };
        let mut wrong = 0;
        let answer = poll_fn(|cx| attempt.poll(cx, &self.query, upstream.tally(), &mut wrong));
        match timeout(limit, answer).await {
            Ok(event) => matches!(event, Event::Answer(_)),
            Err(_) => {
                if let Attempt::Stream(question) = &attempt {
                    upstream.streams().distrust(question);
                }
                false
            }
        }
    }
}

/// That a check is running; ends with it, also when its runtime ends.
struct Running(Weak<Upstream>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(upstream) = self.0.upgrade() {
            upstream.health().checking.store(false, Relaxed);
        }
    }
}

/// Growing pauses with jitter, so that the nodes of a cluster do not check in step.
struct Pauses {
    next: Duration,
    longest: Duration,
}

impl Pauses {
    /// Starting with the interval of the Corefile, which may ask for no pause at all.
    fn from(interval: Duration) -> Pauses {
        Pauses { next: interval.max(SHORTEST_PAUSE), longest: interval.max(LONGEST_PAUSE) }
    }

    fn draw(&mut self) -> Duration {
        let pause = self.next.mul_f64(rand::rng().random_range(0.8..1.0));
        self.next = (self.next * 3 / 2).min(self.longest);
        pause
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

    #[test]
    fn pauses_grow_to_their_limit_and_never_vanish() {
        let mut pauses = Pauses::from(Duration::from_millis(500));
        let drawn: Vec<Duration> = (0..20).map(|_| pauses.draw()).collect();
        assert!(drawn[0] >= Duration::from_millis(400) && drawn[0] < Duration::from_millis(500));
        assert!(drawn[10..].iter().all(|pause| (Duration::from_millis(1200)..LONGEST_PAUSE).contains(pause)));
        let mut pauses = Pauses::from(Duration::ZERO);
        assert!((0..20).all(|_| pauses.draw() >= Duration::from_millis(80)));
    }
}
