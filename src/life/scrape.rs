//! Numbers that other rooms keep, told at each scrape in the words of `observe::counters`.

use std::net::IpAddr;
use std::sync::Arc;

use crate::cache::Cache;
use crate::node::{Rules, Status};
use crate::observe::http::expose_health;
use crate::observe::{Exposition, Readiness, Registry, Sockets, counters};
use crate::resolve::{Failures, Flights, Resolver};
use crate::routes::Routes;
use crate::upstream::Upstreams;

use super::channel::Kept;
use super::options::Options;
use super::snapshot::Snapshot;

/// The cache, the flights, the failures and the upstreams: the same for all configurations.
pub(super) fn describe_process(
    registry: &Registry,
    cache: &Arc<Cache>,
    flights: &Arc<Flights>,
    failures: &Arc<Failures>,
    upstreams: &Upstreams,
) {
    let (cache, upstreams) = (Arc::clone(cache), upstreams.clone());
    let (flights, failures) = (Arc::clone(flights), Arc::clone(failures));
    registry.set_source("process", move |into| {
        let (used, budget) = cache.octets();
        into.gauge(&counters::CACHE_BYTES, &[], used as f64);
        into.gauge(&counters::CACHE_BUDGET, &[], budget as f64);
        into.gauge(&counters::FLIGHTS, &[], flights.aloft() as f64);
        into.gauge(&counters::FAILURES_REMEMBERED, &[], failures.len() as f64);
        into.counter(&counters::FAILURES_EVICTED, &[], failures.evictions());
        into.counter(&counters::CACHE_DENIALS_REFUSED, &[], cache.denials_refused());
        upstreams.expose(into);
    });
}

/// Readiness and the listeners that are probed, as `/ready` and `/health` tell them.
pub(super) fn describe_health(registry: &Registry, readiness: &Arc<Readiness>, sockets: &Arc<Sockets>) {
    let (readiness, sockets) = (Arc::clone(readiness), Arc::clone(sockets));
    registry.set_source("health", move |into| expose_health(&readiness, &sockets, into));
}

/// What the keeper says of the node and of this process's life.
pub(super) fn take_down_kept(registry: &Registry, options: &Options, kept: &Kept) {
    for (reason, times) in [("died", kept.died), ("wedged", kept.wedged)] {
        registry.counter(&counters::SERVER_RESTARTS, &[reason]).absolute(times);
    }
    let (Some(node), Some(status)) = (&options.node, &kept.node) else { return };
    if node.desired.rules != Rules::None {
        take_down_rules(registry, &node.desired.addresses, kept, status);
    }
    for (action, times) in &status.actions {
        registry.counter(&counters::NODE_ACTIONS, &[action.word()]).absolute(*times);
    }
    for (kind, times) in &status.troubles {
        registry.counter(&counters::SETUP_ERRORS, &[kind.word()]).absolute(*times);
    }
}

/// What there is to tell only where rules are wanted: a 0 would call for help where nobody asked for any.
fn take_down_rules(registry: &Registry, addresses: &[IpAddr], kept: &Kept, status: &Status) {
    registry.gauge(&counters::NODE_FAIL_OPEN, &[]).set(f64::from(u8::from(kept.failing_open)));
    registry.counter(&counters::NODE_FAIL_OPEN_SECONDS, &[]).absolute(kept.open_seconds as u64);
    registry.gauge(&counters::NODE_FALLBACK, &[]).set(status.fallback.len() as f64);
    for ip in addresses {
        let there = f64::from(u8::from(status.intercepted.contains(ip)));
        registry.gauge(&counters::NODE_INTERCEPTED, &[&ip.to_string()]).set(there);
    }
}

/// What depends on the configuration in force.
pub(super) fn describe_snapshot(registry: &Registry, snapshot: &Snapshot) {
    let (digest, resolver) = (snapshot.digest.clone(), Arc::clone(&snapshot.resolver));
    registry.set_source("snapshot", move |into| {
        into.gauge(&counters::RELOAD_VERSION, &["sha512", &digest], 1.0);
        tell_plugins(resolver.routes(), into);
        tell_quotas(&resolver, into);
    });
}

/// One series for each plugin that handles queries, for the first zone of its block.
fn tell_plugins(routes: &Routes, into: &mut Exposition) {
    for (at, route) in routes.routes.iter().enumerate() {
        let (Some(zone), Some(server)) = (route.zones.first(), server_of(routes, at)) else { continue };
        for name in &route.handlers {
            into.gauge(&counters::PLUGIN_ENABLED, &[&server, &zone.to_string(), "", name], 1.0);
        }
    }
}

fn tell_quotas(resolver: &Resolver, into: &mut Exposition) {
    for (at, (route, quotas)) in resolver.quotas().enumerate() {
        let (Some(zones), Some(server)) = (route.cache_zones_label(), server_of(resolver.routes(), at)) else {
            continue;
        };
        for (quota, kind) in quotas.iter().zip(["success", "denial"]) {
            into.gauge(&counters::CACHE_ENTRIES, &[&server, kind, &zones, ""], quota.entries() as f64);
            into.counter(&counters::CACHE_EVICTIONS, &[&server, kind, &zones, ""], quota.evictions());
        }
    }
}

/// A block has one cache however many listeners it has; its figures stand under the first.
fn server_of(routes: &Routes, route: usize) -> Option<String> {
    let listen = routes.listens.iter().find(|listen| listen.zones.entries().any(|(_, found)| found == route))?;
    Some(listen.server())
}
