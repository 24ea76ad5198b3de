//! What the service manager hears. The keeper judges the server and replaces it within bounds of its own; the service manager
//! judges the keeper: it hears of it as long as its loop turns.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::time::{Interval, interval};

use crate::sys::supervisor::Supervisor;

/// Addresses that are named in one line.
const NAMED: usize = 4;

/// A server that serves for so long is ready although no probe was answered: something may keep probes away that keeps no
/// client away, and the service manager would end and start the agent again and again.
const ENOUGH: Duration = Duration::from_secs(5);

/// What was said so far.
#[derive(Debug)]
pub(super) struct Report {
    supervisor: Supervisor,
    ready: bool,
    status: String,
    /// Since when a server serves, without a break.
    serving: Option<Instant>,
}

/// How the server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State<'a> {
    /// There is none that serves; `again` if there has been one.
    Starting { again: bool },
    /// It serves at these addresses, and does not answer at those.
    Serving { answering: &'a [SocketAddr], silent: &'a [SocketAddr] },
    /// The end has begun, and takes so long at most.
    Stopping(Duration),
}

impl Report {
    /// Nothing is said yet.
    pub(super) fn new(supervisor: Supervisor) -> Report {
        Report { supervisor, ready: false, status: String::new(), serving: None }
    }

    /// Whether anybody listens.
    pub(super) fn is_heard(&self) -> bool {
        self.supervisor.is_there()
    }

    /// When to say that this process is alive; `None` where nobody wants to know. Must be called inside a runtime.
    pub(super) fn beat(&self) -> Option<Interval> {
        self.supervisor.watchdog.map(|watchdog| interval((watchdog / 2).max(Duration::from_millis(1))))
    }

    /// This process is alive.
    pub(super) fn alive(&self) {
        self.supervisor.tell("WATCHDOG=1");
    }

    /// Says how the server does, if that is news. Ready is what answers over both transports, has nowhere to answer, or has
    /// had its time, for the first time. What is not taken is said again with the next call.
    pub(super) fn say(&mut self, state: State<'_>, now: Instant) {
        let status = state.to_string();
        let ready = match state {
            State::Serving { answering, silent } => {
                let since = *self.serving.get_or_insert(now);
                !answering.is_empty() || silent.is_empty() || now.saturating_duration_since(since) >= ENOUGH
            }
            State::Starting { .. } | State::Stopping(_) => {
                self.serving = None;
                false
            }
        };
        let first = ready && !self.ready;
        if !first && status == self.status {
            return;
        }
        let word = match state {
            // Clients may be given longer to leave than the unit gives to a stop.
            State::Stopping(within) => format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}\n", within.as_micros()),
            _ if first => "READY=1\n".to_owned(),
            _ => String::new(),
        };
        if self.supervisor.tell(&format!("{word}STATUS={status}")) {
            (self.ready, self.status) = (self.ready || ready, status);
        }
    }
}

impl std::fmt::Display for State<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            State::Starting { again: false } => f.write_str("starting"),
            State::Starting { again: true } => {
                f.write_str("the server is being replaced; queries wait for the next one")
            }
            State::Serving { answering: [], silent: [] } => f.write_str("no server block listens for DNS"),
            State::Serving { answering, silent: [] } => write!(f, "answers at {}", listed(answering)),
            State::Serving { answering: [], silent } => write!(f, "no answer at {}", listed(silent)),
            State::Serving { answering, silent } => {
                write!(f, "answers at {}; no answer at {}", listed(answering), listed(silent))
            }
            State::Stopping(_) => f.write_str("stopping: what was received is answered"),
        }
    }
}

fn listed(addresses: &[SocketAddr]) -> String {
    let named: Vec<String> = addresses.iter().take(NAMED).map(ToString::to_string).collect();
    let more = addresses.len().saturating_sub(NAMED);
    if more == 0 { named.join(", ") } else { format!("{} and {more} more", named.join(", ")) }
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};

    use super::*;
    use crate::sys::clock;

    /// A report, and who hears it.
    fn heard(name: &str) -> (Report, impl Fn() -> String) {
        let name = format!("dnslet-test-{name}-{}", std::process::id());
        let theirs = UnixDatagram::bind_addr(&UnixAddress::from_abstract_name(&name).unwrap()).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let environment = |variable: &str| (variable == "NOTIFY_SOCKET").then(|| format!("@{name}"));
        let hear = move || {
            let mut message = [0; 256];
            let length = theirs.recv(&mut message).unwrap_or_default();
            String::from_utf8_lossy(&message[..length]).into_owned()
        };
        (Report::new(Supervisor::named(&environment).unwrap()), hear)
    }

    #[test]
    fn what_serves_and_is_not_reached_by_probes_is_ready_after_a_while_and_named() {
        let (mut report, hear) = heard("silent");
        let (now, silent) = (clock::now(), ["127.0.0.1:53".parse().unwrap()]);
        let serving = State::Serving { answering: &[], silent: &silent };
        report.say(serving, now);
        assert_eq!(hear(), "STATUS=no answer at 127.0.0.1:53");
        report.say(serving, now + ENOUGH / 2);
        assert_eq!(hear(), "");
        report.say(State::Starting { again: true }, now + ENOUGH / 2);
        assert!(hear().starts_with("STATUS=the server is being replaced"));
        report.say(serving, now + ENOUGH);
        assert_eq!(hear(), "STATUS=no answer at 127.0.0.1:53", "another server has its own time");
        report.say(serving, now + ENOUGH * 2);
        assert_eq!(hear(), "READY=1\nSTATUS=no answer at 127.0.0.1:53");
    }

    #[test]
    fn what_answers_is_ready_at_once_and_a_stop_asks_for_the_time_it_takes() {
        let (mut report, hear) = heard("answering");
        let (now, answering) = (clock::now(), ["127.0.0.1:53".parse().unwrap()]);
        report.say(State::Serving { answering: &answering, silent: &[] }, now);
        assert_eq!(hear(), "READY=1\nSTATUS=answers at 127.0.0.1:53");
        report.say(State::Stopping(Duration::from_secs(35)), now);
        assert_eq!(hear(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=35000000\nSTATUS=stopping: what was received is answered");
    }

    #[test]
    fn the_line_says_what_answers_and_what_does_not() {
        let [one, two]: [SocketAddr; 2] = ["127.0.0.1:53", "[::1]:53"].map(|text| text.parse().unwrap());
        let line = |answering: &[SocketAddr], silent: &[SocketAddr]| State::Serving { answering, silent }.to_string();
        assert_eq!(line(&[one, two], &[]), "answers at 127.0.0.1:53, [::1]:53");
        assert_eq!(line(&[one], &[two]), "answers at 127.0.0.1:53; no answer at [::1]:53");
        assert_eq!(line(&[], &[two]), "no answer at [::1]:53");
        assert!(line(&[one; 6], &[]).ends_with(", 127.0.0.1:53 and 2 more"));
    }
}
