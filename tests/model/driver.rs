//! Drives a resolver and the reference side by side, and compares whatever a client could see. There are no sockets: what
//! is on its way to an upstream is in a list, and lands when chance says so, or when its time is up.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dnslet::cache::Key;
use dnslet::dns::Protocol;
use dnslet::resolve::{Client, Effect, Event, Miss, Outcome, Resolution, Resolver, Verdict};

use super::reference::{Decision, Ending, Expired, Reference, Refresh, Slot};
use super::rig::{Shared, TIMEOUT, done};
use crate::support::chance::Chance;

use super::world::{Question, Reply, Rules, Said, Word};
use crate::support::wire::SERVFAIL;
use crate::support::{Message, Query, time};

/// Every client has its reply by then, in milliseconds after its query.
const BUDGET: u64 = 4_500;
/// So long after that an upstream's answer is still taken.
const LATE: u64 = 5_500;
/// How many of the last steps are told when something is wrong.
const TOLD: usize = 40;
const CONFIGURATIONS: usize = 3;
/// An Extended DNS Error (RFC 8914 section 4.25).
const INVALID_DATA: u16 = 24;

/// A world with its resolver and its reference.
pub struct World {
    seed: u64,
    chance: Chance,
    start: Instant,
    now: u64,
    number: u32,
    /// Hardly anything but failures comes from upstreams.
    outage: bool,
    shared: Shared,
    rules: Vec<Rules>,
    references: Vec<Reference>,
    /// Which configuration is in force.
    current: usize,
    resolver: Arc<Resolver>,
    flights: Vec<Flight>,
    keys: BTreeMap<(usize, Slot), Key>,
    told: VecDeque<(u64, Step)>,
    /// How often each kind of thing was seen.
    pub seen: BTreeMap<&'static str, u64>,
}

/// A question on its way to an upstream.
struct Flight {
    key: Key,
    config: usize,
    question: Question,
    resolver: Arc<Resolver>,
    resolution: Resolution,
    deadline: u64,
    /// It has failed, but an answer would still be taken.
    late: bool,
    waiting: Vec<Waiting>,
}

/// Who waits for a flight.
struct Waiting {
    miss: Miss,
    /// The client; none for a refresh.
    client: Option<Asker>,
    /// What is refreshed.
    entry: Option<u64>,
    /// When the client waits no longer.
    until: u64,
}

/// A client that waits.
struct Asker {
    query: Query,
    edns: bool,
    protocol: Protocol,
    expired: Option<Expired>,
}

#[derive(Debug)]
#[expect(dead_code, reason = "printed when something is wrong")]
enum Step {
    Configuration(String),
    Asked(Question, &'static str),
    Heard(Question, Said, &'static str),
    TimerEnded(Question),
    Evicted(Slot),
    Reloaded(usize),
}

impl World {
    pub fn new(seed: u64) -> World {
        World::judged_by(seed, |rules| rules)
    }

    /// A world whose reference believes in other rules than are in the Corefile.
    pub fn judged_by(seed: u64, believed: fn(Rules) -> Rules) -> World {
        let mut chance = Chance::new(seed);
        let shared = Shared::new();
        let mut rules: Vec<Rules> = Vec::new();
        while rules.len() < CONFIGURATIONS {
            let other = Rules::any(&mut chance);
            if rules.iter().all(|known| known.text != other.text) {
                rules.push(other);
            }
        }
        let told = rules.iter().map(|rules| (0, Step::Configuration(rules.text.clone()))).collect();
        World {
            seed,
            chance,
            start: time::now(),
            now: 0,
            number: 0,
            outage: false,
            resolver: shared.resolver(&rules[0], 53),
            shared,
            references: rules.iter().cloned().map(believed).map(Reference::new).collect(),
            rules,
            current: 0,
            flights: Vec::new(),
            keys: BTreeMap::new(),
            told,
            seen: BTreeMap::new(),
        }
    }

    /// One thing happens.
    pub fn step(&mut self) {
        match self.chance.below(1000) {
            0..560 => self.ask(),
            560..820 => self.hear(),
            820..900 => {
                let pause = self.chance.below(3_000) as u64;
                self.pass(pause);
            }
            900..960 => {
                let pause = self.chance.of(&[500, 1_000, 2_000, 5_000, 10_000, 30_000, 31_000]);
                self.pass(pause);
            }
            960..965 => {
                let pause = self.chance.of(&[61_000, 300_000, 3_601_000, 86_400_000, 700_000_000]);
                self.pass(pause);
            }
            965..983 => self.evict(),
            983..990 => self.outage = self.chance.percent(30),
            990..997 => self.reload(self.current),
            _ => {
                let config = self.chance.below(CONFIGURATIONS);
                self.reload(config);
            }
        }
    }

    fn ask(&mut self) {
        let question = Question::any(&mut self.chance);
        while self.references[self.current].is_unsure(question, self.now) {
            self.pass(1000);
        }
        let edns = question.dnssec_ok || self.chance.percent(50);
        let query = question.message(edns);
        let decision = self.references[self.current].ask(question, self.now);
        let local: SocketAddr = ([127, 0, 0, 1], 53).into();
        let protocol = if self.chance.percent(10) { Protocol::Tcp } else { Protocol::Udp };
        let client = Client { peer: ([127, 0, 0, 1], 40_000).into(), protocol, listen: 0, local };
        let mut out = vec![0; 4_096];
        let verdict = self.resolver.answer(0, self.instant(), &query.bytes(), &client, &mut out);
        match verdict {
            Verdict::Reply(length) => {
                self.note(Step::Asked(question, "answered"));
                let Decision::Now { reply, refresh, .. } = decision else { panic!("an upstream was to be asked") };
                assert_ne!(refresh, Refresh::Yes, "an entry was to be refreshed");
                self.compare(&query, edns, &out[..length], &reply, "at once");
            }
            Verdict::Refresh(length, mut refreshes) => {
                let miss = refreshes.pop().filter(|_| refreshes.is_empty()).expect("one entry is renewed at a time");
                self.note(Step::Asked(question, "answered, and a refresh began"));
                let Decision::Now { reply, refresh, entry: Some(entry) } = decision else {
                    panic!("no refresh: {decision:?}")
                };
                assert_ne!(refresh, Refresh::No, "nothing was to be refreshed");
                self.compare(&query, edns, &out[..length], &reply, "at once, refreshing");
                self.references[self.current].refreshes(entry);
                *self.seen.entry("refreshes").or_default() += 1;
                self.board(question, Waiting { miss, client: None, entry: Some(entry), until: u64::MAX });
            }
            Verdict::Miss(miss) => {
                self.note(Step::Asked(question, "waits"));
                let Decision::Wait { expired } = decision else { panic!("nobody was to be asked: {decision:?}") };
                let timer = expired.as_ref().map_or(BUDGET, |expired| expired.timer.min(BUDGET));
                let entry = expired.as_ref().map(|expired| expired.entry);
                let until = self.now + timer;
                self.board(
                    question,
                    Waiting { miss, client: Some(Asker { query, edns, protocol, expired }), entry, until },
                );
            }
            Verdict::Walk(_) => panic!("a walk without `autopath`"),
            Verdict::Silence => panic!("a query without a reply"),
        }
    }

    /// Equal questions share a flight.
    fn board(&mut self, question: Question, waiting: Waiting) {
        let asked = waiting.miss.asked();
        self.keys.insert((self.current, Slot::of_type(question)), asked.exact.clone());
        self.keys.insert((self.current, Slot::of_name(question)), asked.whole.clone());
        if let Some(flight) = self.flights.iter_mut().find(|flight| flight.key == asked.flight) {
            flight.waiting.push(waiting);
            return;
        }
        let (key, resolver) = (asked.flight.clone(), self.resolver.clone());
        let (resolution, effect) = Resolution::start(&resolver, asked.clone());
        assert!(matches!(effect, Effect::Ask(0)), "{effect:?}");
        let (config, deadline) = (self.current, self.now + BUDGET);
        self.flights.push(Flight {
            key,
            config,
            question,
            resolver,
            resolution,
            deadline,
            late: false,
            waiting: vec![waiting],
        });
    }

    /// An upstream answers one of the questions on their way, if there is one.
    fn hear(&mut self) {
        if self.flights.is_empty() {
            return;
        }
        let index = self.chance.below(self.flights.len());
        let word = Word::any(&mut self.chance, self.outage);
        // An answer beneath it ends what its denial cuts for an hour, so it is denied early and often.
        let word = if self.flights[index].question.is_above() && self.chance.percent(60) {
            Word::Nxdomain { ttl: 300, minimum: 300 }
        } else {
            word
        };
        self.land(index, word, false);
    }

    /// `in_vain`: the flight's time is up.
    fn land(&mut self, index: usize, word: Word, in_vain: bool) {
        self.number += 1;
        let said = Said { number: self.number, word };
        let now = self.instant();
        let mut flight = self.flights.swap_remove(index);
        self.note(Step::Heard(flight.question, said, if flight.late { "late" } else { "in time" }));
        let message = said.to_wire(flight.resolution.query());
        let outcome = match (&message, flight.late) {
            (message, true) => flight.resolution.late(&flight.resolver, message.as_deref(), &TIMEOUT, now),
            (Some(message), false) => done(flight.resolution.on(&flight.resolver, Event::Answered(message), now)),
            (None, false) => done(flight.resolution.on(&flight.resolver, Event::Failed(&TIMEOUT), now)),
        };
        let ending = self.references[flight.config].hear(flight.question, said, flight.late, self.now);
        for waiting in std::mem::take(&mut flight.waiting) {
            self.end(flight.config, waiting, Some((&outcome, &ending)));
        }
        if in_vain && !flight.late {
            (flight.late, flight.deadline) = (true, flight.deadline + LATE);
            self.flights.push(flight);
        }
    }

    /// Somebody's wait is over: with an outcome, or because it took too long.
    fn end(&mut self, config: usize, waiting: Waiting, outcome: Option<(&Outcome, &Ending)>) {
        let answered = outcome.is_some_and(|(_, ending)| ending.answered);
        if let Some(entry) = waiting.entry {
            self.references[config].refreshed(entry, answered, self.now);
        }
        let mut out = Vec::new();
        waiting.miss.end(outcome.map(|(outcome, _)| outcome), self.instant(), &mut out);
        let Some(Asker { query, edns, protocol, expired }) = waiting.client else {
            assert!(out.is_empty(), "a refresh has no reply");
            return;
        };
        let expected = match (expired, outcome) {
            (_, Some((_, ending))) if answered => ending.reply.clone(),
            (Some(expired), _) => expired.reply,
            // Over TCP there is no excuse for half an answer.
            (None, Some((_, ending))) if ending.reply.truncated && protocol == Protocol::Tcp => {
                Reply::failure(SERVFAIL, Some(INVALID_DATA))
            }
            (None, Some((_, ending))) => ending.reply.clone(),
            (None, None) => Reply::timeout(),
        };
        self.compare(
            &query,
            edns,
            &out,
            &expected,
            if outcome.is_some() { "after a wait" } else { "not waiting longer" },
        );
    }

    fn compare(&mut self, query: &Query, edns: bool, raw: &[u8], expected: &Reply, when: &'static str) {
        let message = Message::parse(raw).unwrap_or_else(|| panic!("not a message: {raw:02x?}"));
        message.check_against(query);
        let expected = Reply { error: expected.error.filter(|_| edns), ..expected.clone() };
        assert_eq!(Reply::read(&message), expected, "the reply {when}, found and expected");
        let kind = match (expected.error, expected.rcode) {
            (Some(3), _) => "stale answers",
            (Some(19), _) => "stale NXDOMAIN",
            (Some(13), _) => "remembered failures",
            (Some(29), _) => "denials of names above",
            (_, 0 | 3) => "answers",
            _ => "failures",
        };
        *self.seen.entry(kind).or_default() += 1;
    }

    /// Time passes, and with it the patience of those who wait.
    fn pass(&mut self, pause: u64) {
        let end = self.now + pause;
        loop {
            let waits = |flight: &Flight| flight.waiting.iter().map(|waiting| waiting.until).min().unwrap_or(u64::MAX);
            let ends = self.flights.iter().map(|flight| flight.deadline.min(waits(flight)));
            let Some((index, at)) = ends.enumerate().min_by_key(|(_, at)| *at).filter(|(_, at)| *at <= end) else {
                break;
            };
            self.now = self.now.max(at);
            let flight = &mut self.flights[index];
            if flight.deadline <= at {
                self.land(index, Word::Silence, true);
                continue;
            }
            let late =
                flight.waiting.iter().position(|waiting| waiting.until <= at).expect("one has waited long enough");
            let (waiting, config, question) = (flight.waiting.swap_remove(late), flight.config, flight.question);
            self.note(Step::TimerEnded(question));
            self.end(config, waiting, None);
        }
        self.now = end;
    }

    fn evict(&mut self) {
        let slots: Vec<Slot> = self.references[self.current].slots().collect();
        if slots.is_empty() {
            return;
        }
        let slot = self.chance.of(&slots);
        self.note(Step::Evicted(slot));
        self.references[self.current].evict(slot);
        self.shared.cache.remove(&self.keys[&(self.current, slot)].as_ref());
    }

    /// Entries are those of a configuration: an unchanged one finds them again, though its upstream may be another, and
    /// another configuration does not see them.
    fn reload(&mut self, config: usize) {
        self.note(Step::Reloaded(config));
        self.current = config;
        self.resolver = self.shared.resolver(&self.rules[config], self.chance.of(&[53, 54]));
    }

    fn instant(&self) -> Instant {
        self.start + Duration::from_millis(self.now)
    }

    fn note(&mut self, step: Step) {
        if self.told.len() >= TOLD {
            self.told.remove(CONFIGURATIONS);
        }
        self.told.push_back((self.now, step));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "seed {}, configuration {} is in force; what happened, time in milliseconds:",
                self.seed, self.current
            );
            self.told.iter().for_each(|(at, step)| eprintln!("{at:>12} {step:?}"));
        }
    }
}
