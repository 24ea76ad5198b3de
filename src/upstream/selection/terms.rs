//! The words in which an exchange and its selection talk.

use std::time::{Duration, Instant};

/// Over what an attempt goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// UDP.
    Datagram,
    /// TCP or TLS.
    Stream,
}

/// A server that may be asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    /// Its index among the members of the pool.
    pub(crate) member: u8,
    /// Over what it is asked.
    pub(crate) via: Via,
    /// How long to wait for it before the next one is asked as well.
    pub(crate) patience: Duration,
    /// It answers nearly everything with SERVFAIL and is asked to see whether that is over.
    pub(crate) trial: bool,
}

/// The limits of one exchange.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// The most attempts, follow-ups not counted.
    pub(crate) attempts: usize,
    /// Nobody waits for the answer: fewer attempts, and more patience.
    pub(crate) background: bool,
    /// An attempt is given up after this long.
    pub(crate) read_timeout: Option<Duration>,
    /// With a truncated answer in hand, nobody else is asked from here on.
    pub(crate) complete_by: Instant,
    /// Nothing is sent from here on; what is open is waited for.
    pub(crate) budget: Instant,
    /// When the whole exchange ends.
    pub(crate) deadline: Instant,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask this member now; the attempt has this number, unless it is not made.
    Send {
        /// Number of the attempt, counting from 0.
        attempt: usize,
        /// Index of the member.
        member: u8,
        /// Over what.
        via: Via,
        /// What led to it.
        why: Why,
    },
    /// Patience with this attempt has run out. It stays open; said once.
    Late(usize),
    /// `read_timeout` has ended this attempt.
    GiveUp(usize),
    /// Nothing to do before this time unless an attempt brings something.
    Wait(Instant),
    /// There is nothing left to wait for.
    Finish,
}

/// Why an attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// It is this server's turn for the first time.
    First,
    /// It is this server's turn again.
    Again,
    /// A UDP answer was truncated, its own or another server's.
    Truncated,
    /// Too many wrong messages came over UDP.
    Forged,
    /// UDP brought nothing.
    Silent,
    /// It does not know EDNS.
    WithoutEdns,
}
