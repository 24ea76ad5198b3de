//! The upstreams of one `forward` line, and the way a question takes to them.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rand::seq::SliceRandom;

use super::check::Check;
use super::exchange::Exchange;
use super::failure::Failure;
use super::health::Prober;
use super::selection::{Candidate, MAX_ATTEMPTS, Rules, Selection, Via};
use super::spec::{MAX_UPSTREAMS, Policy, PoolSpec};
use super::transport::tcp::Keeping;
use super::transport::tls::{CertificateError, Certificates};
use super::{Address, Transport, Upstream, Upstreams};
use crate::dns::{self, Protocol, Rcode};
use crate::sys::clock;

/// A client over UDP gets a truncated answer when asking others for the whole one has not helped for so long.
const COMPLETION: Duration = Duration::from_secs(2);
/// How long a question that probes an upstream waits for it.
const PROBE_LIMIT: Duration = Duration::from_millis(1500);

/// The upstreams of one `forward` line. Shared by all workers; each asks from its own runtime.
#[derive(Debug)]
pub struct Pool {
    members: ArcSwap<Vec<Arc<Upstream>>>,
    upstreams: Upstreams,
    certificates: Option<Certificates>,
    server_name: Option<String>,
    source: Option<IpAddr>,
    policy: Policy,
    plain_via: Via,
    failover: Vec<Rcode>,
    failfast: bool,
    attempts: usize,
    read_timeout: Option<Duration>,
    keeping: Keeping,
    check: Arc<Check>,
    turn: AtomicUsize,
    max_concurrent: Option<usize>,
    in_progress: AtomicUsize,
}

/// One question for a pool.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The complete query with our own OPT, opcode QUERY and one question. Its ID is replaced on the way, and is the
    /// ID of the response.
    pub query: &'a [u8],
    /// How the client asked. A truncated answer that cannot be completed over TCP is good for a UDP client only.
    pub client: dns::Protocol,
    /// When to give up.
    pub budget: Instant,
    /// Until when [`Exchange::linger`] takes an answer that is only late.
    pub deadline: Instant,
    /// Whether somebody waits for the answer; who comes later sets it. A question that nobody waits for gives way: it is
    /// sent to one upstream at a time, and less often.
    pub awaited: &'a AtomicBool,
}

impl Ask<'_> {
    pub(crate) fn is_awaited(&self) -> bool {
        self.awaited.load(Relaxed)
    }
}

/// A response and where it came from.
#[derive(Debug)]
pub struct Exchanged {
    /// The whole message; it answers the question that was asked. TC=1 only where TCP did not bring the rest.
    pub wire: Vec<u8>,
    /// Who answered.
    pub upstream: Arc<Upstream>,
    /// How long the exchange took, earlier attempts included.
    pub took: Duration,
}

/// Why a pool cannot be built.
#[derive(Debug)]
pub enum BuildError {
    /// No upstreams.
    NoAddresses,
    /// More than [`MAX_UPSTREAMS`] upstreams.
    TooMany(usize),
    /// The certificates cannot be used.
    Certificate(CertificateError),
}

impl Pool {
    /// Builds the pool of a `forward` line. `addresses` are its targets with the files among them read. Loads the
    /// certificates the line names; upstreams known to `upstreams` keep what was learnt about them.
    pub fn new(spec: &PoolSpec, addresses: &[Address], upstreams: &Upstreams) -> Result<Arc<Pool>, BuildError> {
        let tls_wanted = spec.tls.ca.is_some()
            || spec.tls.identity.is_some()
            || addresses.iter().any(|address| address.transport == Transport::Tls);
        let certificates = tls_wanted.then(|| Certificates::load(&spec.tls)).transpose()?;
        let keeping = Keeping {
            expire: spec.expire,
            max_age: spec.max_age,
            connections: spec.max_idle_conns.filter(|count| *count != 0).unwrap_or(usize::MAX),
        };
        let attempts = match spec.max_connect_attempts {
            None | Some(0) => MAX_ATTEMPTS,
            Some(limit) => MAX_ATTEMPTS.min(limit as usize),
        };
        let pool = Pool {
            members: ArcSwap::default(),
            upstreams: upstreams.clone(),
            certificates,
            server_name: spec.tls.server_name.clone(),
            source: spec.source_address,
            policy: spec.policy,
            plain_via: if spec.force_tcp { Via::Stream } else { Via::Datagram },
            failover: spec.failover.clone(),
            failfast: spec.failfast,
            attempts,
            read_timeout: spec.read_timeout,
            keeping,
            check: Arc::new(Check::new(spec, keeping, upstreams)),
            turn: AtomicUsize::new(0),
            max_concurrent: spec.max_concurrent.filter(|limit| *limit != 0),
            in_progress: AtomicUsize::new(0),
        };
        pool.set_addresses(addresses)?;
        let pool = Arc::new(pool);
        upstreams.watch(&pool);
        Ok(pool)
    }

    /// Asks these upstreams from now on; exchanges in progress go on with the old ones. On an error nothing changes.
    /// TLS addresses need a pool that was built with some, or with certificates.
    pub fn set_addresses(&self, addresses: &[Address]) -> Result<(), BuildError> {
        let mut members: Vec<Arc<Upstream>> = Vec::with_capacity(addresses.len());
        for address in addresses {
            let mut address = address.clone();
            if address.transport == Transport::Tls && address.server_name.is_none() {
                address.server_name.clone_from(&self.server_name);
            }
            let upstream = self.upstreams.get(address, self.source, self.certificates.as_ref(), self.plain_via)?;
            if !members.iter().any(|member| Arc::ptr_eq(member, &upstream)) {
                members.push(upstream);
            }
        }
        match members.len() {
            0 => return Err(BuildError::NoAddresses),
            1..=MAX_UPSTREAMS => {}
            many => return Err(BuildError::TooMany(many)),
        }
        let before = self.members.swap(Arc::new(members));
        if !before.is_empty() && !is_same_set(&before, &self.members.load()) {
            self.upstreams.replaced();
        }
        Ok(())
    }

    /// The upstreams as configured now.
    pub fn members(&self) -> Arc<Vec<Arc<Upstream>>> {
        self.members.load_full()
    }

    /// Whether it asks the same upstreams as `other`, in whatever order.
    pub fn asks_like(&self, other: &Pool) -> bool {
        is_same_set(&self.members.load(), &other.members.load())
    }

    /// Asks the question until there is a response, nobody is left to ask, or the deadline has come. Must be called
    /// on a tokio runtime with I/O and time.
    pub async fn exchange(&self, ask: Ask<'_>) -> Result<Exchanged, Failure> {
        self.begin(ask)?.run().await
    }

    /// The same in parts, for who wants to wait on when that has failed.
    pub fn begin<'a>(&'a self, ask: Ask<'a>) -> Result<Exchange<'a>, Failure> {
        let place = self.enter()?;
        let now = clock::now();
        let members = self.members.load_full();
        let selection = self.select(&members, &ask, now)?;
        Ok(Exchange::new(self, members, ask, selection, now, place))
    }

    /// Whether every upstream is down: asking brings a failure at once, but for a rare question that is let through.
    pub fn is_down(&self) -> bool {
        self.members.load().iter().all(|upstream| self.check.is_down(upstream))
    }

    /// Whether this upstream is one of its own, and down.
    pub(crate) fn passes_by(&self, upstream: &Upstream) -> bool {
        self.check.is_down(upstream) && self.members.load().iter().any(|own| std::ptr::eq(Arc::as_ptr(own), upstream))
    }

    /// As [`Upstreams::recoveries`], of the registry this pool was made with.
    pub fn recoveries(&self) -> u64 {
        self.upstreams.recoveries()
    }

    pub(crate) fn upstreams(&self) -> &Upstreams {
        &self.upstreams
    }

    pub(crate) fn keeping(&self) -> Keeping {
        self.keeping
    }

    pub(crate) fn check(&self) -> &Arc<Check> {
        &self.check
    }

    /// Whether a response with this RCODE moves on to the next upstream.
    pub(crate) fn fails_over(&self, rcode: Rcode) -> bool {
        self.failover.contains(&rcode)
    }

    fn enter(&self) -> Result<Place<'_>, Failure> {
        let place = Place(&self.in_progress);
        let others = self.in_progress.fetch_add(1, Relaxed);
        match self.max_concurrent {
            Some(limit) if others >= limit => {
                self.upstreams.totals().reject();
                Err(Failure::Overloaded { limit })
            }
            _ => Ok(place),
        }
    }

    /// Who may be asked, in which order, and whether that is one that is down, to see whether it still is.
    fn select(&self, members: &[Arc<Upstream>], ask: &Ask<'_>, now: Instant) -> Result<(Selection, bool), Failure> {
        let mut order = [0; MAX_UPSTREAMS];
        let order = self.order(members, &mut order);
        // What cannot be sent must not use up the turn of a probe.
        let sendable = self.upstreams.budget().has_packet(!ask.is_awaited(), now);
        let mut ranks = [Rank::Down; MAX_UPSTREAMS];
        for (rank, upstream) in ranks.iter_mut().zip(members) {
            *rank = self.rank(upstream, members.len() == 1, sendable, now);
        }
        order.sort_by_key(|member| ranks[usize::from(*member)].turn());
        let mut rules = Rules {
            attempts: self.attempts,
            background: !ask.is_awaited(),
            read_timeout: self.read_timeout,
            complete_by: if ask.client == Protocol::Udp { now + COMPLETION } else { ask.budget },
            budget: ask.budget,
            deadline: ask.deadline,
        };
        let mut up = order.iter().filter(|member| ranks[usize::from(**member)] != Rank::Down).count();
        let probe = up == 0;
        if probe {
            let member = self.probe(members, order, sendable, now)?;
            order[0] = member;
            up = 1;
            rules.attempts = 1;
            rules.deadline = rules.deadline.min(now + PROBE_LIMIT);
        }
        let none = Candidate { member: 0, via: Via::Datagram, patience: Duration::ZERO, trial: false };
        let mut candidates = [none; MAX_UPSTREAMS];
        for (candidate, member) in candidates.iter_mut().zip(&order[..up]) {
            let index = usize::from(*member);
            *candidate = self.candidate(*member, &members[index], ranks[index] == Rank::Trial, now);
        }
        Ok((Selection::new(&candidates[..up], rules, now), probe))
    }

    /// With every upstream down: the one that this question may probe.
    fn probe(&self, members: &[Arc<Upstream>], order: &[u8], sendable: bool, now: Instant) -> Result<u8, Failure> {
        self.upstreams.totals().broken();
        if self.failfast {
            return Err(Failure::NoHealthy);
        }
        if !sendable {
            self.upstreams.budget().pace();
            return Err(Failure::Paced);
        }
        let may = |member: &u8| members[usize::from(*member)].health().may_probe(Prober::Query, now);
        order.iter().copied().find(may).ok_or(Failure::NoHealthy)
    }

    fn rank(&self, upstream: &Arc<Upstream>, alone: bool, sendable: bool, now: Instant) -> Rank {
        let health = upstream.health();
        if health.is_doubtful() {
            // Checks end with the runtime they were started on.
            self.check.start(upstream);
            return match (self.check.is_down(upstream), self.check.is_on()) {
                (true, _) => Rank::Down,
                // Without checks it has to be asked in its turn now and then, or it would never be used again.
                (false, false) if !alone && sendable && health.may_probe(Prober::LoneQuery, now) => Rank::Sound,
                (false, _) => Rank::Doubtful,
            };
        }
        match health.mostly_fails() && !alone {
            false => Rank::Sound,
            true if sendable && health.may_probe(Prober::LoneQuery, now) => Rank::Trial,
            true => Rank::Failing,
        }
    }

    fn candidate(&self, member: u8, upstream: &Arc<Upstream>, trial: bool, now: Instant) -> Candidate {
        let via = self.check.via(upstream, now);
        Candidate { member, via, patience: upstream.patience(via), trial }
    }

    fn order<'o>(&self, members: &[Arc<Upstream>], space: &'o mut [u8; MAX_UPSTREAMS]) -> &'o mut [u8] {
        let count = members.len();
        let order = &mut space[..count];
        for (index, member) in (0..).zip(order.iter_mut()) {
            *member = index;
        }
        match self.policy {
            Policy::Sequential => {}
            Policy::Random if count > 1 => order.shuffle(&mut rand::rng()),
            Policy::Random => {}
            // The counter starts at the second upstream, as in CoreDNS; the rest follow as written.
            Policy::RoundRobin => {
                let first = self.turn.fetch_add(1, Relaxed).wrapping_add(1) % count;
                order[..=first].rotate_right(1);
            }
        }
        order
    }
}

/// Lists without doubles.
fn is_same_set(some: &[Arc<Upstream>], others: &[Arc<Upstream>]) -> bool {
    some.len() == others.len() && some.iter().all(|one| others.iter().any(|other| Arc::ptr_eq(one, other)))
}

/// What is thought of an upstream when a question is about to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rank {
    /// It answers.
    Sound,
    /// It answered with SERVFAIL; it is asked in its turn to see whether it still does.
    Trial,
    /// It answers with SERVFAIL.
    Failing,
    /// It may not answer.
    Doubtful,
    /// It does not answer.
    Down,
}

impl Rank {
    /// Lower ones are asked first.
    fn turn(self) -> u8 {
        match self {
            Rank::Sound | Rank::Trial => 0,
            Rank::Failing => 1,
            Rank::Doubtful => 2,
            Rank::Down => 3,
        }
    }
}

/// A place among the queries in progress.
pub(crate) struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl From<CertificateError> for BuildError {
    fn from(error: CertificateError) -> BuildError {
        BuildError::Certificate(error)
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildError::NoAddresses => out.write_str("no upstreams to forward to"),
            BuildError::TooMany(_) => write!(out, "more than {MAX_UPSTREAMS} TOs configured"),
            BuildError::Certificate(error) => error.fmt(out),
        }
    }
}

impl std::error::Error for BuildError {}
