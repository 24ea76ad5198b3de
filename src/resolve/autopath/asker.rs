//! Looks up the names of a search list as if their client had asked for them itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cache::Entry;
use crate::cache::settings::ServeStale;
use crate::dns::{Class, MAX_NAME, Query, Rcode, Type, header};
use crate::resolve::lookup::Known;
use crate::resolve::miss::Miss;
use crate::resolve::resolver::Resolver;
use crate::resolve::way::{Client, Way};

use super::said::Said;

/// On whose behalf names are looked up.
pub(in crate::resolve) struct Asker {
    pub(super) resolver: Arc<Resolver>,
    pub(super) worker: usize,
    pub(super) client: Client,
    /// What was used and wants to be renewed in the background.
    renewals: Vec<(Box<[u8]>, Type, Arc<Entry>)>,
}

/// What memory has for a name.
#[expect(clippy::large_enum_variant, reason = "a miss is moved once, and a box would cost every miss an allocation")]
pub(super) enum Looked {
    /// This.
    Said(Said),
    /// The same, by the denial of a name above.
    Cut(Said),
    /// Nothing: somebody has to be asked.
    Open(Miss),
}

impl Asker {
    pub(in crate::resolve) fn new(resolver: Arc<Resolver>, way: &Way<'_>) -> Asker {
        Asker { resolver, worker: way.worker, client: *way.client, renewals: Vec::new() }
    }

    /// What memory has for a name, or the question for it.
    pub(super) fn look(&mut self, name: &[u8], qtype: Type, now: Instant) -> Looked {
        let mut renewal = None;
        let looked = self.on_way(name, qtype, now, |way, query| {
            if qtype == Type::AAAA && way.route.aaaa.as_ref().is_some_and(|aaaa| aaaa.is_off(name)) {
                return Looked::Said(Said::nothing(now));
            }
            if way.route.whoami && !way.route.forwards.iter().any(|forward| forward.matches(name)) {
                return Looked::Said(Said::nothing(now));
            }
            let Some(settings) = way.route.cache.as_ref().filter(|settings| settings.covers(name)) else {
                return Looked::Open(Miss::new(self.resolver.clone(), way, query, None));
            };
            match self.resolver.know(way, settings, query) {
                Known::Fresh(entry) => {
                    if self.resolver.is_popular(way, settings, query, &entry) {
                        renewal = Some(entry.clone());
                    }
                    Looked::Said(Said::fresh(entry, now))
                }
                Known::Stale { entry, hope } => {
                    renewal = hope.then(|| entry.clone());
                    Looked::Said(Said::stale(entry, stale_ttl(way)))
                }
                Known::Failed(failure) => Looked::Said(Said::outcome(failure, now)),
                Known::Above(above) => Looked::Cut(Said::fresh(above, now)),
                Known::Unknown(old) => Looked::Open(Miss::new(self.resolver.clone(), way, query, old)),
            }
        });
        self.renewals.extend(renewal.map(|entry| (name.into(), qtype, entry)));
        looked.unwrap_or_else(|| Looked::Said(Said::refused()))
    }

    /// The refreshes of what was used. Each has to be seen through, or shed.
    pub(super) fn renewals(&mut self, now: Instant) -> Vec<Miss> {
        let wanted = std::mem::take(&mut self.renewals);
        let refresh = |(name, qtype, entry): &(Box<[u8]>, Type, Arc<Entry>)| {
            self.on_way(name, *qtype, now, |way, query| {
                let elected = entry.try_refresh(now, self.resolver.recoveries(way.route_index));
                elected.then(|| {
                    way.slab.prefetch();
                    Miss::refresh(self.resolver.clone(), way, query, entry.clone())
                })
            })?
        };
        wanted.iter().filter_map(refresh).collect()
    }

    /// What the cache holds of a name, expired or not: the RCODE, and how long ago it has expired, if it has.
    pub(super) fn remembers(&self, name: &[u8], qtype: Type, now: Instant) -> Option<(Rcode, Option<Duration>)> {
        self.on_way(name, qtype, now, |way, query| {
            let entry = self.resolver.held(way, query)?;
            Some((entry.response.rcode(), (!entry.is_fresh(now)).then(|| entry.expired_for(now))))
        })?
    }

    /// Whether a denial of the name `above` would be one of `name` as well.
    pub(super) fn could_cut(&self, name: &[u8], above: &[u8], qtype: Type, now: Instant) -> bool {
        let could = self.on_way(name, qtype, now, |way, query| {
            let settings = way.route.cache.as_ref().filter(|settings| settings.covers(name));
            settings.is_some_and(|settings| self.resolver.could_cut(way, settings, query, above))
        });
        could.unwrap_or(false)
    }

    /// The question for a name, whatever memory has.
    pub(super) fn miss(&self, name: &[u8], qtype: Type, now: Instant) -> Option<Miss> {
        self.on_way(name, qtype, now, |way, query| Miss::new(self.resolver.clone(), way, query, None))
    }

    /// A question that nobody waits for.
    pub(super) fn unasked(&self, name: &[u8], qtype: Type, now: Instant) -> Option<Miss> {
        self.on_way(name, qtype, now, |way, query| Miss::unasked(self.resolver.clone(), way, query))
    }

    /// The TTL of replies from expired entries of the block that answers a name.
    pub(super) fn stale_ttl(&self, name: &[u8], qtype: Type, now: Instant) -> u32 {
        self.on_way(name, qtype, now, |way, _| stale_ttl(way)).unwrap_or(0)
    }

    /// The server block that answers a name, as an index into `Routes::routes`.
    pub(super) fn route(&self, name: &[u8], qtype: Type, now: Instant) -> Option<usize> {
        self.on_way(name, qtype, now, |way, _| way.route_index)
    }

    /// The way of a question for a name in lower-case wire form; `None` where no server block answers for it.
    pub(super) fn on_way<T>(
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

/// Nothing where the block uses no expired entries.
fn stale_ttl(way: &Way<'_>) -> u32 {
    let stale = way.route.cache.as_ref().and_then(|settings| settings.serve_stale.as_ref());
    stale.map_or(0, ServeStale::ttl)
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
