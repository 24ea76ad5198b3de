//! Looks up the names of a search list as if their client had asked for them itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cache::Entry;
use crate::dns::{Class, MAX_NAME, Name, Query, Rcode, Type, header};
use crate::resolve::lookup::{Known, STALE_TTL};
use crate::resolve::miss::Miss;
use crate::resolve::resolver::Resolver;
use crate::resolve::way::{Client, Way};

use super::list::{First, Kind};
use super::said::Said;

/// On whose behalf names are looked up.
#[derive(Clone)]
pub(in crate::resolve) struct Asker {
    pub(super) resolver: Arc<Resolver>,
    pub(super) worker: usize,
    pub(super) client: Client,
}

/// What memory has for a name.
pub(super) enum Looked {
    /// This.
    Said(Said),
    /// The same, by the denial of a name above.
    Cut(Said),
    /// Somebody has to be asked; the entry has expired.
    Open(Option<Arc<Entry>>),
}

impl Asker {
    /// What memory has for a name.
    pub(super) fn look(&self, name: &[u8], qtype: Type, now: Instant) -> Looked {
        let looked = self.on_way(name, qtype, now, |way, query| {
            if qtype == Type::AAAA && way.route.aaaa.as_ref().is_some_and(|aaaa| aaaa.is_off(name)) {
                return Looked::Said(Said::nothing(now));
            }
            if way.route.whoami && !way.route.forwards.iter().any(|forward| forward.matches(name)) {
                return Looked::Said(Said::nothing(now));
            }
            let Some(settings) = way.route.cache.as_ref().filter(|settings| settings.covers(name)) else {
                return Looked::Open(None);
            };
            match self.resolver.know(way, settings, query) {
                Known::Fresh(entry) => Looked::Said(Said::fresh(entry, now)),
                Known::Stale { entry, .. } => Looked::Said(Said::stale(entry, self.stale_ttl(way))),
                Known::Failed(failure) => Looked::Said(Said::outcome(failure, now)),
                Known::Above(above) => Looked::Cut(Said::fresh(above, now)),
                Known::Unknown(old) => Looked::Open(old),
            }
        });
        looked.unwrap_or_else(|| Looked::Said(Said::refused()))
    }

    /// What the cache holds of a name, expired or not: the RCODE, and how long ago it has expired, if it has.
    pub(super) fn remembers(&self, name: &[u8], qtype: Type, now: Instant) -> Option<(Rcode, Option<Duration>)> {
        self.on_way(name, qtype, now, |way, query| {
            let entry = self.resolver.held(way, query)?;
            Some((entry.response.rcode(), (!entry.is_fresh(now)).then(|| entry.expired_for(now))))
        })?
    }

    /// Whether memory has an answer for a name and a type.
    pub(super) fn has(&self, name: &[u8], qtype: Type, now: Instant) -> bool {
        self.on_way(name, qtype, now, |way, query| self.resolver.has(way, query)).unwrap_or(false)
    }

    /// Whether the denial of a name is kept as that of everything beneath it.
    pub(super) fn cuts(&self, name: &[u8], now: Instant) -> bool {
        let cuts = self.on_way(name, Type::A, now, |way, _| {
            let settings = way.route.cache.as_ref().filter(|settings| settings.covers(name));
            settings.is_some_and(|settings| settings.cuts(name))
        });
        cuts.unwrap_or(false)
    }

    /// A miss for a name, yet to be awaited.
    pub(super) fn miss(&self, name: &[u8], qtype: Type, old: Option<Arc<Entry>>, now: Instant) -> Option<Miss> {
        self.on_way(name, qtype, now, |way, query| Miss::new(self.resolver.clone(), way, query, old))
    }

    /// A miss that nobody waits for.
    pub(super) fn unasked(&self, name: &[u8], qtype: Type, now: Instant) -> Option<Miss> {
        self.on_way(name, qtype, now, |way, query| Miss::unasked(self.resolver.clone(), way, query))
    }

    /// The TTL of replies from expired entries of the block that answers a name.
    pub(super) fn stale_ttl_of(&self, name: &[u8], qtype: Type, now: Instant) -> u32 {
        self.on_way(name, qtype, now, |way, _| self.stale_ttl(way)).unwrap_or(STALE_TTL)
    }

    /// Lets the client ask for the later names of its list by itself, as far as they look like the first of another.
    pub(super) fn mark_later(&self, first: &First, name: &[u8], domains: &[Name], qtype: Type, now: Instant) {
        let base = &name[..first.base];
        for (suffix, kind) in first.suffixes(name, domains).skip(1) {
            // One label and no namespace: no list begins like that. These are most of what is marked for, Services
            // without an IPv6 address, and are hits.
            if first.labels == 1 && (matches!(kind, Kind::Services | Kind::Cluster) || suffix == [0]) {
                continue;
            }
            let mut octets = [0; MAX_NAME];
            let length = base.len() + suffix.len();
            let Some(candidate) = octets.get_mut(..length) else { continue };
            candidate[..base.len()].copy_from_slice(base);
            candidate[base.len()..].copy_from_slice(suffix);
            self.on_way(candidate, qtype, now, |way, query| self.mark(way, query));
        }
    }

    fn mark(&self, way: &Way<'_>, query: &mut Query<'_>) -> Option<()> {
        let resolver = &self.resolver;
        let search = resolver.lines[way.route_index].search.as_ref()?.load();
        let zone = resolver.routes.listens[usize::from(way.client.listen)].zones.zone(way.zone);
        let first = First::of(way.route.autopath.as_ref()?, zone, &search, query)?;
        // Where there is no such namespace, there is no walk: most names outside look like names in one.
        if let Some(namespace) = first.namespace(query.name())
            && let Looked::Said(said) | Looked::Cut(said) = self.look(namespace, Type::A, way.now)
            && said.is_denial()
        {
            return None;
        }
        let key = resolver.cache.key(resolver.list(way, &search), query.name());
        resolver.walks.mark(self.client.peer.ip(), &key, way.now);
        Some(())
    }

    fn stale_ttl(&self, way: &Way<'_>) -> u32 {
        let stale = way.route.cache.as_ref().and_then(|settings| settings.serve_stale.as_ref());
        stale.and_then(|stale| stale.response_ttl).unwrap_or(STALE_TTL)
    }

    /// The way of a question for a name in lower-case wire form; `None` where no server block answers for it.
    fn on_way<T>(
        &self,
        name: &[u8],
        qtype: Type,
        now: Instant,
        then: impl FnOnce(&Way<'_>, &mut Query<'_>) -> T,
    ) -> Option<T> {
        let message = Message::new(name, qtype);
        let mut query = Query::parse(&message.octets[..message.length]).ok()?;
        let listen = usize::from(self.client.listen);
        let zones = &self.resolver.routes.listens[listen].zones;
        let (route_index, zone) = zones.find(query.name(), query.label_offsets(), qtype)?;
        let route = &self.resolver.routes.routes[route_index];
        let slab = self.resolver.doors[listen].meters[zone].worker(self.worker);
        let way = Way { worker: self.worker, now, client: &self.client, route_index, route, zone, slab };
        route.has_plugins.then(|| then(&way, &mut query))
    }
}

/// A query with RD and nothing else.
struct Message {
    octets: [u8; header::LENGTH + MAX_NAME + 4],
    length: usize,
}

impl Message {
    fn new(name: &[u8], qtype: Type) -> Message {
        let mut message = Message { octets: [0; header::LENGTH + MAX_NAME + 4], length: header::LENGTH };
        (message.octets[2], message.octets[5]) = (header::RD, 1);
        for part in [name, &qtype.0.to_be_bytes(), &Class::IN.0.to_be_bytes()] {
            message.octets[message.length..][..part.len()].copy_from_slice(part);
            message.length += part.len();
        }
        message
    }
}
