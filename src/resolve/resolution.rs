//! One miss as a state machine: told what happened, it says what to do next. No I/O, no clock.

use std::sync::Arc;
use std::time::Instant;

use crate::dns::{Ede, Rcode, Response};
use crate::upstream::Failure;

use super::accept::{self, Mismatch};
use super::asked::Asked;
use super::outcome::{Cause, Failed, Outcome};
use super::resolver::Resolver;

/// What happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// The pool that was to be asked answered.
    Answered(&'a [u8]),
    /// It did not.
    Failed(&'a Failure),
}

/// What to do next.
#[derive(Debug)]
pub enum Effect {
    /// Ask the route's `forward` of this index with [`Resolution::query`].
    Ask(usize),
    /// It is over.
    Done(Arc<Outcome>),
}

/// A miss in progress.
pub struct Resolution {
    asked: Asked,
    query: Arc<[u8]>,
    forward: usize,
}

impl Resolution {
    /// Starts with a question: either somebody is to be asked, or it is over already.
    pub fn start(resolver: &Resolver, asked: Asked) -> (Resolution, Effect) {
        let route = &resolver.routes.routes[asked.route];
        let size = route.bufsize.unwrap_or(crate::dns::edns::OWN_SIZE).min(crate::dns::edns::OWN_SIZE);
        let query = accept::upstream_query(&asked, size).into();
        let mut resolution = Resolution { asked, query, forward: 0 };
        if resolver.lines[resolution.asked.route].guard.as_ref().is_some_and(|guard| guard.detected()) {
            let text = "a forwarding loop was detected: what this server forwards comes back to it";
            return (resolution, done(Failed::new(Cause::Loop, Ede::OTHER, text)));
        }
        let effect = match resolution.forward_from(resolver, 0) {
            Some(forward) => {
                resolution.forward = forward;
                Effect::Ask(forward)
            }
            None => {
                let text = "no plugin of the server block answers this name";
                done(Failed::new(Cause::Unanswered, Ede::NOT_AUTHORITATIVE, text))
            }
        };
        (resolution, effect)
    }

    /// The query to send: complete but for its ID.
    pub fn query(&self) -> &Arc<[u8]> {
        &self.query
    }

    /// The question.
    pub fn asked(&self) -> &Asked {
        &self.asked
    }

    /// Goes on after an event.
    pub fn on(&mut self, resolver: &Resolver, event: Event<'_>, now: Instant) -> Effect {
        let message = match event {
            Event::Failed(failure) => return self.over(resolver, Failed::from(failure).into(), now),
            Event::Answered(message) => message,
        };
        let response = match accept::accept(&self.query, message) {
            Ok(response) => response,
            Err(mismatch) => return self.over(resolver, unusable(mismatch).into(), now),
        };
        if let Some(next) = self.next_forward(resolver, &response) {
            self.forward = next;
            return Effect::Ask(next);
        }
        self.over(resolver, resolver.settle(&self.asked, response, now), now)
    }

    /// The end of a flight that has failed and then waited for a late answer: that answer, if it says all and nobody has
    /// brought a younger one meanwhile, or the failure, which has been noted.
    pub fn late(&mut self, resolver: &Resolver, late: Option<&[u8]>, failure: &Failure, now: Instant) -> Arc<Outcome> {
        if let Some(younger) = resolver.kept_since(&self.asked) {
            return Arc::new(Outcome::Kept(younger));
        }
        if let Some(message) = late
            && let Effect::Done(outcome) = self.on(resolver, Event::Answered(message), now)
        {
            return outcome;
        }
        Arc::new(Failed::from(failure).into())
    }

    /// The end, as far as it depends on whom was asked.
    fn over(&self, resolver: &Resolver, outcome: Outcome, now: Instant) -> Effect {
        let outcome = Arc::new(outcome);
        resolver.remember(&self.asked, &outcome, now);
        Effect::Done(outcome)
    }

    /// The `forward` after this one, where this one passes such a response on.
    fn next_forward(&self, resolver: &Resolver, response: &Response) -> Option<usize> {
        let forward = &resolver.routes.routes[self.asked.route].forwards[self.forward];
        let nodata = response.rcode() == Rcode::NOERROR && !response.has_answer(self.asked.qtype);
        let passes = forward.next.contains(&response.rcode()) || (forward.next_on_nodata && nodata);
        if passes { self.forward_from(resolver, self.forward + 1) } else { None }
    }

    fn forward_from(&self, resolver: &Resolver, from: usize) -> Option<usize> {
        let forwards = &resolver.routes.routes[self.asked.route].forwards;
        (from..forwards.len()).find(|&index| forwards[index].matches(&self.asked.name))
    }
}

fn done(failed: Failed) -> Effect {
    Effect::Done(Arc::new(failed.into()))
}

fn unusable(mismatch: Mismatch) -> Failed {
    Failed::new(Cause::Answer, Ede::INVALID_DATA, mismatch.text())
}
