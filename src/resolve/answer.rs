//! The road of a query that needs no waiting: what cannot be read or is not served, and what the cache has.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::cache::settings::ServeStale;
use crate::cache::{Class, Entry, Settings, lifetime};
use crate::dns::{self, Ede, Explained, Query, Rcode, Type, Unfit, reply};
use crate::observe::{self, Event, Plugin, Slab};
use crate::plugins::front::loadbalance::{Loadbalance, rank};

use super::asked::WHOLE_NAME;
use super::bits::Bits;
use super::drive::Miss;
use super::gate::{self, Refusal};
use super::resolver::Resolver;
use super::way::{Client, Way};
use super::{shuffle, whoami};

/// The TTL of stale replies where the Corefile names none, in seconds (RFC 8767 section 4).
const STALE_TTL: u32 = 30;

/// What becomes of a query.
pub enum Verdict {
    /// So many octets of reply were written.
    Reply(usize),
    /// So many octets of reply were written, and an entry wants to be renewed in the background.
    Refresh(usize, Miss),
    /// No reply.
    Silence,
    /// The reply has to be awaited.
    Miss(Miss),
}

/// What the cache has for a query.
enum Found {
    Fresh(Arc<Entry>),
    Stale(Arc<Entry>),
    Absent,
}

impl Resolver {
    /// Answers one message, or says that the answer has to be awaited. Allocates nothing when the cache has it. `now` is
    /// when the message was read; `out` has at least 512 octets.
    pub fn answer(
        self: &Arc<Self>,
        worker: usize,
        now: Instant,
        message: &[u8],
        client: &Client,
        out: &mut [u8],
    ) -> Verdict {
        let mut query = match Query::parse(message) {
            Ok(query) => query,
            Err(unfit) => return self.reject(worker, message, client, unfit, out),
        };
        let door = &self.doors[usize::from(client.listen)];
        let listen = &self.routes.listens[usize::from(client.listen)];
        if gate::is_probe(&query, client) {
            // Not counted: nobody asked but ourselves.
            return Verdict::Reply(reply::write_error(&query, Rcode::REFUSED, Some(gate::OURSELVES), out));
        }
        if !self.clients.serves(client.peer.ip(), listen.explicit.then(|| client.local.ip())) {
            return self.refuse(worker, &query, client, &STRANGER, out);
        }
        if let Some(refusal) = gate::refusal(&query) {
            return self.refuse(worker, &query, client, &refusal, out);
        }
        if query.qclass != dns::Class::IN && !listen.any_forward {
            return self.refuse(worker, &query, client, &NO_CLASS, out);
        }
        let Some((route_index, zone)) = listen.zones.find(query.name(), query.label_offsets(), query.qtype) else {
            return self.refuse(worker, &query, client, &NO_ZONE, out);
        };
        let route = &self.routes.routes[route_index];
        if !route.has_plugins {
            return self.refuse(worker, &query, client, &NO_ZONE, out);
        }
        let slab = door.meters[zone].worker(worker);
        count_request(slab, &query, client);
        let way = Way { worker, now, client, route_index, route, zone, slab };
        match &route.cache {
            Some(settings) if lifetime::covered(settings.zones.as_deref(), query.name()) => {
                self.look_up(&way, settings, &mut query, out)
            }
            _ => self.miss(&way, &mut query, None, out),
        }
    }

    fn look_up(self: &Arc<Self>, way: &Way<'_>, settings: &Settings, query: &mut Query<'_>, out: &mut [u8]) -> Verdict {
        match self.find(way, settings, query) {
            Found::Fresh(entry) => self.hit(way, settings, query, &entry, out),
            Found::Stale(entry) => {
                let stale = settings.serve_stale.as_ref().expect("stale entries are found only where they are used");
                self.stale(way, stale, query, entry, out)
            }
            Found::Absent => {
                way.slab.cache_miss();
                self.miss(way, query, None, out)
            }
        }
    }

    fn find(&self, way: &Way<'_>, settings: &Settings, query: &mut Query<'_>) -> Found {
        let bits = Bits::of(query).cached();
        let (qtype, fingerprint) = (query.qtype, way.route.fingerprint);
        let exact = match self.cache.get(&self.cache.key(fingerprint, query.key(qtype, bits))) {
            Some(entry) if entry.is_fresh(way.now) => return Found::Fresh(entry),
            other => other,
        };
        // A missing name has no type at all (RFC 2308 section 5).
        let whole = match self.cache.get(&self.cache.key(fingerprint, query.key(WHOLE_NAME, bits))) {
            Some(entry) if entry.is_fresh(way.now) => return Found::Fresh(entry),
            other => other,
        };
        let Some(stale) = settings.serve_stale.as_ref().filter(|_| query.recursion_desired()) else {
            return Found::Absent;
        };
        let usable = |entry: &Arc<Entry>| entry.expired_for(way.now) < stale.duration && is_answer(entry);
        match (exact.filter(usable), whole.filter(usable)) {
            (Some(exact), Some(whole)) => Found::Stale(newer(exact, whole, stale)),
            (Some(entry), None) | (None, Some(entry)) => Found::Stale(entry),
            (None, None) => Found::Absent,
        }
    }

    fn hit(
        self: &Arc<Self>,
        way: &Way<'_>,
        settings: &Settings,
        query: &mut Query<'_>,
        entry: &Arc<Entry>,
        out: &mut [u8],
    ) -> Verdict {
        way.slab.cache_hit(counted(entry.class));
        let whole = || u32::try_from(entry.seconds()).unwrap_or(u32::MAX);
        let ttl = if settings.keepttl { whole() } else { entry.remaining(way.now) };
        let explained = (!is_answer(entry)).then_some(CACHED_ERROR);
        let length = self.write_kept(way, query, entry, ttl, explained, out);
        let renew = settings.prefetch.as_ref().is_some_and(|prefetch| {
            query.recursion_desired()
                && is_answer(entry)
                && entry.wants_prefetch(way.now, prefetch)
                && entry.try_refresh(way.now)
        });
        if renew {
            way.slab.prefetch();
            return Verdict::Refresh(length, Miss::refresh(self.clone(), way, query, entry.clone()));
        }
        Verdict::Reply(length)
    }

    fn stale(
        self: &Arc<Self>,
        way: &Way<'_>,
        stale: &ServeStale,
        query: &mut Query<'_>,
        entry: Arc<Entry>,
        out: &mut [u8],
    ) -> Verdict {
        if stale.verify && !entry.refresh_paused(way.now) {
            way.slab.cache_miss();
            return self.miss(way, query, Some(entry), out);
        }
        way.slab.cache_hit(counted(entry.class));
        let length = self.write_stale(way, stale, query, &entry, out);
        if entry.try_refresh(way.now) {
            way.slab.prefetch();
            return Verdict::Refresh(length, Miss::refresh(self.clone(), way, query, entry));
        }
        Verdict::Reply(length)
    }

    /// Writes a reply from an expired entry.
    pub(super) fn write_stale(
        &self,
        way: &Way<'_>,
        stale: &ServeStale,
        query: &Query<'_>,
        entry: &Entry,
        out: &mut [u8],
    ) -> usize {
        way.slab.served_stale();
        let code = if entry.response.rcode() == Rcode::NXDOMAIN { Ede::STALE_NXDOMAIN } else { Ede::STALE_ANSWER };
        let explained = Explained { code, text: "" };
        self.write_kept(way, query, entry, stale.response_ttl.unwrap_or(STALE_TTL), Some(explained), out)
    }

    fn write_kept(
        &self,
        way: &Way<'_>,
        query: &Query<'_>,
        entry: &Entry,
        ttl: u32,
        explained: Option<Explained<'_>>,
        out: &mut [u8],
    ) -> usize {
        let shape = reply::Shape { ttl: Some(ttl), explained, limit: way.limit(query, out) };
        let length = reply::write(query, &entry.response, shape, out);
        self.finish(way, query, entry.response.rcode(), Plugin::Cache, &mut out[..length], way.now);
        length
    }

    fn miss(
        self: &Arc<Self>,
        way: &Way<'_>,
        query: &mut Query<'_>,
        stale: Option<Arc<Entry>>,
        out: &mut [u8],
    ) -> Verdict {
        if way.route.whoami && !way.route.forwards.iter().any(|forward| forward.matches(query.name())) {
            let length = whoami::write(query, way.client, way.limit(query, out), out);
            self.finish(way, query, Rcode::NOERROR, Plugin::Whoami, &mut out[..length], way.now);
            return Verdict::Reply(length);
        }
        if let Some(guard) = &self.lines[way.route_index].guard {
            guard.saw(query);
        }
        Verdict::Miss(Miss::new(self.clone(), way, query, stale))
    }

    /// What is done with every reply of a block: order, counters, the query log.
    pub(super) fn finish(
        &self,
        way: &Way<'_>,
        query: &Query<'_>,
        rcode: Rcode,
        plugin: Plugin,
        reply: &mut [u8],
        done: Instant,
    ) {
        if rcode == Rcode::NOERROR {
            self.balance(way, query.qtype, reply);
        }
        let elapsed = done.saturating_duration_since(way.now);
        count_response(way.slab, rcode, plugin, reply, way.client, elapsed);
        if reply[2] & crate::dns::header::TC != 0 {
            self.registry.worker(way.worker).count(Event::Truncated);
        }
        self.log_query(way, query, rcode, reply, elapsed);
    }

    fn balance(&self, way: &Way<'_>, qtype: Type, reply: &mut [u8]) {
        match (&way.route.loadbalance, &self.lines[way.route_index].weights, qtype) {
            (Some(Loadbalance::RoundRobin { prefer }), _, Type::A | Type::AAAA | Type::ANY) => {
                shuffle::addresses(reply, rand::random::<u32>, |address| rank(prefer, address));
            }
            (_, Some(weights), Type::A | Type::AAAA) => {
                shuffle::weighted(reply, rand::random::<u32>, &weights.load());
            }
            _ => {}
        }
    }

    fn refuse(&self, worker: usize, query: &Query<'_>, client: &Client, refusal: &Refusal, out: &mut [u8]) -> Verdict {
        self.registry.worker(worker).count(refusal.event);
        let slab = self.doors[usize::from(client.listen)].dropped.worker(worker);
        count_request(slab, query, client);
        let length = reply::write_error(query, refusal.rcode, refusal.explained, out);
        count_response(slab, refusal.rcode, Plugin::None, &out[..length], client, std::time::Duration::ZERO);
        Verdict::Reply(length)
    }

    fn reject(&self, worker: usize, message: &[u8], client: &Client, unfit: Unfit, out: &mut [u8]) -> Verdict {
        let counts = self.registry.worker(worker);
        let (rcode, question_end, with_opt) = match unfit {
            Unfit::Silent => {
                let short = message.len() < crate::dns::header::LENGTH;
                counts.count(if short { Event::DroppedShort } else { Event::DroppedResponse });
                return Verdict::Silence;
            }
            Unfit::Opcode { edns } => {
                counts.count(Event::RejectedOpcode);
                (Rcode::NOTIMP, 0, edns)
            }
            Unfit::Format { question_end, edns } => {
                counts.count(Event::RejectedFormat);
                (Rcode::FORMERR, question_end, edns)
            }
        };
        let length = reply::write_unfit(message, question_end, rcode, with_opt, out);
        let slab = self.doors[usize::from(client.listen)].dropped.worker(worker);
        count_response(slab, rcode, Plugin::None, &out[..length], client, std::time::Duration::ZERO);
        Verdict::Reply(length)
    }
}

const CACHED_ERROR: Explained<'static> = Explained { code: Ede::CACHED_ERROR, text: "" };

const NO_ZONE: Refusal = Refusal {
    rcode: Rcode::REFUSED,
    explained: Some(Explained { code: Ede::NOT_AUTHORITATIVE, text: "no server block answers for this name" }),
    event: Event::RejectedZone,
};

const NO_CLASS: Refusal = Refusal {
    rcode: Rcode::REFUSED,
    explained: Some(Explained { code: Ede::NOT_SUPPORTED, text: "only class IN is answered here" }),
    event: Event::RejectedClass,
};

const STRANGER: Refusal = Refusal {
    rcode: Rcode::REFUSED,
    explained: Some(Explained { code: Ede::PROHIBITED, text: "this client's network is not served" }),
    event: Event::RejectedClient,
};

fn newer(exact: Arc<Entry>, whole: Arc<Entry>, stale: &ServeStale) -> Arc<Entry> {
    let positive = stale.prefer_positive && exact.class == Class::Success;
    if positive || exact.stored >= whole.stored { exact } else { whole }
}

fn is_answer(entry: &Entry) -> bool {
    matches!(entry.response.rcode(), Rcode::NOERROR | Rcode::NXDOMAIN)
}

fn counted(class: Class) -> observe::Class {
    match class {
        Class::Success => observe::Class::Success,
        Class::Denial => observe::Class::Denial,
    }
}

fn count_request(slab: &Slab, query: &Query<'_>, client: &Client) {
    slab.request(observe::Request {
        proto: client.protocol,
        ipv6: matches!(client.peer, SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_none()),
        qtype: query.qtype,
        size: query.message.len(),
        dnssec_ok: query.dnssec_ok(),
    });
}

fn count_response(
    slab: &Slab,
    rcode: Rcode,
    plugin: Plugin,
    reply: &[u8],
    client: &Client,
    elapsed: std::time::Duration,
) {
    slab.response(observe::Response { rcode, plugin, size: reply.len(), proto: client.protocol, elapsed });
}
