//! Outcomes: what a miss came to, for everyone who waits for it.

use std::borrow::Cow;
use std::sync::Arc;

use crate::cache::Entry;
use crate::dns::{Ede, Explained, Query, Rcode, Response, edns, reply};
use crate::upstream::Failure;

/// The explanation of a failure never says more than this many octets of it.
type Text = Cow<'static, str>;

/// What a miss came to.
#[derive(Debug)]
pub enum Outcome {
    /// A response that was stored.
    Kept(Arc<Entry>),
    /// A response that goes to those who wait, and no further.
    Passing {
        /// The response.
        response: Response,
        /// The TTL for all its records, where the route has a cache.
        ttl: Option<u32>,
    },
    /// No response.
    Failed(Failed),
}

/// A miss that brought no response.
#[derive(Debug)]
pub struct Failed {
    /// What clients get.
    pub rcode: Rcode,
    /// Why, for clients with EDNS.
    pub code: Ede,
    /// Why, for people.
    pub text: Text,
    /// Which counter it adds to.
    pub cause: Cause,
}

/// Why there is no response, as far as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No upstream answered in time.
    Timeout,
    /// The network refused.
    Network,
    /// This host is short of something.
    Local,
    /// TLS did not come about.
    Tls,
    /// Every upstream is down.
    Unhealthy,
    /// The upstream's answer was no use.
    Answer,
    /// The query would come back to us.
    Loop,
    /// Nothing in the block answers such a query.
    Unanswered,
    /// `max_concurrent` was reached.
    Overloaded,
    /// Over the limit of packets a second.
    Paced,
    /// There are too many flights.
    Shed,
    /// The task that was to answer ended without an outcome.
    Aborted,
}

impl Cause {
    /// Whether nothing came from any upstream, whatever was asked.
    fn is_way(self) -> bool {
        matches!(self, Cause::Timeout | Cause::Network | Cause::Tls)
    }
}

impl Outcome {
    /// For a flight whose task ended without one.
    pub fn aborted() -> Outcome {
        Failed::new(Cause::Aborted, Ede::OTHER, "internal error while resolving").into()
    }

    /// Whether its flight ended without one.
    pub(super) fn is_aborted(&self) -> bool {
        matches!(self, Outcome::Failed(Failed { cause: Cause::Aborted, .. }))
    }

    /// Whether this says what the name has, rather than that nobody could tell.
    pub fn is_answer(&self) -> bool {
        match self {
            Outcome::Kept(entry) => is_answer(&entry.response),
            Outcome::Passing { response, .. } => is_answer(response),
            Outcome::Failed(_) => false,
        }
    }

    /// Whether it tells so much about the question that asking again soon is of no use (RFC 9520 section 2).
    pub(super) fn is_remembered(&self) -> bool {
        match self {
            Outcome::Kept(_) => false,
            Outcome::Passing { response, .. } => !is_answer(response),
            Outcome::Failed(failed) => failed.cause.is_way() || failed.cause == Cause::Answer,
        }
    }

    /// Whether nothing came from any upstream.
    pub(super) fn is_way(&self) -> bool {
        matches!(self, Outcome::Failed(failed) if failed.cause.is_way())
    }

    /// How many octets it occupies, as far as they are its own.
    pub(super) fn footprint(&self) -> usize {
        let more = match self {
            Outcome::Kept(_) => 0,
            Outcome::Passing { response, .. } => response.footprint(),
            Outcome::Failed(failed) => failed.text.len(),
        };
        size_of::<Outcome>() + more
    }

    /// Whether this is half a response: TC set, and no way to the rest.
    pub fn is_truncated(&self) -> bool {
        match self {
            Outcome::Kept(entry) => entry.response.truncated(),
            Outcome::Passing { response, .. } => response.truncated(),
            Outcome::Failed(_) => false,
        }
    }

    /// Whether an upstream did answer, with something that does not belong to the question.
    pub fn is_unusable(&self) -> bool {
        matches!(self, Outcome::Failed(Failed { cause: Cause::Answer, .. }))
    }

    /// The RCODE for clients.
    pub fn rcode(&self) -> Rcode {
        match self {
            Outcome::Kept(entry) => entry.response.rcode(),
            Outcome::Passing { response, .. } => response.rcode(),
            Outcome::Failed(failed) => failed.rcode,
        }
    }

    /// So many octets are enough for any reply that [`Outcome::write`] makes of this.
    pub fn room(&self) -> usize {
        let octets = match self {
            Outcome::Kept(entry) => room(&entry.response),
            Outcome::Passing { response, .. } => room(response),
            Outcome::Failed(_) => 0,
        };
        octets.max(reply::CLASSIC_SIZE)
    }

    /// Writes the reply for one client; `again` when it is one from memory.
    pub fn write(&self, query: &Query<'_>, limit: usize, again: bool, out: &mut [u8]) -> usize {
        let explained = again.then_some(Explained { code: Ede::CACHED_ERROR, text: "" });
        let (response, ttl) = match self {
            Outcome::Kept(entry) => (&entry.response, Some(u32::try_from(entry.seconds()).unwrap_or(u32::MAX))),
            Outcome::Passing { response, ttl } => (response, *ttl),
            Outcome::Failed(failed) => return failed.write(query, again, out),
        };
        reply::write(query, response, reply::Shape { ttl, explained, limit }, out)
    }
}

impl Failed {
    /// SERVFAIL with a reason.
    pub fn new(cause: Cause, code: Ede, text: impl Into<Text>) -> Failed {
        Failed { rcode: Rcode::SERVFAIL, code, text: text.into(), cause }
    }

    /// Writes the reply for one client; `again` when it is one from memory.
    fn write(&self, query: &Query<'_>, again: bool, out: &mut [u8]) -> usize {
        let code = if again { Ede::CACHED_ERROR } else { self.code };
        let explained = Explained { code, text: &self.text };
        reply::write_error(query, self.rcode, Some(explained), out)
    }
}

impl From<Failed> for Outcome {
    fn from(failed: Failed) -> Outcome {
        Outcome::Failed(failed)
    }
}

impl From<&Failure> for Failed {
    fn from(failure: &Failure) -> Failed {
        let cause = match failure {
            Failure::Timeout(_) => Cause::Timeout,
            Failure::Tls(..) => Cause::Tls,
            Failure::Malformed(_) => Cause::Answer,
            Failure::NoHealthy => Cause::Unhealthy,
            Failure::Overloaded { .. } => Cause::Overloaded,
            Failure::Paced => Cause::Paced,
            Failure::Busy(_) => Cause::Local,
            Failure::Local(..) if !failure.blames_upstream() => Cause::Local,
            Failure::Refused(_) | Failure::Unreachable(..) | Failure::Closed(..) | Failure::Local(..) => Cause::Network,
        };
        let mut failed = Failed::new(cause, failure.ede(), failure.to_string());
        if cause == Cause::Overloaded {
            failed.rcode = Rcode::REFUSED;
        }
        failed
    }
}

/// The response as it is kept, and our OPT with everything that it may hold.
pub(super) fn room(response: &Response) -> usize {
    response.wire().len() + response.errors().len() + edns::LARGEST_OPT
}

/// NOERROR and NXDOMAIN are answers; everything else is a failure to give one (RFC 9520 section 2).
fn is_answer(response: &Response) -> bool {
    matches!(response.rcode(), Rcode::NOERROR | Rcode::NXDOMAIN)
}
