//! Upstreams that are ourselves. A query sent there comes back; if it then reaches the block it left, it goes round
//! until its deadline. One block may well forward to another listen of this server, so only circles are errors.

use std::net::SocketAddr;

use super::sources::Sources;
use super::{Listen, Routes};
use crate::corefile::{Diagnostic, Span};
use crate::dns::name::labels;
use crate::dns::{Name, Type};
use crate::upstream::Transport;
use crate::upstream::spec::{PoolSpec, Target};

/// The places of one route's upstreams in the text: for each `forward`, for each target.
pub(super) type Words = Vec<Vec<Span>>;

/// Reports every upstream from which a query would come back to its own block.
pub(super) fn check(routes: &Routes, words: &[Words], sources: &Sources, found: &mut Vec<Diagnostic>) {
    for (at, route) in routes.routes.iter().enumerate() {
        for (forward, spans) in route.forwards.iter().zip(&words[at]) {
            for (listen, span) in own(&forward.spec, spans, routes, sources) {
                let returns = |zone: &&Name| {
                    forward.matches(zone.as_wire()) && reaches(routes, listen, zone, at, sources, &mut Vec::new())
                };
                // The apexes of a block's zones stand for all of its names.
                let apexes = route.zones.iter().chain([&forward.from]).filter(|zone| inside(zone, &route.zones));
                if let Some(zone) = apexes.clone().find(returns) {
                    let listen = &routes.listens[listen];
                    found.push(
                        Diagnostic::error(span, "this upstream is this server itself")
                            .label(format!("queries for {zone} come back to this block and go round in a circle"))
                            .help(format!("name another upstream: {} is one of our own addresses", shown(listen))),
                    );
                }
            }
        }
    }
}

fn shown(listen: &Listen) -> String {
    if listen.explicit { listen.address.to_string() } else { format!("port {} of this node", listen.address.port()) }
}

fn inside(zone: &Name, zones: &[Name]) -> bool {
    zones.iter().any(|holder| zone.is_under(holder))
}

/// The targets of a pool that are listens of ours, with their place.
fn own<'a>(
    spec: &'a PoolSpec,
    spans: &'a [Span],
    routes: &'a Routes,
    sources: &'a Sources,
) -> impl Iterator<Item = (usize, Span)> + 'a {
    spec.targets.iter().zip(spans).filter_map(|(target, span)| match target {
        Target::Address(address) if address.transport == Transport::Plain => {
            Some((listening(address.socket, routes, sources)?, *span))
        }
        _ => None,
    })
}

/// The listen that takes a packet to this address: the one bound to it, else the one bound to all addresses.
fn listening(to: SocketAddr, routes: &Routes, sources: &Sources) -> Option<usize> {
    let bound = |listen: &Listen| {
        listen.address.port() == to.port()
            && (listen.address.ip().to_canonical() == to.ip().to_canonical()
                || (listen.address.ip().is_unspecified() && sources.is_local(to.ip())))
    };
    let exact = routes.listens.iter().position(|listen| bound(listen) && !listen.address.ip().is_unspecified());
    exact.or_else(|| routes.listens.iter().position(bound))
}

/// Whether a query for `zone` that arrives at a listen ends up, over any number of listens, at the route `goal`.
fn reaches(routes: &Routes, listen: usize, zone: &Name, goal: usize, sources: &Sources, seen: &mut Vec<usize>) -> bool {
    let mut offsets = Vec::new();
    let mut at = 0;
    for label in labels(zone.as_wire()) {
        offsets.push(at);
        at += label.len() as u8 + 1;
    }
    let Some((route, _)) = routes.listens[listen].zones.find(zone.as_wire(), &offsets, Type::A) else { return false };
    if route == goal {
        return true;
    }
    if seen.contains(&route) {
        return false;
    }
    seen.push(route);
    let Some(forward) = routes.routes[route].forwards.iter().find(|forward| forward.matches(zone.as_wire())) else {
        return false;
    };
    forward.spec.targets.iter().any(|target| match target {
        Target::Address(address) if address.transport == Transport::Plain => listening(address.socket, routes, sources)
            .is_some_and(|listen| reaches(routes, listen, zone, goal, sources, seen)),
        _ => false,
    })
}
