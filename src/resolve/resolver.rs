//! The snapshot that answers queries.

use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::cache::{Cache, Quota};
use crate::dns::Name;
use crate::observe::errors_log::ErrorsLog;
use crate::observe::log::QueryLog;
use crate::observe::{Meter, MeterKey, Registry};
use crate::plugins::front::loadbalance::{Loadbalance, Weighted};
use crate::plugins::front::weights::Weights;
use crate::routes::{Fnv, Listen, Route, Routes};
use crate::upstream::Pool;

use super::autopath::{Search, Walks};
use super::failures::Failures;
use super::flights::Flights;
use super::gate::ClientPolicy;
use super::loopguard::LoopGuard;

/// Where the snapshot in force is found. A worker loads it once per batch.
pub type Shared = ArcSwap<Resolver>;

/// What a snapshot is made of.
pub struct Parts {
    /// The compiled Corefile.
    pub routes: Arc<Routes>,
    /// The pool of each `forward` of each route.
    pub pools: Vec<Vec<Arc<Pool>>>,
    /// The cache, the same one for all snapshots.
    pub cache: Arc<Cache>,
    /// The misses in progress, the same for all snapshots.
    pub flights: Arc<Flights>,
    /// The questions that failed, the same for all snapshots.
    pub failures: Arc<Failures>,
    /// Which clients walk search lists themselves, the same for all snapshots.
    pub walks: Arc<Walks>,
    /// Where is counted.
    pub registry: Arc<Registry>,
    /// Who is answered.
    pub clients: ClientPolicy,
    /// Where lines of the `log` plugin go.
    pub query_log: Option<QueryLog>,
}

/// Answers queries by one configuration.
pub struct Resolver {
    pub(super) routes: Arc<Routes>,
    pub(super) lines: Vec<Line>,
    pub(super) doors: Vec<Door>,
    pub(super) cache: Arc<Cache>,
    pub(super) flights: Arc<Flights>,
    pub(super) failures: Arc<Failures>,
    pub(super) walks: Arc<Walks>,
    pub(super) registry: Arc<Registry>,
    pub(super) clients: ClientPolicy,
    pub(super) query_log: Option<QueryLog>,
}

/// What one route needs beside its settings.
pub(super) struct Line {
    pub(super) pools: Vec<Arc<Pool>>,
    /// For positive and for negative entries.
    pub(super) quotas: [Arc<Quota>; 2],
    pub(super) guard: Option<LoopGuard>,
    pub(super) errors: Option<ErrorsLog>,
    /// What the file of `loadbalance weighted` says.
    pub(super) weights: Option<ArcSwap<Weights>>,
    /// The search list of `autopath`, as far as the question does not name it.
    pub(super) search: Option<ArcSwap<Search>>,
}

/// What one listener needs beside its zone table.
pub(super) struct Door {
    /// For each zone of the listener's table.
    pub(super) meters: Vec<Arc<Meter>>,
    /// Equal for two snapshots in which every name has the same route.
    pub(super) fingerprint: u64,
    /// For queries that no zone takes.
    pub(super) dropped: Arc<Meter>,
}

impl Resolver {
    /// Puts a snapshot together. Counters, entries and quotas of routes that did not change are found again.
    pub fn new(parts: Parts) -> Resolver {
        let Parts { routes, pools, cache, flights, failures, walks, registry, clients, query_log } = parts;
        assert_eq!(pools.len(), routes.routes.len(), "each route has its pools");
        let lines = routes
            .routes
            .iter()
            .zip(pools)
            .map(|(route, pools)| Line {
                pools,
                quotas: cache.quotas(route.fingerprint, route.cache.as_ref()),
                guard: route.loop_check.then(|| LoopGuard::new(route.zones.first().unwrap_or(&Name::root()))),
                errors: route.errors.as_ref().map(|errors| ErrorsLog::new(errors.consolidate.clone())),
                weights: matches!(route.loadbalance, Some(Loadbalance::Weighted(_))).then(ArcSwap::default),
                search: route.autopath.as_ref().map(|autopath| ArcSwap::from_pointee(Search::of(autopath))),
            })
            .collect();
        let doors = routes.listens.iter().map(|listen| Door::new(listen, &routes.routes, &registry)).collect();
        Resolver { routes, lines, doors, cache, flights, failures, walks, registry, clients, query_log }
    }

    /// From now on these are the weights of every route whose `loadbalance` line is this one. Until told, a route has
    /// none.
    pub fn weigh(&self, by: &Weighted, weights: &Arc<Weights>) {
        for (route, line) in self.routes.routes.iter().zip(&self.lines) {
            if let (Some(Loadbalance::Weighted(own)), Some(place)) = (&route.loadbalance, &line.weights)
                && own == by
            {
                place.store(Arc::clone(weights));
            }
        }
    }

    /// From now on this is the search list of every route whose `autopath` line names the file. Until told, such a route
    /// has none.
    pub fn search(&self, file: &Path, domains: &Arc<[Name]>) {
        for (route, line) in self.routes.routes.iter().zip(&self.lines) {
            if let (Some(autopath), Some(place)) = (&route.autopath, &line.search)
                && autopath.file() == Some(file)
            {
                place.store(Arc::new(Search::new(domains.clone())));
            }
        }
    }

    /// The domains of the search list of a route with `autopath`, as far as questions do not name it.
    pub fn search_domains(&self, route: usize) -> Option<Arc<[Name]>> {
        Some(Arc::clone(&self.lines.get(route)?.search.as_ref()?.load().domains))
    }

    /// The compiled Corefile.
    pub fn routes(&self) -> &Arc<Routes> {
        &self.routes
    }

    /// Whether each route that `other` has as well asks the same upstreams.
    pub fn asks_like(&self, other: &Resolver) -> bool {
        self.routes_with_lines().all(|(route, line)| {
            let mut same = other.routes_with_lines().filter(|(known, _)| known.fingerprint == route.fingerprint);
            same.all(|(_, known)| {
                known.pools.len() == line.pools.len()
                    && line.pools.iter().zip(&known.pools).all(|(pool, known)| pool.asks_like(known))
            })
        })
    }

    /// The loop guard of each route that has one, with the route's index.
    pub fn loop_guards(&self) -> impl Iterator<Item = (usize, &LoopGuard)> {
        self.lines.iter().enumerate().filter_map(|(index, line)| Some((index, line.guard.as_ref()?)))
    }

    /// The `errors` plugin of each route that has it; to be given the time about once a second.
    pub fn error_logs(&self) -> impl Iterator<Item = &ErrorsLog> {
        self.lines.iter().filter_map(|line| line.errors.as_ref())
    }

    /// The entries of each route's quotas: positive, negative.
    pub fn quotas(&self) -> impl Iterator<Item = (&Route, &[Arc<Quota>; 2])> {
        self.routes_with_lines().map(|(route, line)| (route, &line.quotas))
    }

    /// The pools of each route.
    pub fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.lines.iter().flat_map(|line| &line.pools)
    }

    fn routes_with_lines(&self) -> impl Iterator<Item = (&Route, &Line)> {
        self.routes.routes.iter().zip(&self.lines)
    }
}

impl Door {
    fn new(listen: &Listen, routes: &[Route], registry: &Registry) -> Door {
        let server = listen.server();
        let meters = listen
            .zones
            .entries()
            .map(|(zone, route)| {
                let route = &routes[route];
                registry.meter(&MeterKey {
                    server: server.clone(),
                    zone: route.metrics.is_some().then(|| zone.to_string()),
                    zones: route.cache_zones_label(),
                    view: String::new(),
                })
            })
            .collect();
        let mut hash = Fnv::default();
        listen.zones.entries().for_each(|(zone, route)| (zone, routes[route].fingerprint).hash(&mut hash));
        Door { meters, fingerprint: hash.finish(), dropped: registry.meter(&MeterKey::dropped(&server)) }
    }
}
