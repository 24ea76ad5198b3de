//! What becomes of an accepted response: stored, or passed on.

use std::sync::Arc;
use std::time::Instant;

use crate::cache::{Class, Entry, Settings, lifetime};
use crate::dns::{Rcode, Response};

use super::asked::Asked;
use super::outcome::Outcome;
use super::resolver::Resolver;

impl Resolver {
    /// Stores a response if it may be kept.
    pub(super) fn settle(&self, asked: &Asked, response: Response, now: Instant) -> Outcome {
        let route = &self.routes.routes[asked.route];
        let settings = route.cache.as_ref().filter(|settings| {
            // What was asked without RD may be a referral: it is for the one who asked so.
            asked.bits.recursion_desired() && lifetime::covered(settings.zones.as_deref(), &asked.name)
        });
        let Some(settings) = settings else { return Outcome::Passing { response, ttl: None } };
        let passing = |response| {
            let ttl = Some(lifetime::passing_ttl(&response, settings));
            Outcome::Passing { response, ttl }
        };
        let Some(lifetime) = lifetime::of(&response, &asked.name, asked.qtype, settings) else {
            if is_answer(response.rcode()) && !response.truncated() {
                // It holds all the same, if for one client only: what was kept before is no longer so.
                self.cache.remove(&asked.exact.as_ref());
                self.cache.remove(&asked.whole.as_ref());
            }
            return passing(response);
        };
        if !is_answer(response.rcode()) && self.has_better(asked, settings, now) {
            return passing(response);
        }
        let quota = &self.lines[asked.route].quotas[usize::from(lifetime.class == Class::Denial)];
        let entry = Arc::new(Entry::new(response, &lifetime, now, quota));
        self.keep(asked, lifetime.whole_name, &entry);
        Outcome::Kept(entry)
    }

    fn keep(&self, asked: &Asked, whole_name: bool, entry: &Arc<Entry>) {
        if whole_name {
            // The name is gone, and with it what the type had: it must not come back as a stale answer.
            self.cache.remove(&asked.exact.as_ref());
            self.cache.store(asked.whole.clone(), entry.clone());
            return;
        }
        if is_answer(entry.response.rcode()) {
            self.cache.remove(&asked.whole.as_ref());
        }
        self.cache.store(asked.exact.clone(), entry.clone());
    }

    /// Whether there is an answer, fresh or still usable when stale, that a failure must not replace (RFC 8767
    /// section 4).
    fn has_better(&self, asked: &Asked, settings: &Settings, now: Instant) -> bool {
        let stale = settings.serve_stale.as_ref().map(|stale| stale.duration).unwrap_or_default();
        [&asked.exact, &asked.whole].into_iter().any(|key| {
            self.cache.get(&key.as_ref()).is_some_and(|entry| {
                is_answer(entry.response.rcode()) && (entry.is_fresh(now) || entry.expired_for(now) < stale)
            })
        })
    }
}

fn is_answer(rcode: Rcode) -> bool {
    matches!(rcode, Rcode::NOERROR | Rcode::NXDOMAIN)
}
