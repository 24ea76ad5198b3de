//! Plays a scenario: the resolver is asked synchronously, misses are driven here, the clock is a number.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use dnslet::cache::Cache;
use dnslet::dns::Protocol;
use dnslet::observe::Registry;
use dnslet::resolve::{
    Bounds, Client, ClientPolicy, Effect, Event, Failures, Flights, Miss, Outcome, Parts, Resolution, Resolver,
    Verdict, Walk,
};
use dnslet::routes::{self, Forward};
use dnslet::upstream::spec::Target;
use dnslet::upstream::{Failure, Leg, Network, Pool, Stage, Upstreams};

use super::script::{Entry, Script, Step};
use super::text;
use crate::support::{Message, Query, time};

/// The resolver and the world around it.
pub(super) struct Player {
    resolver: Arc<Resolver>,
    registry: Arc<Registry>,
    now: Instant,
    upstream: HashMap<(String, u16), Entry>,
    asked: Vec<String>,
    refreshes: Vec<Miss>,
    last: Option<(Query, Vec<u8>)>,
}

/// Plays the whole of it; panics at the step that goes wrong.
#[track_caller]
pub fn run(text: &str) {
    let script = Script::parse(text);
    let mut player = Player::new(&script.config);
    for (head, step) in script.steps {
        if let Err(wrong) = player.play(step) {
            panic!("STEP {head}: {wrong}");
        }
    }
}

impl Player {
    pub(super) fn new(config: &str) -> Player {
        let text = format!(".:53 {{\nbind 127.0.0.1\nprometheus 127.0.0.1:9253\n{config}\n}}\n");
        let routes = Arc::new(routes::check_text("scenario", &text).unwrap_or_else(|wrong| panic!("{wrong}")));
        let upstreams = Upstreams::new();
        let pool = |forward: &Forward| {
            let address = |target: &Target| match target {
                Target::Address(address) => address.clone(),
                other => panic!("a scenario has no {other}"),
            };
            let addresses: Vec<_> = forward.spec.targets.iter().map(address).collect();
            Pool::new(&forward.spec, &addresses, &upstreams).expect("a plain upstream")
        };
        let pools = routes.routes.iter().map(|route| route.forwards.iter().map(pool).collect()).collect();
        let registry = Registry::new(1);
        let resolver = Arc::new(Resolver::new(Parts {
            routes,
            pools,
            cache: Cache::new(16 << 20),
            flights: Flights::new(Bounds::sharing(400, 200)),
            failures: Failures::new(4 << 20),
            walks: Arc::default(),
            registry: Arc::clone(&registry),
            clients: ClientPolicy::default(),
            query_log: None,
        }));
        Player {
            resolver,
            registry,
            now: time::now(),
            upstream: HashMap::new(),
            asked: Vec::new(),
            refreshes: Vec::new(),
            last: None,
        }
    }

    pub(super) fn play(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Upstream { name, kind, entry } => drop(self.upstream.insert((name, kind), entry)),
            Step::Query { query, tcp } => self.query(query, tcp)?,
            Step::TimePasses(duration) => self.now += duration,
            Step::Expect(expected) => {
                let (query, raw) = self.last.as_ref().ok_or("there was no reply")?;
                let reply = Message::parse(raw).ok_or_else(|| format!("not a message: {raw:02x?}"))?;
                reply.check_against(query);
                same(&text::reply(&reply), &expected)?;
            }
            Step::Asked(expected) => same(&self.take_asked(), &expected)?,
            Step::Refresh => {
                if self.refresh()? == 0 {
                    return Err("nothing runs in the background".to_owned());
                }
            }
            Step::Check { metric, value } => {
                let found = crate::support::agent::sum(&self.registry.render(), &metric, &[]);
                if found != value {
                    return Err(format!("{metric} is {found}"));
                }
            }
        }
        Ok(())
    }

    /// Lets run what waits to run in the background; returns how much that was.
    pub(super) fn refresh(&mut self) -> Result<usize, String> {
        let refreshes = std::mem::take(&mut self.refreshes);
        let count = refreshes.len();
        refreshes.into_iter().try_for_each(|refresh| self.resolve(refresh).map(drop))?;
        Ok(count)
    }

    /// The upstream queries since the last call.
    pub(super) fn take_asked(&mut self) -> Vec<String> {
        std::mem::take(&mut self.asked)
    }

    /// All metrics as text.
    pub(super) fn metrics(&self) -> String {
        self.registry.render()
    }

    /// The reply to the last query, taken apart.
    pub(super) fn reply(&self) -> Option<Message> {
        self.last.as_ref().and_then(|(_, raw)| Message::parse(raw))
    }

    fn query(&mut self, query: Query, tcp: bool) -> Result<(), String> {
        let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp };
        let local: SocketAddr = ([127, 0, 0, 1], 53).into();
        let client = Client { peer: ([127, 0, 0, 1], 40_000).into(), protocol, listen: 0, local };
        let mut out = vec![0; if tcp { 65_535 } else { 4_096 }];
        let length = match self.resolver.answer(0, self.now, &query.bytes(), &client, &mut out) {
            Verdict::Reply(length) => length,
            Verdict::Refresh(length, refreshes) => {
                self.refreshes.extend(refreshes);
                length
            }
            Verdict::Silence => 0,
            Verdict::Miss(miss) => {
                out = self.resolve(miss)?;
                out.len()
            }
            Verdict::Walk(walk) => {
                out = self.walk(*walk)?;
                out.len()
            }
        };
        out.truncate(length);
        self.last = (length > 0).then_some((query, out));
        Ok(())
    }

    /// Walks a search list to its end, one question after the other.
    fn walk(&mut self, mut walk: Walk) -> Result<Vec<u8>, String> {
        let mut questions = walk.questions();
        loop {
            if questions.is_empty() {
                return Err("a walk has nothing to ask and no end".to_owned());
            }
            let (about, miss) = questions.remove(0);
            let outcome = self.ask(&miss)?;
            if let Some(end) = walk.on(about, miss.judge(Some(outcome), self.now), self.now) {
                let mut out = Vec::new();
                self.refreshes.extend(walk.end(end, self.now, &mut out));
                return Ok(out);
            }
            questions.extend(walk.questions());
        }
    }

    /// Drives a miss to its end and returns the reply, if there is somebody to get it.
    fn resolve(&mut self, miss: Miss) -> Result<Vec<u8>, String> {
        let outcome = self.ask(&miss)?;
        let mut out = Vec::new();
        miss.end(Some(&outcome), self.now, &mut out);
        Ok(out)
    }

    /// What a miss comes to, when the scenario's upstream is asked.
    fn ask(&mut self, miss: &Miss) -> Result<Arc<Outcome>, String> {
        let (mut resolution, mut effect) = Resolution::start(&self.resolver, miss.asked().clone());
        loop {
            effect = match effect {
                Effect::Done(outcome) => return Ok(outcome),
                Effect::Ask(_) => {
                    let query = Message::parse(resolution.query()).ok_or("the upstream query is no message")?;
                    self.asked.push(text::query(&query));
                    let question = &query.questions[0];
                    let entry = self.upstream.get(&(question.name.clone(), question.kind));
                    let entry = entry.ok_or_else(|| format!("nobody answers {}", text::query(&query)))?;
                    let answer = entry.answer(&query);
                    let failure = Failure::Timeout(LEG);
                    let event = answer.as_deref().map_or(Event::Failed(&failure), Event::Answered);
                    resolution.on(&self.resolver, event, self.now)
                }
            };
        }
    }
}

/// Where a scenario's upstream would be.
const LEG: Leg = Leg {
    stage: Stage::Read,
    network: Network::Udp,
    local: None,
    remote: SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 53)), 53),
};

fn same(found: &[String], expected: &[String]) -> Result<(), String> {
    let shown = |lines: &[String]| lines.iter().map(|line| format!("\n    {line}")).collect::<String>();
    match found == expected {
        true => Ok(()),
        false => Err(format!("expected{}\n  found{}", shown(expected), shown(found))),
    }
}
