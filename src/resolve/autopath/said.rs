//! What was said about one name of a search list.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cache::Entry;
use crate::dns::{Ede, Rcode, Response, Type};
use crate::resolve::miss::Landed;
use crate::resolve::outcome::{Cause, Failed, Outcome};

/// What was said about a name, and how long it holds.
#[derive(Clone, Debug)]
pub(in crate::resolve) struct Said {
    pub(super) what: What,
    /// The TTL for a reply, in seconds.
    pub(super) ttl: u32,
    /// Until when it may be kept; nothing where it may not be.
    pub(super) until: Option<Instant>,
    /// It comes from an expired entry.
    pub(super) stale: bool,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    /// An entry of the name, or of one above it that denies all beneath.
    Entry(Arc<Entry>),
    /// What a flight came to, or a failure from memory.
    Outcome(Arc<Outcome>),
    /// There is nothing of this type, by configuration.
    Nothing,
}

/// So long what the configuration says is taken to hold.
const BY_CONFIGURATION: Duration = Duration::from_secs(3600);

impl Said {
    pub(super) fn fresh(entry: Arc<Entry>, now: Instant) -> Said {
        let (ttl, until) = (entry.remaining(now), entry.stored + entry.lifetime);
        Said { what: What::Entry(entry), ttl, until: Some(until), stale: false }
    }

    pub(super) fn stale(entry: Arc<Entry>, ttl: u32) -> Said {
        Said { what: What::Entry(entry), ttl, until: None, stale: true }
    }

    pub(super) fn outcome(outcome: Arc<Outcome>, now: Instant) -> Said {
        if let Outcome::Kept(entry) = &*outcome {
            return Said::fresh(entry.clone(), now);
        }
        let ttl = match &*outcome {
            Outcome::Passing { ttl: Some(ttl), .. } => *ttl,
            Outcome::Passing { response, ttl: None } => lowest_ttl(response),
            _ => 0,
        };
        Said { what: What::Outcome(outcome), ttl, until: None, stale: false }
    }

    pub(super) fn landed(landed: Landed, stale_ttl: u32, now: Instant) -> Said {
        match landed {
            Landed::Outcome(outcome) => Said::outcome(outcome, now),
            Landed::Stale(entry) => Said::stale(entry, stale_ttl),
        }
    }

    /// There is nothing of the type, because the configuration says so.
    pub(super) fn nothing(now: Instant) -> Said {
        Said { what: What::Nothing, ttl: u32::MAX, until: Some(now + BY_CONFIGURATION), stale: false }
    }

    /// No server block answers for the name.
    pub(super) fn refused() -> Said {
        let text = "no server block answers for a name of the search list";
        let failed = Failed { rcode: Rcode::REFUSED, ..Failed::new(Cause::Unanswered, Ede::NOT_AUTHORITATIVE, text) };
        Said { what: What::Outcome(Arc::new(failed.into())), ttl: 0, until: None, stale: false }
    }

    /// The RCODE.
    pub(super) fn rcode(&self) -> Rcode {
        match &self.what {
            What::Entry(entry) => entry.response.rcode(),
            What::Outcome(outcome) => outcome.rcode(),
            What::Nothing => Rcode::NOERROR,
        }
    }

    /// Whether there is no such name.
    pub(super) fn is_denial(&self) -> bool {
        self.rcode() == Rcode::NXDOMAIN
    }

    /// Whether the name exists.
    pub(super) fn exists(&self) -> bool {
        self.rcode() == Rcode::NOERROR && !self.is_truncated()
    }

    /// Whether this is half an answer, and there is no way to the rest.
    pub(super) fn is_truncated(&self) -> bool {
        self.response().is_some_and(Response::truncated)
    }

    /// The type it was said about in the first place; a denial holds for all of them.
    pub(super) fn qtype(&self) -> Option<Type> {
        self.response().map(Response::qtype)
    }

    /// The same name, with nothing of the type that is asked for.
    pub(super) fn without_data(self) -> Said {
        Said { what: What::Nothing, ..self }
    }

    /// Whether the name has what was asked for.
    pub(super) fn has(&self, qtype: Type) -> bool {
        self.response().is_some_and(|response| response.has_answer(qtype))
    }

    pub(super) fn response(&self) -> Option<&Response> {
        match &self.what {
            What::Entry(entry) => Some(&entry.response),
            What::Outcome(outcome) => match &**outcome {
                Outcome::Kept(entry) => Some(&entry.response),
                Outcome::Passing { response, .. } => Some(response),
                Outcome::Failed(_) => None,
            },
            What::Nothing => None,
        }
    }
}

fn lowest_ttl(response: &Response) -> u32 {
    response.records().map(|(_, record)| record.ttl).min().unwrap_or(0)
}
