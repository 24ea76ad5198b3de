//! What becomes of an accepted response: stored, or passed on.

use std::sync::Arc;
use std::time::Instant;

use crate::cache::{Class, Entry, lifetime};
use crate::dns::{Rcode, Response};

use super::asked::Asked;
use super::outcome::Outcome;
use super::resolver::Resolver;

impl Resolver {
    /// Stores a response if it may be kept.
    pub(super) fn settle(&self, asked: &Asked, response: Response, now: Instant) -> Outcome {
        let route = &self.routes.routes[asked.route];
        // What was asked without RD may be a referral: it is for the one who asked so.
        let settings = route.cache.as_ref().filter(|_| asked.bits.recursion_desired());
        let Some(settings) = settings.filter(|settings| settings.covers(&asked.name)) else {
            return Outcome::Passing { response, ttl: None };
        };
        let passing = |response| {
            let ttl = Some(lifetime::passing_ttl(&response, settings));
            Outcome::Passing { response, ttl }
        };
        let lifetime = lifetime::of(&response, &asked.name, asked.qtype, settings);
        self.note_existence(asked, settings, &response, lifetime.map(|lifetime| lifetime.duration), now);
        let Some(lifetime) = lifetime else {
            if is_answer(response.rcode()) && !response.truncated() {
                // It holds all the same, if for one client only: what was kept before is no longer so.
                self.cache.remove(&asked.exact.as_ref());
                self.cache.remove(&asked.whole.as_ref());
            }
            return passing(response);
        };
        let quota = &self.lines[asked.route].quotas[usize::from(lifetime.class == Class::Denial)];
        let entry = Arc::new(Entry::new(response, &lifetime, now, quota));
        self.keep(asked, lifetime.whole_name, &entry);
        Outcome::Kept(entry)
    }

    /// Notes how a question ended: failures are remembered for a while, answers end that (RFC 9520).
    pub(super) fn remember(&self, asked: &Asked, outcome: &Arc<Outcome>, now: Instant) {
        let settings = self.routes.routes[asked.route].cache.as_ref().filter(|settings| settings.covers(&asked.name));
        let Some(settings) = settings else { return };
        if outcome.is_remembered() {
            let recoveries = outcome.is_way().then_some(asked.recoveries);
            self.failures.note(&asked.flight, outcome, settings.servfail, now, recoveries);
        } else if outcome.is_answer() {
            self.failures.forget(&asked.flight);
        }
    }

    /// What was stored for a question since it was asked.
    pub(super) fn kept_since(&self, asked: &Asked) -> Option<Arc<Entry>> {
        let kept = asked.bits.recursion_desired().then(|| self.cache.get(&asked.exact.as_ref()))??;
        (kept.stored > asked.started).then_some(kept)
    }

    /// How often an upstream has recovered so far, as far as this route knows.
    pub(super) fn recoveries(&self, route: usize) -> u64 {
        self.lines[route].pools.first().map_or(0, |pool| pool.recoveries())
    }

    fn keep(&self, asked: &Asked, whole_name: bool, entry: &Arc<Entry>) {
        if whole_name && asked.one_type {
            // It says no less than a denial of the whole name that is there already.
            return self.cache.store(asked.exact.clone(), entry.clone());
        }
        if whole_name {
            // The name is gone, and with it what the type had: it must not come back as a stale answer.
            self.cache.remove(&asked.exact.as_ref());
            self.cache.store(asked.whole.clone(), entry.clone());
            return;
        }
        self.cache.remove(&asked.whole.as_ref());
        self.cache.store(asked.exact.clone(), entry.clone());
    }
}

fn is_answer(rcode: Rcode) -> bool {
    matches!(rcode, Rcode::NOERROR | Rcode::NXDOMAIN)
}
