//! The resolver that is driven: built from a configuration, over what outlives a reload.

use std::net::SocketAddr;
use std::sync::Arc;

use dnslet::cache::Cache;
use dnslet::observe::Registry;
use dnslet::resolve::{Bounds, ClientPolicy, Effect, Failures, Flights, Outcome, Parts, Resolver};
use dnslet::routes::{self, Forward};
use dnslet::upstream::spec::Target;
use dnslet::upstream::{Failure, Leg, Network, Pool, Stage, Upstreams};

use super::world::Rules;

/// What outlives a reload.
pub struct Shared {
    pub cache: Arc<Cache>,
    flights: Arc<Flights>,
    failures: Arc<Failures>,
    registry: Arc<Registry>,
}

impl Shared {
    /// With room for all there is, so that nothing is evicted by itself.
    pub fn new() -> Shared {
        Shared {
            cache: Cache::new(8 << 20),
            flights: Flights::new(Bounds::sharing(400, 200)),
            failures: Failures::new(1 << 20),
            registry: Registry::new(1),
        }
    }

    /// The resolver of a configuration; its upstream is 192.0.2.`host`.
    pub fn resolver(&self, rules: &Rules, host: u8) -> Arc<Resolver> {
        let text = format!(".:53 {{\nbind 127.0.0.1\n{}\nforward . 192.0.2.{host}\n}}\n", rules.text);
        let routes = Arc::new(routes::check_text("model", &text).unwrap_or_else(|wrong| panic!("{wrong}")));
        let upstreams = Upstreams::new();
        let pool = |forward: &Forward| {
            let Target::Address(address) = &forward.spec.targets[0] else { panic!("an address") };
            Pool::new(&forward.spec, std::slice::from_ref(address), &upstreams).expect("a plain upstream")
        };
        let pools = routes.routes.iter().map(|route| route.forwards.iter().map(pool).collect()).collect();
        Arc::new(Resolver::new(Parts {
            routes,
            pools,
            cache: Arc::clone(&self.cache),
            flights: Arc::clone(&self.flights),
            failures: Arc::clone(&self.failures),
            walks: Arc::default(),
            registry: Arc::clone(&self.registry),
            clients: ClientPolicy::default(),
            query_log: None,
        }))
    }
}

/// The outcome, where there is only one upstream to be asked.
pub fn done(effect: Effect) -> Arc<Outcome> {
    match effect {
        Effect::Done(outcome) => outcome,
        Effect::Ask(_) => panic!("one upstream was to be asked once"),
    }
}

/// An upstream that is silent.
pub const TIMEOUT: Failure = Failure::Timeout(Leg {
    stage: Stage::Read,
    network: Network::Udp,
    local: None,
    remote: SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 53)), 53),
});
