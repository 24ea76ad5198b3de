//! One upstream and everything that is known about it, shared by every pool that asks it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::budget::Budget;
use super::edns;
use super::failure::{Failure, Leg, Network, Stage};
use super::health::Health;
use super::selection::Via;
use super::silence::Silence;
use super::tally::Tally;
use super::transport::tcp::{Keeping, Streams};
use super::transport::{Attempt, tls, udp};
use super::{Address, Transport};
use crate::sys::clock;

/// One upstream: its address, its health, its round-trip time, its connections.
#[derive(Debug)]
pub struct Upstream {
    address: Address,
    source: Option<IpAddr>,
    tls: Option<tls::Client>,
    tally: Arc<Tally>,
    budget: Arc<Budget>,
    health: Health,
    round_trip: RoundTrip,
    edns: edns::Memory,
    silence: Silence,
    streams: Streams,
}

impl Upstream {
    pub(crate) fn new(
        address: Address,
        source: Option<IpAddr>,
        tls: Option<tls::Client>,
        tally: Arc<Tally>,
        budget: Arc<Budget>,
    ) -> Upstream {
        let now = clock::now();
        Upstream {
            address,
            source,
            tls,
            tally,
            budget,
            health: Health::new(now),
            round_trip: RoundTrip::default(),
            edns: edns::Memory::default(),
            silence: Silence::new(now),
            streams: Streams::default(),
        }
    }

    /// Where it is; the server name is the one its certificate must carry.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What happened with it.
    pub(crate) fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// Failed checks in a row; 0 while it is healthy. It is down above the `max_fails` of the pool that asks.
    pub fn failed_checks(&self) -> u32 {
        self.health.fails()
    }

    /// The smoothed round-trip time, once something was measured.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip.read().map(|(smoothed, _)| smoothed)
    }

    /// TCP or TLS connections that take questions now.
    pub fn connections(&self) -> usize {
        self.streams.count()
    }

    /// What may be sent to all upstreams together.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Whether it is asked without EDNS.
    pub(crate) fn edns(&self) -> &edns::Memory {
        &self.edns
    }

    /// Whether it answers over connections only.
    pub(crate) fn silence(&self) -> &Silence {
        &self.silence
    }

    pub(crate) fn health(&self) -> &Health {
        &self.health
    }

    pub(crate) fn streams(&self) -> &Streams {
        &self.streams
    }

    pub(crate) fn tls(&self) -> Option<&tls::Client> {
        self.tls.as_ref()
    }

    pub(crate) fn source(&self) -> Option<IpAddr> {
        self.source
    }

    /// Over what it is asked, where classic DNS would go over `plain`.
    pub(crate) fn via(&self, plain: Via) -> Via {
        match self.address.transport {
            Transport::Plain => plain,
            Transport::Tls => Via::Stream,
        }
    }

    /// The address to send to, the scope of a named zone looked up now.
    pub(crate) fn target(&self) -> io::Result<SocketAddr> {
        let mut target = self.address.socket;
        if let (Some(zone), SocketAddr::V6(v6)) = (&self.address.zone, &mut target) {
            v6.set_scope_id(nix::net::if_::if_nametoindex(zone.as_str())?);
        }
        Ok(target)
    }

    pub(crate) fn stream_network(&self) -> Network {
        if self.tls.is_some() { Network::Tls } else { Network::Tcp }
    }

    /// The leg of a connection that is not open yet.
    pub(crate) fn stream_leg(&self) -> Leg {
        Leg { stage: Stage::Dial, network: self.stream_network(), local: None, remote: self.address.socket }
    }

    /// Asks `query` over `via`. `again` as in [`Streams::ask`].
    pub(crate) fn attempt(
        self: &Arc<Upstream>,
        query: &[u8],
        via: Via,
        keeping: Keeping,
        again: bool,
    ) -> Result<Attempt, Failure> {
        match via {
            Via::Stream => self.streams.ask(self, query, keeping, again).map(Attempt::Stream),
            Via::Datagram => {
                let leg = Leg { stage: Stage::Dial, network: Network::Udp, local: None, remote: self.address.socket };
                let target = self.target().map_err(|error| Failure::from_io(&error, leg))?;
                self.tally.connection(Network::Udp, false);
                udp::Question::ask(query, target, self.source).map(Attempt::Datagram)
            }
        }
    }

    /// How long to wait for an answer before somebody else is asked as well.
    pub(crate) fn patience(&self, via: Via) -> Duration {
        let measured = self.round_trip.patience();
        match via {
            Via::Datagram => measured,
            Via::Stream if self.streams.is_warm() => measured.max(WARM_PATIENCE),
            Via::Stream => COLD_PATIENCE,
        }
    }

    /// An answer took this long.
    pub(crate) fn measured(&self, took: Duration) {
        self.round_trip.sample(took);
    }
}

/// Patience with an upstream of which nothing is known.
const UNKNOWN_PATIENCE: Duration = Duration::from_millis(400);
/// Bounds of patience over UDP.
const PATIENCE: std::ops::RangeInclusive<Duration> = Duration::from_millis(80)..=Duration::from_secs(1);
/// The least patience over an open connection, where the kernel repeats what gets lost, after 200 ms at the earliest.
const WARM_PATIENCE: Duration = Duration::from_millis(300);
/// Patience over a connection that has to be opened first.
const COLD_PATIENCE: Duration = Duration::from_secs(1);

/// Smoothed round-trip time and its deviation (RFC 6298 section 2), in microseconds, in the halves of one word. Two
/// workers that write at once lose a sample, which does no harm.
#[derive(Debug, Default)]
struct RoundTrip(AtomicU64);

impl RoundTrip {
    fn read(&self) -> Option<(Duration, Duration)> {
        let word = self.0.load(Relaxed);
        let micros = |half: u64| Duration::from_micros(half & u64::from(u32::MAX));
        (word != 0).then(|| (micros(word >> 32), micros(word)))
    }

    fn sample(&self, took: Duration) {
        let (smoothed, deviation) = match self.read() {
            None => (took, took / 2),
            Some((smoothed, deviation)) => ((smoothed * 7 + took) / 8, (deviation * 3 + smoothed.abs_diff(took)) / 4),
        };
        let half = |value: Duration| value.as_micros().clamp(1, u128::from(u32::MAX)) as u64;
        self.0.store(half(smoothed) << 32 | half(deviation), Relaxed);
    }

    fn patience(&self) -> Duration {
        match self.read() {
            None => UNKNOWN_PATIENCE,
            Some((smoothed, deviation)) => (smoothed + deviation * 4).clamp(*PATIENCE.start(), *PATIENCE.end()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_follows_the_measured_round_trip_within_its_bounds() {
        let round_trip = RoundTrip::default();
        assert_eq!(round_trip.patience(), UNKNOWN_PATIENCE);
        (0..20).for_each(|_| round_trip.sample(Duration::from_millis(1)));
        assert_eq!(round_trip.patience(), *PATIENCE.start());
        (0..50).for_each(|_| round_trip.sample(Duration::from_millis(300)));
        assert!((Duration::from_millis(300)..Duration::from_millis(400)).contains(&round_trip.patience()));
        (0..50).for_each(|_| round_trip.sample(Duration::from_secs(5)));
        assert_eq!(round_trip.patience(), *PATIENCE.end());
    }

    #[test]
    fn a_zone_without_interface_is_told_before_anything_is_sent() {
        let address = Address::parse("fe80::1%no-such-if0").unwrap();
        let tally = Arc::new(Tally::new(address.label()));
        let budget = Arc::new(Budget::new(0, clock::now()));
        let upstream = Upstream::new(address, None, None, tally, budget);
        let leg = upstream.stream_leg();
        assert!(matches!(Failure::from_io(&upstream.target().unwrap_err(), leg), Failure::Local(..)));
    }
}
