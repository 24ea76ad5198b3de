//! What the service manager hears. The keeper judges the server and replaces it within bounds of its own; the service manager
//! judges the keeper: it hears of it as long as its loop turns.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Interval, interval};

use crate::sys::supervisor::Supervisor;

/// Addresses that are named in one line.
const NAMED: usize = 4;

/// What was said so far.
#[derive(Debug)]
pub(super) struct Report {
    supervisor: Supervisor,
    ready: bool,
    status: String,
}

/// How the server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State<'a> {
    /// There is none that serves; `again` if there has been one.
    Starting { again: bool },
    /// It serves at these addresses, and does not answer at those.
    Serving { answering: &'a [SocketAddr], silent: &'a [SocketAddr] },
    /// The end has begun.
    Stopping,
}

impl Report {
    /// Nothing is said yet.
    pub(super) fn new(supervisor: Supervisor) -> Report {
        Report { supervisor, ready: false, status: String::new() }
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

    /// Says how the server does, if that is news. Ready is what answers, or has nowhere to answer, for the first time. What
    /// is not taken is said again with the next call.
    pub(super) fn say(&mut self, state: State<'_>) {
        let status = state.to_string();
        let ready = matches!(state, State::Serving { answering, silent } if !answering.is_empty() || silent.is_empty());
        let first = ready && !self.ready;
        if !first && status == self.status {
            return;
        }
        let word = match state {
            State::Stopping => "STOPPING=1\n",
            _ if first => "READY=1\n",
            _ => "",
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
            State::Stopping => f.write_str("stopping: what was received is answered"),
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
    use super::*;

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
