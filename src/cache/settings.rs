//! What the `cache` directive of one server block says.

use std::time::{Duration, Instant};

use super::entry::Entry;
use crate::dns::{Name, name};

/// The options of one `cache` directive, defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// Only names under these are cached; all names of the block where `None`.
    pub zones: Option<Vec<Name>>,
    /// Limits for positive responses.
    pub success: ClassLimits,
    /// Limits for negative responses.
    pub denial: ClassLimits,
    /// Refresh of popular names before they expire.
    pub prefetch: Option<Prefetch>,
    /// Use of expired responses.
    pub serve_stale: Option<ServeStale>,
    /// The longest pause in which a failure is remembered; zero: not at all.
    pub servfail: Duration,
    /// Positive responses for names under these are not stored.
    pub disable_success: Vec<Name>,
    /// Negative responses for names under these are not stored.
    pub disable_denial: Vec<Name>,
    /// Replies carry the whole TTL until the end.
    pub keepttl: bool,
    /// For names under these a missing name is kept as the denial of everything beneath it (RFC 8020).
    pub denial_cut: Vec<Name>,
}

/// Limits for one class of responses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClassLimits {
    /// How many entries.
    pub capacity: usize,
    /// The longest time one is kept, in seconds.
    pub max_ttl: u32,
    /// The shortest time one is kept, in seconds; `max_ttl` wins over it.
    pub min_ttl: u32,
}

/// When a popular entry is refreshed ahead of its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Prefetch {
    /// So many hits, none further from the one before than `duration`.
    pub amount: u32,
    /// The longest pause between hits.
    pub duration: Duration,
    /// In the last so many percent of the entry's life.
    pub percentage: u8,
}

/// When expired entries are used (RFC 8767).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServeStale {
    /// So long after their end.
    pub duration: Duration,
    /// Ask the upstream first, and use the entry if that fails.
    pub verify: bool,
    /// How long the upstream is waited for when `verify` is on; never zero. `None`: the client timer of RFC 8767.
    pub verify_timeout: Option<Duration>,
    /// The TTL of stale replies, in seconds; never zero. `None`: that of RFC 8767.
    pub response_ttl: Option<u32>,
    /// The pause after a failed refresh; zero: none beside that of the failure itself. `None`: that of RFC 8767.
    pub failure_recheck: Option<Duration>,
    /// An expired positive entry is preferred to an expired negative one.
    pub prefer_positive: bool,
}

impl Settings {
    /// The settings of a bare `cache`.
    pub fn new() -> Settings {
        Settings {
            zones: None,
            success: ClassLimits { capacity: 10_000, max_ttl: 3600, min_ttl: 5 },
            denial: ClassLimits { capacity: 10_000, max_ttl: 1800, min_ttl: 5 },
            prefetch: None,
            serve_stale: None,
            servfail: Duration::from_secs(30),
            disable_success: Vec::new(),
            disable_denial: Vec::new(),
            keepttl: false,
            denial_cut: Vec::new(),
        }
    }

    /// The TTL of a reply from a fresh entry, in seconds.
    pub fn reply_ttl(&self, entry: &Entry, now: Instant) -> u32 {
        if self.keepttl { u32::try_from(entry.seconds()).unwrap_or(u32::MAX) } else { entry.remaining(now) }
    }

    /// Whether the cache looks after this lower-case wire name at all.
    pub fn covers(&self, qname: &[u8]) -> bool {
        self.zones.as_ref().is_none_or(|zones| zones.iter().any(|zone| name::is_under(qname, zone.as_wire())))
    }
}

/// The TTL of stale replies where the Corefile names none, in seconds (RFC 8767 section 4).
const STALE_TTL: u32 = 30;

impl ServeStale {
    /// The TTL of replies from expired entries, in seconds.
    pub fn ttl(&self) -> u32 {
        self.response_ttl.unwrap_or(STALE_TTL)
    }

    /// What `serve_stale DURATION` says.
    pub fn lasting(duration: Duration) -> ServeStale {
        ServeStale {
            duration,
            verify: false,
            verify_timeout: None,
            response_ttl: None,
            failure_recheck: None,
            prefer_positive: false,
        }
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings::new()
    }
}
