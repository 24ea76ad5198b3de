//! The only part of a resolution that waits: it performs effects on pools and lands flights.

use std::sync::Arc;
use std::time::Duration;

use crate::observe::Event as Counted;
use crate::sys::clock;
use crate::upstream;

use super::asked::Asked;
use super::flights::Leader;
use super::outcome::{Cause, Outcome};
use super::resolution::{Effect, Event, Resolution};
use super::resolver::Resolver;

/// How long after its clients have had their replies a flight may still bring an answer: the next client finds it in the
/// cache. With their budget that is 10 s (RFC 8767 section 5 asks for 10 to 30 s).
const LATE: Duration = Duration::from_millis(5500);

/// Sees one flight through to its landing.
pub(super) async fn fly(resolver: Arc<Resolver>, worker: usize, asked: Asked, leader: Leader) {
    let awaited = leader.awaited();
    let (mut resolution, mut effect) = Resolution::start(&resolver, asked);
    let outcome = loop {
        let forward = match effect {
            Effect::Done(outcome) => break outcome,
            Effect::Ask(forward) => forward,
        };
        let query = resolution.query().clone();
        let asked = resolution.asked();
        let pool = &resolver.lines[asked.route].pools[forward];
        let (client, budget, deadline) = (asked.protocol, asked.deadline, asked.deadline + LATE);
        let mut exchange =
            match pool.begin(upstream::Ask { query: &query, client, budget, deadline, awaited: &awaited }) {
                Ok(exchange) => exchange,
                Err(failure) => {
                    effect = resolution.on(&resolver, Event::Failed(&failure), clock::now());
                    continue;
                }
            };
        let failure = match exchange.run().await {
            Ok(exchanged) => {
                effect = resolution.on(&resolver, Event::Answered(&exchanged.wire), clock::now());
                continue;
            }
            Err(failure) => failure,
        };
        effect = resolution.on(&resolver, Event::Failed(&failure), clock::now());
        if let (Effect::Done(outcome), true) = (&effect, exchange.is_open() && resolver.flights.has_room()) {
            resolver.note_failure(worker, resolution.asked(), outcome);
            let leader = leader.land_and_stay(outcome.clone());
            let late = exchange.linger().await;
            drop(exchange);
            return leader.land(resolution.late(&resolver, late.as_deref(), &failure, clock::now()));
        }
    };
    resolver.note_failure(worker, resolution.asked(), &outcome);
    leader.land(outcome);
}

impl Resolver {
    /// Counts a failure and tells the `errors` plugin.
    fn note_failure(&self, worker: usize, asked: &Asked, outcome: &Outcome) {
        let Outcome::Failed(failed) = outcome else { return };
        let counts = self.registry.worker(worker);
        counts.count(match failed.cause {
            Cause::Timeout => Counted::FailedTimeout,
            Cause::Network => Counted::FailedNetwork,
            Cause::Local => Counted::FailedLocal,
            Cause::Tls => Counted::FailedTls,
            Cause::Unhealthy => Counted::FailedUnhealthy,
            Cause::Answer => Counted::FailedAnswer,
            Cause::Loop => Counted::FailedLoop,
            Cause::Unanswered => Counted::FailedUnanswered,
            Cause::Overloaded => Counted::ShedUpstream,
            Cause::Paced => Counted::ShedPaced,
            Cause::Shed => Counted::ShedFlights,
            Cause::Aborted => Counted::FailedPanic,
        });
        self.log_failure(asked, failed);
    }
}
