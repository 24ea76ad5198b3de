//! Whether the sockets answer, judged from probes: which addresses may be intercepted, and when the server is wedged.
//!
//! A probe asks again and again for a second from one port, so that it stays with one worker's socket. One that gets no
//! answer in that time takes its address out; the address comes back after several probes in a row were answered, since
//! each reaches another worker at random. The server is wedged where nothing answers any more, where an address that did
//! answer stays out for long, or where it goes out again and again, as with one worker of many. An address that left the
//! machine, or whose packets are led to another server, is out too, and no fault of the server.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::dns::Protocol;
use crate::observe::probe::Failure;

/// Probes over UDP that must be answered in a row after one was not.
const CONVINCING: u32 = 5;
/// An address is out, and since then nothing has answered anywhere.
const MUTE: Duration = Duration::from_secs(2);
/// An address is out, whatever else answers.
const LONG: Duration = Duration::from_secs(10);
/// An address that goes out so often in [`A_WHILE`] has a worker that is wedged.
const OFTEN: u32 = 3;
const A_WHILE: Duration = Duration::from_secs(60);

/// What is known of each probed address. It reads no clock.
#[derive(Debug, Default)]
pub(super) struct Watchdog {
    addresses: BTreeMap<SocketAddr, Record>,
    /// When any probe was last answered over UDP.
    answered: Option<Instant>,
}

#[derive(Debug, Default)]
struct Record {
    up: bool,
    /// Answers in a row over UDP, and whether there was one over TCP.
    udp: u32,
    tcp: bool,
    /// Since when it is out, if it has answered this server before.
    out: Option<Instant>,
    /// When it first went out of late, and how often since then.
    outages: Option<(Instant, u32)>,
    /// What a probe over each transport last failed with, if it did.
    failure: Option<(Protocol, Failure)>,
}

impl Watchdog {
    /// The addresses to judge; what is known of those that stay is kept.
    pub(super) fn watch(&mut self, addresses: &BTreeSet<SocketAddr>) {
        self.addresses.retain(|address, _| addresses.contains(address));
        for address in addresses {
            self.addresses.entry(*address).or_default();
        }
    }

    /// Another server takes over. What is up stays up until a probe fails, since queries wait in its socket; the rest is
    /// judged as if it had never been asked.
    pub(super) fn replaced(&mut self) {
        for record in self.addresses.values_mut() {
            *record = Record { up: record.up, ..Record::default() };
        }
    }

    /// A probe ended.
    pub(super) fn heard(
        &mut self,
        address: SocketAddr,
        protocol: Protocol,
        result: &Result<Duration, Failure>,
        now: Instant,
    ) {
        let Some(record) = self.addresses.get_mut(&address) else { return };
        match (result, protocol) {
            (Ok(_), Protocol::Udp) => {
                self.answered = Some(now);
                record.udp = record.udp.saturating_add(1);
            }
            (Ok(_), Protocol::Tcp) => record.tcp = true,
            (Err(Failure::Absent | Failure::Foreign), _) => *record = Record::default(),
            // The server is alive and takes no more connections from this machine.
            (Err(Failure::Closed), Protocol::Tcp) => {}
            (Err(Failure::Silence | Failure::Network(_) | Failure::Closed), _) => record.fail(now),
        }
        match result {
            Err(failure) => record.failure = Some((protocol, failure.clone())),
            Ok(_) if record.failure.as_ref().is_some_and(|(over, _)| *over == protocol) => record.failure = None,
            Ok(_) => {}
        }
        record.recover();
    }

    /// Why addresses do not answer, where that is known.
    pub(super) fn failures(&self) -> BTreeMap<SocketAddr, (Protocol, Failure)> {
        let failed = self.addresses.iter().filter(|(_, record)| !record.up);
        failed.filter_map(|(address, record)| Some((*address, record.failure.clone()?))).collect()
    }

    /// The addresses that answer.
    pub(super) fn up(&self) -> BTreeSet<SocketAddr> {
        self.addresses.iter().filter(|(_, record)| record.up).map(|(address, _)| *address).collect()
    }

    /// There are addresses, and none of them answers.
    pub(super) fn is_mute(&self) -> bool {
        !self.addresses.is_empty() && self.addresses.values().all(|record| !record.up)
    }

    /// An address that answered this server and no longer does as it should.
    pub(super) fn wedged(&self, now: Instant) -> Option<SocketAddr> {
        let is_wedged = |record: &Record| {
            let out_for = |time| record.out.is_some_and(|since| now.saturating_duration_since(since) >= time);
            let mute = record.out.is_some_and(|since| self.answered.is_none_or(|answered| answered < since));
            let often = record.out.is_some() && record.outages.is_some_and(|(_, times)| times >= OFTEN);
            (mute && out_for(MUTE)) || out_for(LONG) || often
        };
        self.addresses.iter().find(|(_, record)| is_wedged(record)).map(|(address, _)| *address)
    }
}

impl Record {
    fn fail(&mut self, now: Instant) {
        (self.udp, self.tcp) = (0, false);
        if !self.up {
            return;
        }
        (self.up, self.out) = (false, Some(now));
        let recent = self.outages.filter(|(first, _)| now.saturating_duration_since(*first) < A_WHILE);
        self.outages = Some(recent.map_or((now, 1), |(first, times)| (first, times + 1)));
    }

    fn recover(&mut self) {
        // One that never answered may just be coming up: a first answer is enough.
        let enough = if self.out.is_some() { CONVINCING } else { 1 };
        if !self.up && self.udp >= enough && self.tcp {
            (self.up, self.out) = (true, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;

    const UDP: Protocol = Protocol::Udp;
    const TCP: Protocol = Protocol::Tcp;
    const ANSWER: Result<Duration, Failure> = Ok(Duration::ZERO);
    const SILENCE: Result<Duration, Failure> = Err(Failure::Silence);

    fn address() -> SocketAddr {
        "169.254.20.10:53".parse().unwrap()
    }

    fn other() -> SocketAddr {
        "10.96.0.10:53".parse().unwrap()
    }

    /// Both addresses are up.
    fn watching() -> (Watchdog, Instant) {
        let (mut watchdog, now) = (Watchdog::default(), clock::now());
        watchdog.watch(&BTreeSet::from([address(), other()]));
        for address in [address(), other()] {
            answer(&mut watchdog, address, 1, now);
        }
        (watchdog, now)
    }

    fn answer(watchdog: &mut Watchdog, address: SocketAddr, times: u32, now: Instant) {
        watchdog.heard(address, TCP, &ANSWER, now);
        (0..times).for_each(|_| watchdog.heard(address, UDP, &ANSWER, now));
    }

    fn is_up(watchdog: &Watchdog) -> bool {
        watchdog.up().contains(&address())
    }

    #[test]
    fn both_transports_must_answer_once_at_first_whatever_failed_before() {
        let (mut watchdog, now) = (Watchdog::default(), clock::now());
        watchdog.watch(&BTreeSet::from([address()]));
        for failure in [Failure::Silence, Failure::Absent, Failure::Foreign] {
            watchdog.heard(address(), UDP, &Err(failure), now);
        }
        watchdog.heard(address(), UDP, &ANSWER, now);
        assert!(!is_up(&watchdog));
        watchdog.heard(address(), TCP, &ANSWER, now);
        assert!(is_up(&watchdog));
        watchdog.heard(other(), UDP, &ANSWER, now);
        assert_eq!(watchdog.up().len(), 1, "one that is not watched does not count");
    }

    #[test]
    fn after_silence_several_answers_are_needed() {
        for silent in [UDP, TCP] {
            let (mut watchdog, now) = watching();
            watchdog.heard(address(), silent, &SILENCE, now);
            assert!(!is_up(&watchdog));
            watchdog.heard(address(), TCP, &ANSWER, now);
            for answers in 1..=CONVINCING {
                watchdog.heard(address(), UDP, &ANSWER, now);
                assert_eq!(is_up(&watchdog), answers == CONVINCING, "{answers}");
            }
            assert_eq!(watchdog.wedged(now + 2 * LONG), None);
        }
    }

    #[test]
    fn a_server_that_answers_nowhere_is_wedged_soon_and_one_that_answers_elsewhere_later() {
        let (mut watchdog, now) = watching();
        let later = now + Duration::from_millis(1);
        watchdog.heard(address(), UDP, &SILENCE, later);
        assert_eq!(watchdog.wedged(later), None);
        assert_eq!(watchdog.wedged(later + MUTE), Some(address()));
        watchdog.heard(other(), UDP, &ANSWER, later);
        assert_eq!(watchdog.wedged(later + MUTE), None);
        assert_eq!(watchdog.wedged(later + LONG), Some(address()));
        watchdog.replaced();
        assert_eq!(watchdog.wedged(later + 2 * LONG), None, "the next server is judged anew");
        watchdog.heard(address(), UDP, &SILENCE, later);
        assert_eq!(watchdog.wedged(later + 2 * LONG), None, "and has not answered yet");
    }

    #[test]
    fn one_worker_of_many_that_is_wedged_shows_by_outages_that_come_again() {
        let (mut watchdog, now) = watching();
        for outage in 1..=OFTEN {
            let at = now + Duration::from_secs(4) * outage;
            watchdog.heard(address(), UDP, &SILENCE, at);
            assert_eq!(watchdog.wedged(at).is_some(), outage == OFTEN, "{outage}");
            answer(&mut watchdog, address(), CONVINCING, at);
            assert_eq!(watchdog.wedged(at), None, "it answers");
        }
        let (mut watchdog, now) = watching();
        for outage in 1..=10 {
            let at = now + A_WHILE * outage;
            watchdog.heard(address(), UDP, &SILENCE, at);
            assert_eq!(watchdog.wedged(at), None, "once a minute is no pattern");
            answer(&mut watchdog, address(), CONVINCING, at);
        }
    }

    #[test]
    fn an_address_that_left_or_leads_elsewhere_is_out_and_no_fault_of_the_server() {
        for failure in [Failure::Absent, Failure::Foreign] {
            let (mut watchdog, now) = watching();
            watchdog.heard(address(), UDP, &Err(failure), now);
            assert!(!is_up(&watchdog));
            assert_eq!(watchdog.wedged(now + 2 * LONG), None);
        }
    }

    #[test]
    fn a_server_that_takes_no_more_connections_is_alive() {
        let (mut watchdog, now) = watching();
        watchdog.heard(address(), TCP, &Err(Failure::Closed), now);
        assert!(is_up(&watchdog));
    }

    #[test]
    fn a_server_that_is_replaced_in_time_is_not_noticed() {
        let (mut watchdog, _) = watching();
        watchdog.replaced();
        assert!(is_up(&watchdog));
        watchdog.watch(&BTreeSet::new());
        assert!(!is_up(&watchdog));
    }
}
