//! The namespace that a question names. That there is one shows that the question is the first of a pod's list, and that the
//! server does not deny names that only have names beneath them.

use std::time::{Duration, Instant};

use crate::dns::{Rcode, Type};
use crate::resolve::miss::Miss;

use super::asker::{Asker, Looked};
use super::said::Said;

/// For so long after a namespace's denial has expired it is not asked for again: nobody in it waits for walks, and a server
/// that denies every namespace is asked seldom.
const NO_NAMESPACE: Duration = Duration::from_secs(300);

pub(super) struct Namespace {
    pub(super) name: Box<[u8]>,
    pub(super) state: Standing,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Standing {
    Open,
    Asking,
    Exists,
    /// There is none, or nobody knows: the plain answer is right in any case.
    Missing,
}

impl Namespace {
    pub(super) fn new(name: &[u8]) -> Namespace {
        Namespace { name: name.into(), state: Standing::Open }
    }

    /// Takes what memory has, without asking.
    pub(super) fn recall(&mut self, asker: &Asker, now: Instant) {
        if self.state == Standing::Open {
            self.state = recalled(asker, &self.name, now);
        }
    }

    /// The question for it, where nothing is known.
    pub(super) fn ask(&mut self, asker: &mut Asker, now: Instant) -> Option<Miss> {
        match asker.look(&self.name, Type::A, now) {
            Looked::Said(said) | Looked::Cut(said) => {
                self.hear(&said);
                None
            }
            Looked::Open(miss) => {
                self.state = Standing::Asking;
                Some(miss.about_one_type())
            }
        }
    }

    pub(super) fn hear(&mut self, said: &Said) {
        self.state = if said.exists() { Standing::Exists } else { Standing::Missing };
    }
}

/// Whether it is known that there is no such namespace.
pub(super) fn is_missing(asker: &Asker, name: &[u8], now: Instant) -> bool {
    recalled(asker, name, now) == Standing::Missing
}

fn recalled(asker: &Asker, name: &[u8], now: Instant) -> Standing {
    match asker.remembers(name, Type::A, now) {
        // Namespaces seldom go, and nobody asks in one that has: an expired entry is enough.
        Some((Rcode::NOERROR, _)) => Standing::Exists,
        Some((Rcode::NXDOMAIN, expired)) if expired.is_none_or(|ago| ago < NO_NAMESPACE) => Standing::Missing,
        _ => Standing::Open,
    }
}
