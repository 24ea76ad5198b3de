//! Whether the sockets answer, judged from probes: which addresses may be intercepted, and when the server is wedged.
//!
//! A probe asks again and again for a second from one port, so that it stays with one worker's socket. One that gets no
//! answer in that time takes its address out; the address comes back after several probes in a row were answered, since
//! each reaches another worker at random. Where addresses that did answer stay out, the server is wedged.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::dns::Protocol;

/// Probes over UDP that must be answered in a row after one was not.
const CONVINCING: u32 = 5;
/// An address that answered and is out for so long is a reason to end the server.
const WEDGED: Duration = Duration::from_secs(2);

/// What is known of each probed address. It reads no clock.
#[derive(Debug, Default)]
pub(super) struct Watchdog {
    addresses: BTreeMap<SocketAddr, Record>,
}

#[derive(Debug, Default)]
struct Record {
    udp: Streak,
    tcp: Streak,
    /// Since when it is out, if it has answered this server before.
    out: Option<Instant>,
    up: bool,
}

#[derive(Debug, Default)]
struct Streak {
    answered: u32,
    /// It failed before, so more than one answer is needed.
    doubted: bool,
}

impl Watchdog {
    /// The addresses to judge; what is known of those that stay is kept.
    pub(super) fn watch(&mut self, addresses: &BTreeSet<SocketAddr>) {
        self.addresses.retain(|address, _| addresses.contains(address));
        for address in addresses {
            self.addresses.entry(*address).or_default();
        }
    }

    /// Another server takes over: an address that is out has to convince from the beginning, and whatever is up stays up
    /// until a probe fails, since queries wait in its socket.
    pub(super) fn replaced(&mut self) {
        for record in self.addresses.values_mut().filter(|record| !record.up) {
            *record = Record::default();
        }
    }

    /// A probe ended.
    pub(super) fn heard(&mut self, address: SocketAddr, protocol: Protocol, answered: bool, now: Instant) {
        let Some(record) = self.addresses.get_mut(&address) else { return };
        let streak = if protocol == Protocol::Udp { &mut record.udp } else { &mut record.tcp };
        if !answered {
            // One that never answered may just be coming up.
            *streak = Streak { answered: 0, doubted: record.up || record.out.is_some() };
            if record.up {
                record.up = false;
                record.out = Some(now);
            }
            return;
        }
        streak.answered = streak.answered.saturating_add(1);
        let enough = if record.udp.doubted { CONVINCING } else { 1 };
        if !record.up && record.udp.answered >= enough && record.tcp.answered >= 1 {
            *record = Record { udp: Streak::default(), tcp: Streak::default(), out: None, up: true };
        }
    }

    /// The addresses that answer.
    pub(super) fn up(&self) -> BTreeSet<SocketAddr> {
        self.addresses.iter().filter(|(_, record)| record.up).map(|(address, _)| *address).collect()
    }

    /// There are addresses, and none of them answers.
    pub(super) fn is_mute(&self) -> bool {
        !self.addresses.is_empty() && self.addresses.values().all(|record| !record.up)
    }

    /// An address that answered this server and has been out for long.
    pub(super) fn wedged(&self, now: Instant) -> Option<SocketAddr> {
        let long = |record: &Record| record.out.is_some_and(|since| now.saturating_duration_since(since) >= WEDGED);
        self.addresses.iter().find(|(_, record)| long(record)).map(|(address, _)| *address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;

    const UDP: Protocol = Protocol::Udp;
    const TCP: Protocol = Protocol::Tcp;

    fn address() -> SocketAddr {
        "169.254.20.10:53".parse().unwrap()
    }

    fn watching() -> (Watchdog, Instant) {
        let mut watchdog = Watchdog::default();
        watchdog.watch(&BTreeSet::from([address()]));
        (watchdog, clock::now())
    }

    fn is_up(watchdog: &Watchdog) -> bool {
        watchdog.up().contains(&address())
    }

    #[test]
    fn both_transports_must_answer_once_at_first() {
        let (mut watchdog, now) = watching();
        watchdog.heard(address(), UDP, true, now);
        assert!(!is_up(&watchdog));
        watchdog.heard(address(), TCP, true, now);
        assert!(is_up(&watchdog));
        watchdog.heard("192.0.2.1:53".parse().unwrap(), UDP, true, now);
        assert_eq!(watchdog.up().len(), 1, "one that is not watched does not count");
    }

    #[test]
    fn after_a_failure_several_answers_are_needed() {
        for failing in [UDP, TCP] {
            let (mut watchdog, now) = watching();
            watchdog.heard(address(), UDP, false, now);
            watchdog.heard(address(), UDP, true, now);
            watchdog.heard(address(), TCP, true, now);
            assert!(is_up(&watchdog), "what failed before the first answer does not count");
            watchdog.heard(address(), failing, false, now);
            assert!(!is_up(&watchdog));
            watchdog.heard(address(), UDP, false, now);
            for answers in 1..=CONVINCING {
                watchdog.heard(address(), TCP, true, now);
                watchdog.heard(address(), UDP, true, now);
                assert_eq!(is_up(&watchdog), answers == CONVINCING, "{answers}");
            }
            assert_eq!(watchdog.wedged(now + 10 * WEDGED), None);
        }
    }

    #[test]
    fn one_that_answered_and_stays_out_is_wedged_and_one_that_never_did_is_not() {
        let (mut watchdog, now) = watching();
        watchdog.heard(address(), UDP, false, now);
        assert_eq!(watchdog.wedged(now + 10 * WEDGED), None);
        watchdog.replaced();
        watchdog.heard(address(), UDP, true, now);
        watchdog.heard(address(), TCP, true, now);
        watchdog.heard(address(), UDP, false, now);
        // Every other probe reaches a worker that is well.
        watchdog.heard(address(), UDP, true, now);
        watchdog.heard(address(), UDP, false, now + WEDGED / 2);
        assert_eq!(watchdog.wedged(now + WEDGED / 2), None);
        assert_eq!(watchdog.wedged(now + WEDGED), Some(address()));
        watchdog.replaced();
        assert_eq!(watchdog.wedged(now + 10 * WEDGED), None, "the next server is judged anew");
    }

    #[test]
    fn a_server_that_is_replaced_in_time_is_not_noticed() {
        let (mut watchdog, now) = watching();
        watchdog.heard(address(), UDP, true, now);
        watchdog.heard(address(), TCP, true, now);
        watchdog.replaced();
        assert!(is_up(&watchdog));
        watchdog.watch(&BTreeSet::new());
        assert!(!is_up(&watchdog));
    }
}
