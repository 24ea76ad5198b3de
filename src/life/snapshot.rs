//! From compiled routes to something that can be published: pools, sockets, endpoints, resolver. Whatever can fail
//! happens here, before anything that runs is touched.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use crate::cache::Cache;
use crate::observe::log::QueryLog;
use crate::observe::{Readiness, Registry, Sockets, counters};
use crate::resolve::{ClientPolicy, Failures, Flights, Parts, Resolver, Walks};
use crate::routes::Routes;
use crate::sys::sockopt;
use crate::upstream::Upstreams;

use super::budget::Budget;
use super::channel::Keeper;
use super::endpoints::{Endpoints, Prepared, Shows, Wanted};
use super::hosts::Hosts;
use super::last::{Known, Last};
use super::load::Loaded;
use super::options::Options;
use super::pools::{Pools, ResolvConfs};
use super::resolvconf::Own;
use super::searches::SearchFiles;
use super::server::Bound;
use super::weights::WeightFiles;
use super::{machine, scrape};

/// What lives as long as the process, whatever the configuration.
pub(super) struct Common {
    pub(super) keeper: Keeper,
    /// The addresses that the keeper places.
    placed: Vec<IpAddr>,
    pub(super) workers: usize,
    pub(super) metrics_address: Option<SocketAddr>,
    pub(super) clients: ClientPolicy,
    pub(super) query_log: QueryLog,
    pub(super) registry: Arc<Registry>,
    pub(super) readiness: Arc<Readiness>,
    pub(super) health: Arc<Sockets>,
    pub(super) cache: Arc<Cache>,
    pub(super) flights: Arc<Flights>,
    pub(super) failures: Arc<Failures>,
    pub(super) walks: Arc<Walks>,
    pub(super) upstreams: Upstreams,
    pub(super) budget: Budget,
}

/// One configuration, as it is or was in force.
#[derive(Clone)]
pub(super) struct Snapshot {
    pub(super) routes: Arc<Routes>,
    pub(super) resolver: Arc<Resolver>,
    pub(super) files: ResolvConfs,
    pub(super) weights: WeightFiles,
    pub(super) searches: SearchFiles,
    pub(super) hosts: Hosts,
    pub(super) digest: String,
    pub(super) imports: Vec<PathBuf>,
}

/// A configuration with everything it needs, not yet in force.
pub(super) struct Next {
    pub(super) snapshot: Snapshot,
    /// What the next server could start with.
    pub(super) last: Last,
    pub(super) bound: Vec<Bound>,
    pub(super) wanted: Wanted,
    pub(super) endpoints: Prepared,
}

impl Common {
    /// Everything empty, with the bounds of `options`.
    pub(super) fn new(options: &Options, keeper: Keeper, registry: Arc<Registry>, query_log: QueryLog) -> Common {
        let cache = Cache::new(options.cache_memory);
        let budget = Budget::of(options, sockopt::descriptor_limit().ok());
        let flights = Flights::new(budget.flights);
        let failures = Failures::new(budget.failures);
        let upstreams = Upstreams::with_pps(options.upstream_pps);
        scrape::describe_process(&registry, &cache, &flights, &failures, &upstreams);
        let clients = ClientPolicy { nets: options.client_networks.clone() };
        registry.gauge(&counters::WORKERS, &[]).set(options.workers as f64);
        for (of, limit) in budget.limits() {
            registry.gauge(&counters::LIMIT, &[of]).set(limit as f64);
        }
        for kind in counters::SETUP_ERROR_TYPES {
            // Each shows as 0 from the start.
            drop(registry.counter(&counters::SETUP_ERRORS, &[kind]));
        }
        let readiness = Arc::new(Readiness::new());
        readiness.unready("agent", "starting");
        let health = Arc::new(Sockets::new());
        scrape::describe_health(&registry, &readiness, &health);
        Common {
            keeper,
            placed: options.placed().to_vec(),
            workers: options.workers,
            metrics_address: options.metrics_address,
            clients,
            query_log,
            readiness,
            health,
            registry,
            cache,
            flights,
            failures,
            walks: Arc::default(),
            upstreams,
            budget,
        }
    }

    /// Builds everything for `loaded` that is not there yet. `served` are the addresses that have their sockets, `known`
    /// the hosts that need not be asked for. The error is a sentence for the operator; then nothing has changed.
    pub(super) async fn prepare(
        &self,
        loaded: Loaded,
        served: &[SocketAddr],
        known: &Known,
        endpoints: &Endpoints,
    ) -> Result<Next, String> {
        let Loaded { routes, digest, imports, text, .. } = loaded;
        let own = own(&routes);
        let files = ResolvConfs::read(&routes, &own).map_err(|error| error.to_string())?;
        let weights = WeightFiles::read(&routes)?;
        let searches = SearchFiles::read(&routes)?;
        let hosts = Hosts::resolve(&routes, &own, known).await?;
        let pools = files.pools(&routes, &hosts, &self.upstreams)?;
        let bound = self.bind(&routes, served)?;
        let wanted = self.wanted(&routes);
        let endpoints = endpoints.prepare(&wanted, |address| self.keeper.http(address));
        let routes = Arc::new(routes);
        let resolver = self.resolver(&routes, pools, &weights, &searches);
        let last = Last { text, hosts: hosts.known() };
        let snapshot = Snapshot { routes, resolver, files, weights, searches, hosts, digest, imports };
        Ok(Next { snapshot, last, bound, wanted, endpoints })
    }

    /// The same configuration with other contents of its resolv.conf files.
    pub(super) fn with_files(&self, current: &Snapshot, files: ResolvConfs) -> Result<Snapshot, String> {
        let pools = files.pools(&current.routes, &current.hosts, &self.upstreams)?;
        let resolver = self.resolver(&current.routes, pools, &current.weights, &current.searches);
        Ok(Snapshot { resolver, files, ..current.clone() })
    }

    fn resolver(
        &self,
        routes: &Arc<Routes>,
        pools: Pools,
        weights: &WeightFiles,
        searches: &SearchFiles,
    ) -> Arc<Resolver> {
        let resolver = Resolver::new(Parts {
            routes: Arc::clone(routes),
            pools,
            cache: Arc::clone(&self.cache),
            flights: Arc::clone(&self.flights),
            failures: Arc::clone(&self.failures),
            walks: Arc::clone(&self.walks),
            registry: Arc::clone(&self.registry),
            clients: self.clients.clone(),
            query_log: Some(self.query_log.clone()),
        });
        weights.hand_to(&resolver);
        searches.hand_to(&resolver);
        Arc::new(resolver)
    }

    /// The endpoints of the Corefile and of `-metrics-listen-address`.
    pub(super) fn wanted(&self, routes: &Routes) -> Wanted {
        let process = &routes.process;
        let health = process.health.iter().map(|address| (address.socket, Shows::Health));
        let ready = process.ready.iter().map(|ready| (ready.address.socket, Shows::Ready(ready.monitor)));
        let metrics = process.prometheus.iter().map(|address| address.socket).chain(self.metrics_address);
        let mut wanted = Wanted::new();
        for (address, shows) in health.chain(ready).chain(metrics.map(|address| (address, Shows::Metrics))) {
            wanted.entry(address).or_default().insert(shows);
        }
        wanted
    }

    /// The sockets of an address. The error is a sentence for the operator.
    pub(super) fn claim(&self, address: SocketAddr) -> Result<Bound, String> {
        Bound::claim(&self.keeper, address, self.workers)
    }

    fn bind(&self, routes: &Routes, served: &[SocketAddr]) -> Result<Vec<Bound>, String> {
        let new = routes.listens.iter().map(|listen| listen.address).filter(|address| !served.contains(address));
        let (mut all, mut faults) = (Vec::new(), Vec::new());
        for address in new {
            match self.claim(address) {
                Ok(bound) => {
                    if bound.is_absent() && !self.placed.contains(&address.ip()) {
                        tracing::warn!("no interface has {address} yet; it is served as soon as one does");
                    }
                    all.push(bound);
                }
                Err(fault) => faults.push(fault),
            }
        }
        // A start does with the addresses there are; one without any, or a reload, is refused.
        if !faults.is_empty() && (all.is_empty() || !served.is_empty()) {
            return Err(faults.join("; "));
        }
        faults.iter().for_each(|fault| tracing::error!("{fault}; the other addresses are served"));
        Ok(all)
    }
}

impl Snapshot {
    /// Whether anybody wants to know if the listeners answer.
    pub(super) fn is_probed(&self) -> bool {
        !self.routes.process.health.is_empty() || !self.routes.process.ready.is_empty()
    }

    /// `zone:port on address` for each zone of each listener, as CoreDNS prints at start.
    pub(super) fn zone_lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for listen in &self.routes.listens {
            let place = if listen.explicit { format!(" on {}", listen.address.ip()) } else { String::new() };
            let zones = listen.zones.entries().map(|(zone, _)| format!("{zone}:{}{place}", listen.address.port()));
            lines.extend(zones);
        }
        lines.sort();
        lines
    }
}

/// Where these routes listen, as an upstream would see it.
pub(super) fn own(routes: &Routes) -> Own {
    let interfaces = machine::interfaces().into_iter().flat_map(|interface| interface.addresses).collect();
    Own::new(routes.listens.iter().map(|listen| listen.address).collect(), interfaces)
}
