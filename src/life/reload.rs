//! Changes while the agent serves. A configuration that cannot be used changes nothing but a gauge, a counter and a log
//! line; one that can is published whole.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use crate::observe::counters;
use crate::plugins::setting::reload::Reload;
use crate::resolve::Resolver;
use crate::sys::clock;

use super::agent::{Agent, say};
use super::channel::{Keeper, Serving};
use super::last::{Known, Last};
use super::load::{Loaded, Refused, load};
use super::options::{Configuration, SLOW_POLL};
use super::server::Bound;
use super::snapshot::{Next, own};
use super::{cluster, scrape};

/// A shorter period than this in the Corefile does not keep the agent busy.
const QUICK_POLL: Duration = Duration::from_secs(1);

/// Characters of what is wrong with a configuration that the keeper is told.
const LONGEST_FAULT: usize = 500;

/// Why a configuration is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// By a signal: it is applied, changed or not.
    Asked,
    /// Something on disk may have changed.
    Noticed,
}

/// Has a filled template written where people look for it.
pub(super) fn show(keeper: &Keeper, text: &str) {
    keeper.write(text).unwrap_or_else(|fault| tracing::warn!("{fault}"));
}

impl Agent<'_> {
    /// Looks at every file the configuration depends on, and applies what changed.
    pub(super) async fn look_again(&mut self) {
        self.look_at_resolv_confs();
        self.look_at_weights();
        self.look_at_searches();
        self.listen_where_missing().await;
        self.open_where_missing();
        self.probe_listeners();
        let follows = match self.options.configuration {
            // The inputs of a template are followed because nothing else would turn a changed ConfigMap into a Corefile.
            Configuration::Template(_) => true,
            Configuration::File(_) => self.current.routes.process.reload.is_some(),
            Configuration::BuiltIn | Configuration::Stdin => false,
        };
        if follows {
            self.reload(Reason::Noticed).await;
        }
    }

    /// Reads the configuration and applies it.
    pub(super) async fn reload(&mut self, reason: Reason) {
        let loaded = load(&mut self.sources, self.options, |text| show(&self.common.keeper, text));
        say(&self.common.registry, self.sources.take_notices());
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(refused) => return self.refuse(reason, refused),
        };
        let asked = reason == Reason::Asked || (loaded.regenerated && self.options.reload_with_signal);
        if !asked && self.seen == loaded.digest {
            return;
        }
        self.seen.clone_from(&loaded.digest);
        if !asked && self.current.digest == loaded.digest {
            // What is on disk was wrong for a while, and is what runs again.
            return self.mark_valid();
        }
        tracing::info!("Reloading");
        loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        match self.apply(loaded).await {
            Ok(()) => {
                tracing::info!(plugin = "reload", "Running configuration SHA512 = {}", self.current.digest);
                tracing::info!("Reloading complete");
            }
            Err(fault) => self.failed(reason, &fault),
        }
    }

    async fn apply(&mut self, loaded: Loaded) -> Result<(), String> {
        let served: Vec<SocketAddr> = self.server.addresses().collect();
        let applied = match self.common.prepare(loaded, &served, &Known::new(), &self.endpoints).await {
            Ok(next) => self.publish(next).await.map_err(|error| format!("a worker cannot watch its sockets: {error}")),
            Err(fault) => Err(fault),
        };
        // Sockets that were had before something else failed would be held by the keeper and read by nobody.
        applied.inspect_err(|_| self.tell_keeper())
    }

    /// Puts a configuration in force. Unchanged addresses keep their sockets; a new one is handed over after the
    /// snapshot that knows it, and one that is gone is closed after the snapshot that no longer does, and after the rules
    /// that bring clients there are gone. If the workers cannot take the new sockets, the configuration before stays in
    /// force.
    pub(super) async fn publish(&mut self, next: Next) -> std::io::Result<()> {
        let Next { snapshot, last, bound, wanted, endpoints } = next;
        self.put_in_force(&snapshot.resolver);
        let listens: Vec<SocketAddr> = snapshot.routes.listens.iter().map(|listen| listen.address).collect();
        let index = |address| listens.iter().position(|listen| *listen == address).unwrap_or_default() as u16;
        if let Err(error) = self.server.add(bound, index).await {
            self.put_in_force(&self.current.resolver);
            return Err(error);
        }
        endpoints.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        self.endpoints.apply(&wanted, endpoints);
        self.log.set_debug(snapshot.routes.process.debug);
        self.seen.clone_from(&snapshot.digest);
        self.current = snapshot;
        self.tell_keeper();
        self.leave_with_keeper(last);
        let gone: Vec<SocketAddr> = self.server.addresses().filter(|address| !listens.contains(address)).collect();
        self.server.remove(&gone);
        scrape::describe_snapshot(&self.common.registry, &self.current);
        self.mark_valid();
        let now = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.common.registry.gauge(&counters::CONFIG_LOADED, &[]).set(now.as_secs_f64());
        self.probe_listeners();
        self.watch_files();
        self.look_for_loops();
        Ok(())
    }

    /// Answers by this from now on. Where others are asked than before, what failed says nothing any more.
    fn put_in_force(&self, resolver: &Arc<Resolver>) {
        let before = self.shared.swap(Arc::clone(resolver));
        if !resolver.asks_like(&before) {
            self.common.failures.clear();
            self.common.upstreams.replaced();
        }
        self.server.renew();
    }

    /// A file that was edited into something useless leaves its old upstreams in place.
    fn look_at_resolv_confs(&mut self) {
        let (files, errors) = self.current.files.read_again(&own(&self.current.routes));
        let problems: Vec<String> = errors.iter().map(ToString::to_string).collect();
        for problem in problems.iter().filter(|problem| !self.said.contains(*problem)) {
            tracing::error!(plugin = "forward", "{problem}; its old upstreams stay in use");
        }
        self.said = problems.into_iter().collect();
        let differences = files.differences(&self.current.files);
        if differences.is_empty() {
            return;
        }
        match self.common.with_files(&self.current, files) {
            Ok(snapshot) => {
                self.put_in_force(&snapshot.resolver);
                self.current = snapshot;
                scrape::describe_snapshot(&self.common.registry, &self.current);
                differences
                    .iter()
                    .for_each(|line| tracing::info!(plugin = "forward", "upstreams are now those of {line}"));
                self.look_for_loops();
            }
            Err(reason) => {
                if self.said.insert(reason.clone()) {
                    tracing::error!(plugin = "forward", "{reason}; the old upstreams stay in use");
                }
            }
        }
    }

    /// A file that was edited into something useless leaves its old weights in place.
    fn look_at_weights(&mut self) {
        for news in self.current.weights.read_again() {
            match news {
                Ok(file) => tracing::info!(plugin = "loadbalance", "weights are now those of {file}"),
                Err(fault) => tracing::error!(plugin = "loadbalance", "{fault}; its old weights stay in use"),
            }
        }
        self.current.weights.hand_to(&self.current.resolver);
    }

    /// A file that was edited into something useless leaves its old search list in place.
    fn look_at_searches(&mut self) {
        let all = self.current.searches.read_again();
        self.current.searches.hand_to(&self.current.resolver);
        for news in all {
            match news {
                Ok(list) => tracing::info!(plugin = "autopath", "the search list is now that of {list}"),
                Err(fault) => tracing::error!(plugin = "autopath", "{fault}"),
            }
        }
    }

    fn refuse(&mut self, reason: Reason, refused: Refused) {
        if let (Refused::Corefile(faults), Some(watch)) = (&refused, &mut self.watch) {
            watch.add(faults.imports.iter().cloned());
        }
        let fault = refused.to_string();
        if reason == Reason::Noticed && self.seen == fault {
            return;
        }
        self.failed(reason, &fault);
        self.seen = fault;
    }

    /// Says that what serves is what was in force before this server, because what there is to be read cannot be used.
    pub(super) fn recalled(&mut self, refused: &anyhow::Error) {
        if let (Some(Refused::Corefile(faults)), Some(watch)) = (refused.downcast_ref(), &mut self.watch) {
            watch.add(faults.imports.iter().cloned());
        }
        self.common.registry.gauge(&counters::CONFIG_VALID, &[]).set(0.0);
        self.seen = refused.to_string();
        self.tell_fault(Some(&self.seen));
        tracing::error!("{}; the configuration that was in force before serves on", self.seen);
    }

    /// Counts and logs it, with the lines of CoreDNS: the second only where a change was found, not where a signal asked.
    fn failed(&self, reason: Reason, fault: &str) {
        self.common.registry.counter(&counters::RELOAD_FAILED, &[]).increment(1);
        self.common.registry.gauge(&counters::CONFIG_VALID, &[]).set(0.0);
        self.tell_fault(Some(fault));
        tracing::error!("Restart failed: {fault}");
        if reason == Reason::Noticed {
            tracing::error!(plugin = "reload", "Corefile changed but reload failed: {fault}");
        }
    }

    fn mark_valid(&self) {
        self.common.registry.gauge(&counters::CONFIG_VALID, &[]).set(1.0);
        self.tell_fault(None);
    }

    /// Tells the keeper, who is asked whether all is well. The first fault of many will do.
    fn tell_fault(&self, fault: Option<&str>) {
        let shortened = fault.map(|fault| fault.chars().take(LONGEST_FAULT).collect());
        self.common.keeper.faulty(shortened).unwrap_or_else(|fault| tracing::error!("{fault}"));
    }

    /// Tells the keeper what is served: it probes the listeners, steers clients to those that answer, and lets go of
    /// all other sockets.
    fn tell_keeper(&self) {
        let routes = &self.current.routes;
        let wanted = |address: &SocketAddr| routes.listens.iter().any(|listen| listen.address == *address);
        let serving = Serving {
            listens: self.server.addresses().filter(wanted).collect(),
            missing: self.missing().collect(),
            http: self.endpoints.addresses().collect(),
            missing_http: self.missing_http(),
            cluster: cluster::servers(routes),
            lameduck: routes.process.lameduck,
        };
        self.common.keeper.serving(serving).unwrap_or_else(|fault| tracing::error!("{fault}"));
    }

    /// The next server may need what is in force.
    fn leave_with_keeper(&self, last: Last) {
        let keeper = &self.common.keeper;
        if let Err(fault) = keeper.keep(Some(last)) {
            tracing::warn!("the configuration in force is not there for a restarted server: {fault}");
            // Neither is an older one.
            keeper.keep(None).unwrap_or_else(|fault| tracing::error!("{fault}"));
        }
    }

    /// An address that somebody else held at the start may be free by now.
    async fn listen_where_missing(&mut self) {
        let bound: Vec<Bound> = self.missing().filter_map(|address| self.common.claim(address).ok()).collect();
        if bound.is_empty() {
            return;
        }
        let listens: Vec<SocketAddr> = self.current.routes.listens.iter().map(|listen| listen.address).collect();
        let index = |address| listens.iter().position(|listen| *listen == address).unwrap_or_default() as u16;
        match self.server.add(bound, index).await {
            Ok(()) => tracing::info!("an address that was in use is free and served"),
            Err(error) => tracing::error!("a worker cannot watch its sockets: {error}"),
        }
        self.tell_keeper();
    }

    /// The same for HTTP.
    fn open_where_missing(&mut self) {
        let wanted = self.common.wanted(&self.current.routes);
        let prepared = self.endpoints.prepare(&wanted, |address| self.common.keeper.http(address));
        let named: Vec<String> = prepared.addresses().map(|address| address.to_string()).collect();
        if named.is_empty() {
            return;
        }
        tracing::info!("HTTP is served at {}, which was in use", named.join(", "));
        self.endpoints.apply(&wanted, prepared);
        self.tell_keeper();
    }

    fn missing_http(&self) -> Vec<SocketAddr> {
        self.endpoints.missing(&self.common.wanted(&self.current.routes))
    }

    /// The addresses that are to be served and are not.
    fn missing(&self) -> impl Iterator<Item = SocketAddr> {
        let listens = self.current.routes.listens.iter().map(|listen| listen.address);
        listens.filter(|address| self.server.addresses().all(|served| served != *address))
    }

    /// The listeners `/health` and `/ready` speak for; an address may have got its interface since.
    fn probe_listeners(&self) {
        let probed = if self.current.is_probed() { self.server.present() } else { Vec::new() };
        self.common.health.watch(&probed);
    }

    fn watch_files(&mut self) {
        let stubs = self.current.files.paths().map(PathBuf::from);
        let imports = self.current.imports.iter().cloned();
        let weights = self.current.weights.paths().map(PathBuf::from);
        let searches = self.current.searches.paths().map(PathBuf::from);
        let others = stubs.chain(weights).chain(searches);
        let files = self.sources.files().into_iter().chain(imports).chain(others).collect();
        if let Some(watch) = &mut self.watch {
            watch.set(files);
        }
    }

    /// How long until files are looked at although no event came.
    pub(super) fn poll_period(&self) -> Duration {
        if self.missing().next().is_some() || !self.missing_http().is_empty() {
            return QUICK_POLL;
        }
        let slow = self.current.weights.period().map_or(SLOW_POLL, |period| period.clamp(QUICK_POLL, SLOW_POLL));
        let Some(Reload { interval, jitter }) = &self.current.routes.process.reload else { return slow };
        // Drawn anew each time, so that the agents of a cluster do not read a shared disk in step.
        let spread = jitter.min(&(*interval / 2)).mul_f64(rand::random::<f64>());
        (*interval - *jitter.min(&(*interval / 2)) / 2 + spread).min(slow)
    }
}
