//! An agent without sockets, and a clock that is turned by hand.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dnslet::cache::Cache;
use dnslet::dns::{Protocol, Type};
use dnslet::observe::Registry;
use dnslet::resolve::{
    About, Bounds, Client, ClientPolicy, Effect, Event, Failures, Flights, Miss, Outcome, Parts, Resolution, Resolver,
    Verdict, Walk,
};
use dnslet::routes;
use dnslet::upstream::spec::Target;
use dnslet::upstream::{Pool, Upstreams};

use crate::support::chance::Chance;
use crate::support::{Message, Query, time};

use super::world::World;

pub struct Side {
    resolver: Arc<Resolver>,
    now: Instant,
    /// The order in which upstreams answer.
    chance: Chance,
    /// Upstreams may answer before the last query of several is read, which saves questions.
    hurries: bool,
    /// What clients have asked, and what upstreams were asked.
    pub queries: usize,
    pub packets: usize,
    log: String,
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reply {
    pub rcode: u16,
    /// There are answers, be they aliases alone.
    pub answers: bool,
    pub data: BTreeSet<Vec<u8>>,
}

/// Queries that are being answered at the same time.
#[derive(Default)]
struct Play {
    flights: Vec<Flight>,
    walks: Vec<Option<Walk>>,
    replies: Vec<Vec<u8>>,
}

/// A question for an upstream, and who waits for the answer.
struct Flight {
    key: (usize, Box<[u8]>, Type),
    resolution: Resolution,
    effect: Effect,
    waiters: Vec<(usize, Waiter)>,
}

enum Waiter {
    Own(Miss),
    Step(About, Miss),
    Nobody(Miss),
}

impl Reply {
    pub fn of(bytes: &[u8], kind: u16) -> Reply {
        let reply = Message::parse(bytes).expect("a well-formed reply");
        let data = reply.answers.iter().filter(|record| record.kind == kind).map(|record| record.data.clone());
        Reply { rcode: reply.rcode, answers: !reply.answers.is_empty(), data: data.collect() }
    }
}

impl Side {
    pub fn new(corefile: &str, seed: u64, hurries: bool) -> Side {
        let routes = Arc::new(routes::check_text("walks", corefile).unwrap_or_else(|wrong| panic!("{wrong}")));
        let upstreams = Upstreams::new();
        let pool = |forward: &routes::Forward| {
            let Target::Address(address) = &forward.spec.targets[0] else { panic!("an address") };
            Pool::new(&forward.spec, std::slice::from_ref(address), &upstreams).expect("a plain upstream")
        };
        let pools = routes.routes.iter().map(|route| route.forwards.iter().map(pool).collect()).collect();
        let resolver = Arc::new(Resolver::new(Parts {
            routes,
            pools,
            cache: Cache::new(16 << 20),
            flights: Flights::new(Bounds::sharing(400, 200)),
            failures: Failures::new(1 << 20),
            walks: Arc::default(),
            registry: Registry::new(1),
            clients: ClientPolicy::default(),
            query_log: None,
        }));
        let chance = Chance::new(seed);
        Side { resolver, now: time::now(), chance, hurries, queries: 0, packets: 0, log: String::new() }
    }

    pub fn wait(&mut self, pause: Duration) {
        self.now += pause;
        self.note(&format!("{pause:?} later"));
    }

    pub fn note(&mut self, what: &str) {
        writeln!(self.log, "{what}").expect("a string takes it");
    }

    /// What happened.
    pub fn log(&self) -> &str {
        &self.log
    }

    /// Asks for several types at the same time: upstreams answer in any order.
    pub fn ask(&mut self, client: [u8; 4], name: &str, kinds: &[u16], world: &World) -> Vec<Reply> {
        let mut play = Play { replies: vec![Vec::new(); kinds.len()], ..Play::default() };
        play.walks.resize_with(kinds.len(), || None);
        let second_first = self.chance.percent(50);
        for at in 0..kinds.len() {
            let whose = if second_first { kinds.len() - 1 - at } else { at };
            self.start(&mut play, whose, client, name, kinds[whose]);
            while self.hurries && !play.flights.is_empty() && self.chance.percent(20) {
                self.land(&mut play, world);
            }
        }
        while !play.flights.is_empty() {
            self.land(&mut play, world);
        }
        let replies = play.replies.iter().zip(kinds).map(|(bytes, kind)| Reply::of(bytes, *kind)).collect();
        self.note(&format!("  is told {replies:?}"));
        replies
    }

    fn start(&mut self, play: &mut Play, whose: usize, client: [u8; 4], name: &str, kind: u16) {
        self.queries += 1;
        self.note(&format!("{client:?} asks {name} {kind}"));
        let local: SocketAddr = ([127, 0, 0, 1], 53).into();
        let client = Client { peer: (client, 40_000).into(), protocol: Protocol::Udp, listen: 0, local };
        let mut out = vec![0; 4096];
        let query = Query::new(name, kind).bytes();
        match self.resolver.answer(0, self.now, &query, &client, &mut out) {
            Verdict::Reply(length) => play.replies[whose] = out[..length].to_vec(),
            Verdict::Refresh(length, refreshes) => {
                play.replies[whose] = out[..length].to_vec();
                refreshes.into_iter().for_each(|refresh| self.board(play, whose, Waiter::Nobody(refresh)));
            }
            Verdict::Silence => panic!("silence"),
            Verdict::Miss(miss) => self.board(play, whose, Waiter::Own(miss)),
            Verdict::Walk(mut walk) => {
                let questions = walk.questions();
                play.walks[whose] = Some(*walk);
                for (about, miss) in questions {
                    self.board(play, whose, Waiter::Step(about, miss));
                }
            }
        }
    }

    /// Equal questions share a flight.
    fn board(&mut self, play: &mut Play, whose: usize, waiter: Waiter) {
        let (Waiter::Own(miss) | Waiter::Step(_, miss) | Waiter::Nobody(miss)) = &waiter;
        let asked = miss.asked();
        let key = (asked.route, asked.name.clone(), asked.qtype);
        if let Some(flight) = play.flights.iter_mut().find(|flight| flight.key == key) {
            return flight.waiters.push((whose, waiter));
        }
        let (resolution, effect) = Resolution::start(&self.resolver, asked.clone());
        play.flights.push(Flight { key, resolution, effect, waiters: vec![(whose, waiter)] });
    }

    /// Lands one of the flights.
    fn land(&mut self, play: &mut Play, world: &World) {
        let mut flight = play.flights.swap_remove(self.chance.below(play.flights.len()));
        let outcome = loop {
            match flight.effect {
                Effect::Done(outcome) => break outcome,
                Effect::Ask(_) => {
                    let query = Message::parse(flight.resolution.query()).expect("a query of ours");
                    self.packets += 1;
                    let answer = world.answer(&query);
                    let question = &query.questions[0];
                    self.note(&format!("    upstream: {} {}: {}", question.name, question.kind, answer[3] & 15));
                    flight.effect = flight.resolution.on(&self.resolver, Event::Answered(&answer), self.now);
                }
            }
        };
        for (whose, waiter) in flight.waiters {
            self.tell(play, whose, waiter, &outcome);
        }
    }

    fn tell(&mut self, play: &mut Play, whose: usize, waiter: Waiter, outcome: &Arc<Outcome>) {
        let (about, miss) = match waiter {
            Waiter::Own(miss) => return miss.end(Some(outcome), self.now, &mut play.replies[whose]),
            Waiter::Nobody(miss) => {
                miss.judge(Some(outcome.clone()), self.now);
                return;
            }
            Waiter::Step(about, miss) => (about, miss),
        };
        // A walk that is over waits for nothing.
        let Some(mut walk) = play.walks[whose].take() else { return };
        if let Some(end) = walk.on(about, miss.judge(Some(outcome.clone()), self.now), self.now) {
            for lesson in walk.end(end, self.now, &mut play.replies[whose]) {
                self.board(play, whose, Waiter::Nobody(lesson));
            }
            return;
        }
        let questions = walk.questions();
        play.walks[whose] = Some(walk);
        for (about, miss) in questions {
            self.board(play, whose, Waiter::Step(about, miss));
        }
    }
}
