//! The road of a query that needs no waiting, from its octets to the block that answers it: what cannot be read or is
//! not served ends here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::cache::Entry;
use crate::dns::{self, Ede, Explained, Query, Rcode, Type, Unfit, reply};
use crate::observe::{self, Event, Plugin, Slab};
use crate::plugins::front::loadbalance::{Loadbalance, rank};

use super::autopath::Walk;
use super::gate::{self, Refusal};
use super::miss::Miss;
use super::resolver::Resolver;
use super::way::{Client, Way};
use super::{shuffle, whoami};

/// What becomes of a query.
#[expect(clippy::large_enum_variant, reason = "a miss is moved once, and a box would cost every miss an allocation")]
pub enum Verdict {
    /// So many octets of reply were written.
    Reply(usize),
    /// So many octets of reply were written, and these entries want to be renewed in the background.
    Refresh(usize, Vec<Miss>),
    /// No reply.
    Silence,
    /// The reply has to be awaited.
    Miss(Miss),
    /// The same, of several questions.
    Walk(Box<Walk>),
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
        let ipv6 = query.qtype == Type::AAAA && query.qclass == dns::Class::IN;
        if ipv6 && route.aaaa.as_ref().is_some_and(|aaaa| aaaa.is_off(query.name())) {
            return self.no_ipv6(&way, &query, out);
        }
        if let Some(autopath) = &route.autopath
            && let Some(verdict) = self.walk(&way, autopath, &mut query, out)
        {
            return verdict;
        }
        match &route.cache {
            Some(settings) if settings.covers(query.name()) => self.look_up(&way, settings, &mut query, out),
            _ => self.miss(&way, &mut query, None, out),
        }
    }

    /// Answers a AAAA question with no data, where the Corefile says so. Without an SOA it is NODATA of RFC 2308's type 3,
    /// which nobody keeps.
    fn no_ipv6(&self, way: &Way<'_>, query: &Query<'_>, out: &mut [u8]) -> Verdict {
        self.registry.worker(way.worker).count(Event::AaaaOff);
        let length = reply::write_error(query, Rcode::NOERROR, Some(NO_IPV6), out);
        self.finish(way, query, Rcode::NOERROR, Plugin::Aaaa, &mut out[..length], way.now);
        Verdict::Reply(length)
    }

    pub(super) fn miss(
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
        self.watch_for_loops(way, query);
        Verdict::Miss(Miss::new(self.clone(), way, query, stale))
    }

    pub(super) fn watch_for_loops(&self, way: &Way<'_>, query: &Query<'_>) {
        if let Some(guard) = &self.lines[way.route_index].guard {
            guard.saw(query);
        }
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

const NO_IPV6: Explained<'static> = Explained { code: Ede::OTHER, text: "AAAA is off here" };

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
