//! From the end of a walk to the reply.

use std::sync::Arc;
use std::time::Instant;

use crate::cache::{Class, Entry, Key, Lifetime};
use crate::dns::header::Count;
use crate::dns::{Builder, Ede, Expanded, Query, Rcode, Record, Response, Type, edns};
use crate::observe::Event;
use crate::resolve::outcome::{Cause, Failed, Outcome};

use super::said::{Said, What};
use super::walker::{End, Walker};

/// What a client gets at the end of a walk.
pub(super) struct Conclusion {
    pub(super) outcome: Arc<Outcome>,
    /// How it is counted.
    pub(super) event: Event,
    /// The stub goes on by itself.
    pub(super) goes_on: bool,
}

impl Walker {
    /// What becomes of a walk; an event where the reply is the plain one. An answer, or that there is none, is kept under
    /// `key` for as long as all that it rests on holds.
    pub(super) fn conclude(
        &self,
        end: End,
        query: &Query<'_>,
        key: Option<&Key>,
        now: Instant,
    ) -> Result<Conclusion, Event> {
        let negative = |outcome, event| Ok(Conclusion { outcome, event, goes_on: true });
        match end {
            End::First => Err(Event::WalkFirst),
            End::Plain(event) => Err(event),
            End::Found(index) => {
                let outcome = self.keep(self.found(query, index)?, index, key, now);
                Ok(Conclusion { outcome, event: Event::WalkFound, goes_on: false })
            }
            End::NoData(index) => {
                negative(self.keep(self.denial(query, Rcode::NOERROR), index, key, now), Event::WalkNoData)
            }
            End::Missing => {
                let last = self.steps.len() - 1;
                negative(self.keep(self.denial(query, Rcode::NXDOMAIN), last, key, now), Event::WalkMissing)
            }
            End::Failed(index) => negative(failure(query, self.said(index)), Event::WalkFailed),
        }
    }

    /// The plain reply, where the first name is denied by that of one above it.
    pub(super) fn plain(&self, query: &Query<'_>) -> Arc<Outcome> {
        self.pass(self.denial(query, Rcode::NXDOMAIN), 0)
    }

    /// Counts how the walk ended, and how that is known.
    pub(super) fn count(&self, end: End, conclusion: &Result<Conclusion, Event>) {
        let counts = self.asker.resolver.registry.worker(self.asker.worker);
        counts.count(conclusion.as_ref().map_or_else(|event| *event, |conclusion| conclusion.event));
        if let (End::Found(index), Ok(_)) = (end, conclusion) {
            counts.count_n(Event::WalkSaved, index as u64);
        }
        self.count_steps();
    }

    /// The first name as an alias of a candidate, and what that has.
    fn found(&self, query: &Query<'_>, index: usize) -> Result<Response, Event> {
        let candidate = &self.steps[index].candidate.name;
        let found = self.said(index).and_then(Said::response).ok_or(Event::PlainLoop)?;
        if leads_to(found, query.name()) {
            return Err(Event::PlainLoop);
        }
        let mut builder = Builder::new(query.message, query.question_end, [0, 0]);
        let mut add = || {
            builder.alias(query.name(), self.ttl(index), candidate)?;
            let records = found.records().filter(|(section, _)| *section != Count::Authority);
            for (section, record) in records {
                builder.copy(section, found.wire(), &record)?;
            }
            Some(())
        };
        // A message that is full has no room for one more alias.
        add().ok_or(Event::PlainLoop)?;
        Ok(builder.build(Rcode::NOERROR, self.errors(index)))
    }

    /// That there is nothing, in the words of the first name's denial: its zone is the one that the question is in. The
    /// answer section stays empty: an alias there would end the search of some stubs.
    fn denial(&self, query: &Query<'_>, rcode: Rcode) -> Response {
        let mut builder = Builder::new(query.message, query.question_end, [0, 0]);
        if let Some(first) = self.said(0).and_then(Said::response) {
            let authority =
                first.records().filter(|(section, record)| *section == Count::Authority && record.rtype == Type::SOA);
            for (section, record) in authority {
                // What does not fit is left out; the RCODE says it all.
                let _ = builder.copy(section, first.wire(), &record);
            }
        }
        builder.build(rcode, self.errors(self.steps.len() - 1))
    }

    /// The outcome that rests on the candidates up to `last`, kept if all of them are.
    fn keep(&self, response: Response, last: usize, key: Option<&Key>, now: Instant) -> Arc<Outcome> {
        let until =
            self.steps[..=last].iter().filter_map(|step| step.said()).try_fold(None, |until: Option<Instant>, said| {
                let own = said.until?;
                Some(Some(until.map_or(own, |until| until.min(own))))
            });
        let duration = until.flatten().map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero());
        let (Some(duration), Some(key)) = (duration, key) else { return self.pass(response, last) };
        let class = if response.answers() > 0 { Class::Success } else { Class::Denial };
        // It counts against the block that had the last word: what is outside takes nothing of the cluster's.
        let Some(route) = self.asker.route(&self.steps[last].candidate.name, self.qtype, now) else {
            return self.pass(response, last);
        };
        let quota = &self.asker.resolver.lines[route].quotas[usize::from(class == Class::Denial)];
        let lifetime = Lifetime { class, duration, whole_name: false };
        let saves = if class == Class::Success { last } else { 0 };
        let entry = Arc::new(Entry::new(response, &lifetime, now, quota).saving(saves));
        self.asker.resolver.cache.store(key.clone(), entry.clone());
        Arc::new(Outcome::Kept(entry))
    }

    fn pass(&self, response: Response, last: usize) -> Arc<Outcome> {
        Arc::new(Outcome::Passing { response, ttl: Some(self.ttl(last)) })
    }

    /// The lowest TTL of the candidates up to `last`.
    fn ttl(&self, last: usize) -> u32 {
        self.steps[..=last].iter().filter_map(|step| step.said()).map(|said| said.ttl).min().unwrap_or(0)
    }

    /// That something has expired, for clients with EDNS.
    fn errors(&self, last: usize) -> Vec<u8> {
        let stale = self.steps[..=last].iter().filter_map(|step| step.said()).any(|said| said.stale);
        if stale { edns::error_option(Ede::STALE_ANSWER) } else { Vec::new() }
    }
}

/// Whether an alias of the response leads to a name in lower-case wire form, or from it.
fn leads_to(response: &Response, name: &[u8]) -> bool {
    let is = |at: usize| Expanded::read(response.wire(), at).is_some_and(|(found, _)| found.is(name));
    let aliases = response.records().filter(|(_, record)| record.rtype == Type::CNAME);
    aliases.map(|(_, record): (_, Record)| record).any(|record| is(record.start) || is(record.rdata))
}

/// A failure, for the question of the client.
fn failure(query: &Query<'_>, said: Option<&Said>) -> Arc<Outcome> {
    match said.map(|said| &said.what) {
        Some(What::Outcome(outcome)) if matches!(**outcome, Outcome::Failed(_)) => outcome.clone(),
        Some(_) => {
            let response = said.and_then(Said::response);
            let errors = response.map(|response| response.errors().to_vec()).unwrap_or_default();
            let rcode = response.map(Response::rcode).filter(|rcode| *rcode != Rcode::NOERROR);
            let builder = Builder::new(query.message, query.question_end, [0, 0]);
            let response = builder.build(rcode.unwrap_or(Rcode::SERVFAIL), errors);
            Arc::new(Outcome::Passing { response, ttl: None })
        }
        None => Arc::new(Failed::new(Cause::Aborted, Ede::OTHER, "internal error in a walk").into()),
    }
}
