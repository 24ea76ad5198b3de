//! An agent without sockets, and a clock that is turned by hand.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dnslet::cache::Cache;
use dnslet::dns::Protocol;
use dnslet::observe::Registry;
use dnslet::resolve::{
    Bounds, Client, ClientPolicy, Effect, Event, Failures, Flights, Landed, Miss, Parts, Resolution, Resolver, Verdict,
    Walk,
};
use dnslet::routes;
use dnslet::upstream::spec::Target;
use dnslet::upstream::{Pool, Upstreams};

use crate::support::{Message, Query, time};

use super::world::{DOMAIN, World, ZONE};

pub struct Side {
    resolver: Arc<Resolver>,
    now: Instant,
    /// What clients have asked, and what upstreams were asked.
    pub queries: usize,
    pub packets: usize,
    log: String,
}

/// What a client is told.
#[derive(Clone, Debug)]
pub struct Reply {
    pub rcode: u16,
    pub answers: usize,
    pub data: Vec<Vec<u8>>,
}

impl Side {
    pub fn new(world: &World, walks: bool) -> Side {
        let autopath = if walks { format!("autopath @query {{\nsearch {DOMAIN}\n}}") } else { String::new() };
        // Nobody is told to cut where the server denies what has names beneath it.
        let cut = if walks && world.proper { format!("denial_cut {ZONE}") } else { String::new() };
        let text = format!(
            "{ZONE}:53 {{\n{autopath}\ncache {{\n{cut}\ndenial 9984 5\n}}\nforward . 192.0.2.1\n}}\n\
             .:53 {{\ncache\nforward . 192.0.2.2\n}}\n"
        );
        let routes = Arc::new(routes::check_text("walks", &text).unwrap_or_else(|wrong| panic!("{wrong}")));
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
        Side { resolver, now: time::now(), queries: 0, packets: 0, log: String::new() }
    }

    pub fn wait(&mut self, pause: Duration) {
        self.now += pause;
        writeln!(self.log, "{pause:?} later").expect("a string takes it");
    }

    /// The last of what happened.
    pub fn log(&self) -> String {
        let lines: Vec<&str> = self.log.lines().collect();
        lines[..].join("\n")
    }

    pub fn ask(&mut self, client: [u8; 4], name: &str, kind: u16, world: &World) -> Reply {
        self.queries += 1;
        writeln!(self.log, "{client:?} asks {name} {kind}").expect("a string takes it");
        let local: SocketAddr = ([127, 0, 0, 1], 53).into();
        let client = Client { peer: (client, 40_000).into(), protocol: Protocol::Udp, listen: 0, local };
        let mut out = vec![0; 4096];
        let query = Query::new(name, kind).bytes();
        let length = match self.resolver.answer(0, self.now, &query, &client, &mut out) {
            Verdict::Reply(length) => length,
            Verdict::Refresh(length, refreshes) => {
                refreshes.iter().for_each(|refresh| _ = self.land(refresh, world));
                length
            }
            Verdict::Silence => panic!("silence"),
            Verdict::Miss(miss) => {
                let Landed::Outcome(outcome) = self.land(&miss, world) else { panic!("nothing is stale here") };
                miss.end(Some(&outcome), self.now, &mut out);
                out.len()
            }
            Verdict::Walk(walk) => {
                out = self.walk(*walk, world);
                out.len()
            }
        };
        let reply = Message::parse(&out[..length]).expect("a well-formed reply");
        writeln!(self.log, "  is told {} {:?}", reply.rcode, reply.answers).expect("a string takes it");
        let data = reply.answers.iter().filter(|record| record.kind == kind).map(|record| record.data.clone());
        Reply { rcode: reply.rcode, answers: reply.answers.len(), data: data.collect() }
    }

    fn walk(&mut self, mut walk: Walk, world: &World) -> Vec<u8> {
        let mut end = None;
        while end.is_none() {
            let questions = walk.questions();
            assert!(!questions.is_empty(), "a walk has nothing to ask and no end");
            for (about, miss) in questions {
                let landed = self.land(&miss, world);
                end = end.or_else(|| walk.on(about, landed, self.now));
            }
        }
        let mut out = Vec::new();
        for lesson in walk.end(end.expect("it has ended"), self.now, &mut out) {
            self.land(&lesson, world);
        }
        out
    }

    /// What a question comes to.
    fn land(&mut self, miss: &Miss, world: &World) -> Landed {
        let (mut resolution, mut effect) = Resolution::start(&self.resolver, miss.asked().clone());
        loop {
            effect = match effect {
                Effect::Done(outcome) => return miss.judge(Some(outcome), self.now),
                Effect::Ask(_) => {
                    let query = Message::parse(resolution.query()).expect("a query of ours");
                    self.packets += 1;
                    writeln!(self.log, "    upstream: {:?}", query.questions[0]).expect("a string takes it");
                    resolution.on(&self.resolver, Event::Answered(&world.answer(&query)), self.now)
                }
            };
        }
    }
}
