//! A query whose reply has to be awaited: it joins a flight and writes its reply from the outcome.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cache::Entry;
use crate::dns::header::{self, Count};
use crate::dns::{Ede, Protocol, Query, reply};
use crate::observe::{Event, Plugin};
use crate::sys::clock;

use super::asked::Asked;
use super::drive;
use super::flights::{Full, Place};
use super::outcome::{self, Cause, Failed, Outcome};
use super::party::{Asker, Party, zone_of};
use super::resolver::Resolver;
use super::way::{Client, Way};

/// How long `verify` waits for the upstream before it uses an expired entry (RFC 8767 section 5).
const STALE_TIMER: Duration = Duration::from_millis(1800);

/// A longer message of a client is not kept as it is while its answer is waited for.
const LONG_MESSAGE: usize = 1232;

/// The pause after a refresh that failed, where the Corefile names none (RFC 8767 section 5).
const REFRESH_PAUSE: Duration = Duration::from_secs(30);

/// The pause after a refresh for which nobody could be asked.
const SHED_PAUSE: Duration = Duration::from_secs(1);

/// A query whose reply has to be awaited, or a refresh.
pub struct Miss {
    resolver: Arc<Resolver>,
    asked: Asked,
    worker: usize,
    zone: usize,
    client: Client,
    message: Box<[u8]>,
    /// Its place among those who wait, once it has one.
    place: Option<Place>,
    /// Why it has none.
    refused: Option<Full>,
    /// An expired entry: for a query what it gets if the upstream does not answer in time, for a refresh what is renewed.
    old: Option<Arc<Entry>>,
}

/// What a miss has come to, for who writes the reply himself.
#[derive(Debug)]
pub enum Landed {
    /// This.
    Outcome(Arc<Outcome>),
    /// There is nothing better than the expired entry.
    Stale(Arc<Entry>),
}

impl Miss {
    pub(super) fn new(
        resolver: Arc<Resolver>,
        way: &Way<'_>,
        query: &mut Query<'_>,
        stale: Option<Arc<Entry>>,
    ) -> Miss {
        Miss {
            asked: Asked::of(&resolver, way, query),
            resolver,
            worker: way.worker,
            zone: way.zone,
            client: *way.client,
            message: kept_message(query),
            place: None,
            refused: None,
            old: stale,
        }
    }

    pub(super) fn refresh(resolver: Arc<Resolver>, way: &Way<'_>, query: &mut Query<'_>, old: Arc<Entry>) -> Miss {
        Miss { message: Box::default(), ..Miss::new(resolver, way, query, Some(old)) }
    }

    /// The client's message, as much of it as its reply needs.
    pub(super) fn message(&self) -> &[u8] {
        &self.message
    }

    /// A question that no client has.
    pub(super) fn unasked(resolver: Arc<Resolver>, way: &Way<'_>, query: &mut Query<'_>) -> Miss {
        Miss { message: Box::default(), ..Miss::new(resolver, way, query, None) }
    }

    /// The same question, whose denial is kept as that of its type alone: nothing beneath is denied by it.
    pub(super) fn about_one_type(mut self) -> Miss {
        self.asked.one_type = true;
        self
    }

    /// What is asked.
    pub fn asked(&self) -> &Asked {
        &self.asked
    }

    /// Whether nobody waits for this one.
    pub fn is_refresh(&self) -> bool {
        self.message.is_empty()
    }

    /// Takes a place among those who wait; `false` where there is none for it, which is counted. To be called as soon as
    /// the query is read: who floods is shed before anything is spent on it, and before queues overflow for all.
    pub fn board(&mut self) -> bool {
        let counts = self.resolver.registry.worker(self.worker);
        match self.resolver.flights.join(self.asked.flight.clone(), &self.party()) {
            Place::Full(full) => {
                counts.count(match full {
                    Full::Total => Event::ShedFlights,
                    Full::Client => Event::ShedClient,
                    Full::Zone => Event::ShedZone,
                });
                self.refused = Some(full);
            }
            place => self.place = Some(place),
        }
        self.place.is_some()
    }

    /// Waits for the outcome and writes the reply, a whole message, into `out`. Of a refresh there is none. Where it has no
    /// place yet, it takes one first.
    pub async fn resolve(mut self, out: &mut Vec<u8>) {
        out.clear();
        if self.place.is_none() && !self.board() {
            return self.shed(out);
        }
        let outcome = self.landing().await;
        self.end(outcome.as_deref(), clock::now(), out);
    }

    /// Waits for what it has boarded, and gives what a client would get. A refresh that has nothing to renew is over
    /// with that.
    pub(super) async fn land(mut self) -> Landed {
        if self.place.is_none() && (self.refused.is_some() || !self.board()) {
            return match self.old {
                Some(old) => Landed::Stale(old),
                None => Landed::Outcome(Arc::new(shed(self.refused))),
            };
        }
        let outcome = self.landing().await;
        self.judge(outcome, clock::now())
    }

    async fn landing(&mut self) -> Option<Arc<Outcome>> {
        let outcome = self.wait().await;
        // Its worker ended, or it panicked: then this one sees to a flight of its own, once.
        let aborted = outcome.as_ref().is_some_and(|outcome| outcome.is_aborted());
        if aborted && self.board() { self.wait().await } else { outcome }
    }

    /// The outcome of the flight that it has boarded, or `None` when the client should not wait any longer.
    async fn wait(&mut self) -> Option<Arc<Outcome>> {
        let (waiter, until) = match self.place.take().expect("it has boarded") {
            Place::Waits(waiter) => {
                self.resolver.registry.worker(self.worker).count(Event::FlightJoined);
                // It lands by the deadline of the one who asked first, if its worker is alive and it is not late.
                (waiter, Some(self.patience().unwrap_or(self.asked.deadline)))
            }
            Place::Leads(leader, waiter) => {
                // A task of its own: it goes on when this client hangs up, and a panic in it is caught.
                let flight = drive::fly(self.resolver.clone(), self.worker, self.asked.clone(), leader);
                tokio::task::spawn_local(flight);
                (waiter, self.patience())
            }
            Place::Full(_) => unreachable!("nobody boards what is full"),
        };
        let Some(until) = until else { return Some(waiter.outcome().await) };
        tokio::time::timeout_at(until.into(), waiter.outcome()).await.ok()
    }

    /// Until when a client waits that has something else: an expired entry.
    fn patience(&self) -> Option<Instant> {
        self.old.as_ref().filter(|_| !self.is_refresh())?;
        let timer = self.stale_settings().and_then(|stale| stale.verify_timeout).unwrap_or(STALE_TIMER);
        Some((self.asked.started + timer).min(self.asked.deadline))
    }

    /// Writes the reply for a query that there is no room to wait for: from an expired entry, if there is one.
    pub fn shed(self, out: &mut Vec<u8>) {
        out.clear();
        match &self.old {
            Some(old) if self.is_refresh() => self.paused(old, SHED_PAUSE, clock::now()),
            None if self.is_refresh() => {}
            Some(_) => self.finish_stale(out),
            None => self.finish(&shed(self.refused), out),
        }
    }

    /// Writes the reply from an outcome.
    pub fn finish(&self, outcome: &Outcome, out: &mut Vec<u8>) {
        if self.client.protocol == Protocol::Tcp && outcome.is_truncated() {
            // The one who asked first came by UDP, where half an answer is better than none.
            let text = "the upstream truncates its answer, and gives no whole one over TCP";
            return self.finish(&Failed::new(Cause::Answer, Ede::INVALID_DATA, text).into(), out);
        }
        let rcode = outcome.rcode();
        let plugin = match outcome {
            Outcome::Failed(_) => Plugin::None,
            _ if self.way().route.cache.is_some() => Plugin::Cache,
            _ => Plugin::Forward,
        };
        self.write(out, outcome.room(), |way, query, out| {
            if outcome.is_unusable() && way.route.cache.is_some() {
                way.slab.cache_drop();
            }
            let length = outcome.write(query, way.limit(query, out), false, out);
            self.resolver.finish(way, query, rcode, plugin, &mut out[..length], clock::now());
            length
        });
    }

    /// What is done when waiting is over: with an outcome, or without one because it took too long. An expired entry is
    /// used unless the outcome is better; after a failure there is a pause before it is refreshed again.
    pub fn end(&self, outcome: Option<&Outcome>, now: Instant, out: &mut Vec<u8>) {
        let stale = self.note_refresh(outcome, now);
        match outcome {
            _ if self.is_refresh() => {}
            _ if stale => self.finish_stale(out),
            Some(outcome) => self.finish(outcome, out),
            None => self.finish(&late(), out),
        }
    }

    /// The same, for who writes the reply himself.
    pub fn judge(&self, outcome: Option<Arc<Outcome>>, now: Instant) -> Landed {
        match &self.old {
            Some(old) if self.note_refresh(outcome.as_deref(), now) => Landed::Stale(old.clone()),
            _ => Landed::Outcome(outcome.unwrap_or_else(|| Arc::new(late()))),
        }
    }

    /// Ends the refresh of an expired entry, with a pause before the next unless it was answered. Whether that entry is to
    /// be used: half an answer is no better than an old one that is whole.
    fn note_refresh(&self, outcome: Option<&Outcome>, now: Instant) -> bool {
        let Some(old) = &self.old else { return false };
        let answered = outcome.is_some_and(|outcome| outcome.is_answer() && !outcome.is_truncated());
        if !answered {
            self.paused(old, outcome.map_or(self.recheck(), |outcome| self.pause(outcome)), now);
        } else if self.is_refresh() {
            old.refresh_ended(now, None, 0);
        }
        !answered
    }

    /// Writes the reply from an entry, with what is left of its time.
    pub(super) fn finish_kept(&self, entry: &Entry, now: Instant, out: &mut Vec<u8>) {
        self.write(out, outcome::room(&entry.response).max(reply::CLASSIC_SIZE), |way, query, out| {
            self.resolver.write_kept(way, query, entry, entry.remaining(now), None, out)
        });
    }

    /// Writes the reply from what another miss for the same question has come to.
    pub(super) fn finish_landed(&mut self, landed: Landed, out: &mut Vec<u8>) {
        match landed {
            Landed::Outcome(outcome) => self.finish(&outcome, out),
            Landed::Stale(entry) => {
                self.old = Some(entry);
                self.finish_stale(out);
            }
        }
    }

    fn finish_stale(&self, out: &mut Vec<u8>) {
        let (Some(old), Some(stale)) = (&self.old, self.stale_settings()) else { return };
        let room = outcome::room(&old.response).max(reply::CLASSIC_SIZE);
        self.write(out, room, |way, query, out| self.resolver.write_stale(way, stale, query, old, out));
    }

    fn write(&self, out: &mut Vec<u8>, room: usize, write: impl FnOnce(&Way<'_>, &Query<'_>, &mut [u8]) -> usize) {
        let query = Query::parse(&self.message).expect("it was parsed before it missed");
        out.resize(room.min(usize::from(u16::MAX)), 0);
        let length = write(&self.way(), &query, out);
        out.truncate(length);
    }

    fn party(&self) -> Party {
        let route = self.resolver.routes.routes[self.asked.route].fingerprint;
        let zones = &self.resolver.routes.listens[usize::from(self.client.listen)].zones;
        let depth = zones.zone(self.zone).label_count();
        Party {
            recoveries: self.asked.recoveries,
            asker: match self.is_refresh() {
                true => Asker::Nobody,
                false => Asker::of(self.client.peer.ip(), self.client.local.ip()),
            },
            zone: self.resolver.cache.key(route, zone_of(&self.asked.name, depth)).hash(),
        }
    }

    fn way(&self) -> Way<'_> {
        let door = &self.resolver.doors[usize::from(self.client.listen)];
        Way {
            worker: self.worker,
            now: self.asked.started,
            client: &self.client,
            route_index: self.asked.route,
            route: &self.resolver.routes.routes[self.asked.route],
            zone: self.zone,
            slab: door.meters[self.zone].worker(self.worker),
        }
    }

    fn stale_settings(&self) -> Option<&crate::cache::settings::ServeStale> {
        self.resolver.routes.routes[self.asked.route].cache.as_ref()?.serve_stale.as_ref()
    }

    /// The pause after a refresh that ended so.
    fn pause(&self, outcome: &Outcome) -> Duration {
        if outcome.is_remembered() || outcome.is_truncated() { self.recheck() } else { SHED_PAUSE }
    }

    fn recheck(&self) -> Duration {
        self.stale_settings().and_then(|stale| stale.failure_recheck).unwrap_or(REFRESH_PAUSE)
    }

    fn paused(&self, old: &Entry, pause: Duration, now: Instant) {
        old.refresh_ended(now, Some(pause), self.asked.recoveries);
    }
}

/// As much of a client's message as its reply needs: all of it, unless it is so long that many of them would add up.
fn kept_message(query: &Query<'_>) -> Box<[u8]> {
    if query.message.len() <= LONG_MESSAGE {
        return query.message.into();
    }
    let mut message = query.message[..query.question_end].to_vec();
    for section in [Count::Answer, Count::Authority, Count::Additional] {
        header::set_count(&mut message, section, 0);
    }
    if let Some(edns) = query.edns {
        header::set_count(&mut message, Count::Additional, 1);
        edns.write_bare(&mut message);
    }
    message.into()
}

/// For who has waited long enough.
pub(super) fn late() -> Outcome {
    Failed::new(Cause::Timeout, Ede::NO_REACHABLE_AUTHORITY, "no upstream has answered in time").into()
}

/// Over which limit a query is; `None`: too many wait for it to have been taken in.
fn shed(refused: Option<Full>) -> Outcome {
    let text = match refused {
        Some(Full::Total) => "too many names are being asked for",
        Some(Full::Client) => "too many queries of this client are waiting for an upstream",
        Some(Full::Zone) => "too many names of this domain are being asked for",
        None => "too many queries are waiting for an upstream",
    };
    Failed::new(Cause::Shed, Ede::OTHER, text).into()
}
