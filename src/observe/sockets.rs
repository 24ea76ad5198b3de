//! What the agent's own listening sockets answered when the agent asked them: the truth behind `/health` and `/ready`.
//!
//! A process can look alive while its port is dead. So each listening address is asked over UDP and TCP
//! ([`probe::ask`](super::probe::ask)), and the results are kept here.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::counters;
use super::exposition::Exposition;
use super::probe::Failure;
use crate::dns::Protocol;

/// Probes of one socket that must fail in a row before `/health` says so. One or two happen when the node is short of
/// CPU, and a restart would help nobody then.
const FAILURES_IN_A_ROW: u32 = 3;

/// The results of probes, one record per listening address and transport.
#[derive(Debug, Default)]
pub struct Sockets {
    records: Mutex<BTreeMap<(SocketAddr, Transport), Record>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Transport {
    Udp,
    Tcp,
}

#[derive(Debug, Default)]
struct Record {
    last: Option<(Instant, Result<Duration, Failure>)>,
    failures: u32,
}

impl Sockets {
    /// Nothing to watch yet.
    pub fn new() -> Sockets {
        Sockets::default()
    }

    /// Sets the addresses to watch, each over UDP and TCP. What is known of those watched before is kept.
    pub fn watch(&self, listens: &[SocketAddr]) {
        let mut records = self.records();
        let keys = listens.iter().flat_map(|&listen| [(listen, Transport::Udp), (listen, Transport::Tcp)]);
        let old = std::mem::take(&mut *records);
        *records = keys.map(|key| (key, Record::default())).collect();
        for (key, record) in old {
            if let Some(place) = records.get_mut(&key) {
                *place = record;
            }
        }
    }

    /// The addresses watched, in order.
    pub fn watched(&self) -> Vec<SocketAddr> {
        let mut listens: Vec<_> = self.records().keys().map(|(listen, _)| *listen).collect();
        listens.dedup();
        listens
    }

    /// Takes down the result of a probe; one for an address no longer watched is forgotten.
    pub fn record(&self, listen: SocketAddr, protocol: Protocol, now: Instant, result: Result<Duration, Failure>) {
        if let Some(record) = self.records().get_mut(&(listen, protocol.into())) {
            record.failures = if result.is_ok() { 0 } else { record.failures.saturating_add(1) };
            record.last = Some((now, result));
        }
    }

    /// Alive, unless a socket failed to answer several probes in a row: then a sentence that names it.
    pub fn health(&self, now: Instant) -> Result<(), String> {
        let records = self.records();
        let dead = records.iter().find_map(|(socket, record)| {
            let (at, result) = record.last.as_ref()?;
            let failure = result.as_ref().err()?;
            (record.failures >= FAILURES_IN_A_ROW).then_some((socket, *at, failure, record.failures))
        });
        match dead {
            None => Ok(()),
            Some(((listen, transport), at, failure, times)) => {
                let age = now.saturating_duration_since(at).as_secs();
                let name = transport.name();
                Err(format!(
                    "{listen} over {name} did not answer {times} probes in a row, the last {age} s ago: {failure}"
                ))
            }
        }
    }

    /// Ready if every socket answered its last probe; otherwise each that did not, with the reason.
    pub fn ready(&self) -> Vec<(String, String)> {
        let records = self.records();
        let unready = records.iter().filter_map(|((listen, transport), record)| {
            let reason = match &record.last {
                Some((_, Ok(_))) => return None,
                Some((_, Err(failure))) => failure.to_string(),
                None => "not asked yet".to_owned(),
            };
            Some((format!("{}://{listen}", transport.name()), reason))
        });
        unready.collect()
    }

    /// Adds [`counters::LISTENER_UP`] to a scrape, for sockets that were asked.
    pub fn expose(&self, into: &mut Exposition) {
        for ((listen, transport), record) in self.records().iter() {
            if let Some((_, result)) = &record.last {
                let up = f64::from(u8::from(result.is_ok()));
                into.gauge(&counters::LISTENER_UP, &[&format!("dns://{listen}"), transport.name()], up);
            }
        }
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<(SocketAddr, Transport), Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport {
    fn name(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        }
    }
}

impl From<Protocol> for Transport {
    fn from(protocol: Protocol) -> Transport {
        match protocol {
            Protocol::Udp => Transport::Udp,
            Protocol::Tcp => Transport::Tcp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;

    fn listen(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn health_gives_up_on_a_socket_after_three_failures_in_a_row() {
        let (sockets, here, now) = (Sockets::new(), listen("127.0.0.1:53"), clock::now());
        sockets.watch(&[here]);
        for round in 0..5 {
            let result = if round == 1 { Ok(Duration::ZERO) } else { Err(Failure::Silence) };
            sockets.record(here, Protocol::Tcp, now, result);
            let failed = sockets.health(now).is_err();
            assert_eq!(failed, round == 4, "round {round}");
        }
        assert_eq!(
            sockets.health(now + Duration::from_secs(2)).unwrap_err(),
            "127.0.0.1:53 over tcp did not answer 3 probes in a row, the last 2 s ago: no answer in time"
        );
        sockets.record(here, Protocol::Tcp, now, Ok(Duration::ZERO));
        assert_eq!(sockets.health(now), Ok(()));
    }

    #[test]
    fn ready_wants_an_answer_from_each_socket() {
        let (sockets, here, now) = (Sockets::new(), listen("127.0.0.1:53"), clock::now());
        sockets.watch(&[here]);
        assert_eq!(sockets.ready().len(), 2);
        sockets.record(here, Protocol::Udp, now, Ok(Duration::ZERO));
        assert_eq!(sockets.ready(), [("tcp://127.0.0.1:53".to_owned(), "not asked yet".to_owned())]);
        sockets.record(here, Protocol::Tcp, now, Ok(Duration::ZERO));
        assert!(sockets.ready().is_empty());
    }

    #[test]
    fn a_new_set_of_addresses_keeps_what_is_known_of_the_old() {
        let (sockets, now) = (Sockets::new(), clock::now());
        let (one, two) = (listen("127.0.0.1:53"), listen("127.0.0.2:53"));
        sockets.watch(&[one]);
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            sockets.record(one, protocol, now, Ok(Duration::ZERO));
        }
        sockets.watch(&[two, one]);
        assert_eq!(sockets.watched(), [one, two]);
        assert_eq!(sockets.ready().len(), 2, "only the new address is unknown");
        sockets.watch(&[one]);
        assert!(sockets.ready().is_empty());
        sockets.record(two, Protocol::Udp, now, Err(Failure::Silence));
        assert_eq!(sockets.watched(), [one]);
    }
}
