//! What an exchange remembers of the servers it may ask and of what it sent.

use std::time::{Duration, Instant};

use super::{Candidate, Via, Why};

/// A server that may be asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Server {
    pub(super) candidate: Candidate,
    /// Attempts over the transport it is asked over now.
    pub(super) tries: u8,
    pub(super) not_before: Instant,
    pub(super) answered: bool,
    /// It has given a truncated answer.
    pub(super) truncated: bool,
    /// It is down.
    pub(super) passed_by: bool,
    /// It has said that it does not know EDNS.
    pub(super) classic: bool,
}

/// Whether a response was set aside to be returned if nothing better comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SetAside {
    Nothing,
    /// Word that a server does not know EDNS.
    Rejection,
    Rcode,
    Truncated,
}

impl Server {
    pub(super) fn new(candidate: Candidate, now: Instant) -> Server {
        Server {
            candidate,
            tries: 0,
            not_before: now,
            answered: false,
            truncated: false,
            passed_by: false,
            classic: false,
        }
    }

    /// Whether it has not been done with.
    pub(super) fn may_be_asked(&self) -> bool {
        !self.answered && !self.passed_by
    }
}

/// A question that was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) server: usize,
    pub(super) via: Via,
    pub(super) why: Why,
    pub(super) sent: Instant,
    /// How long until something else is done as well.
    pub(super) patience: Duration,
    /// Whether an answer is still wanted.
    pub(super) open: bool,
    /// It has brought something that cannot be read.
    pub(super) spoiled: bool,
    /// That patience has run out was said.
    pub(super) late: bool,
}

impl Attempt {
    pub(super) fn new(server: usize, via: Via, why: Why, patience: Duration, now: Instant) -> Attempt {
        Attempt { server, via, why, sent: now, patience, open: true, spoiled: false, late: false }
    }

    /// Whether nothing has come from it although patience has run out.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        self.open && !self.spoiled && now.saturating_duration_since(self.sent) >= self.patience
    }

    /// When patience runs out, if that is still to come or to be said.
    pub(super) fn until_late(&self) -> Option<Instant> {
        (self.open && !self.spoiled && !self.late).then(|| self.sent + self.patience)
    }
}
