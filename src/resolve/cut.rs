//! A name that does not exist has nothing beneath it (RFC 8020), in zones whose server is known to mean that.
//!
//! Not every server does: some deny a name that only has names beneath it. So whatever was answered as existing is noted
//! ([`Beneath`](crate::cache::Beneath)), and a denial of a name above it cuts nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cache::settings::ServeStale;
use crate::cache::{Entry, Lifetime, Settings};
use crate::dns::header::{AD, Count};
use crate::dns::name::{is_under, labels};
use crate::dns::{Builder, Class, Ede, Explained, Query, Rcode, Response, Type, reply};
use crate::observe::{self, Event, Plugin};
use crate::routes::Forward;

use super::asked::{Asked, WHOLE_NAME};
use super::bits::Bits;
use super::resolver::Resolver;
use super::way::Way;

impl Resolver {
    /// The fresh denial of the nearest name above the asked one that says of the asked one that it does not exist. To be
    /// looked for when the name itself has no fresh entry. Counts one that is not used; whoever uses one counts
    /// [`Event::DenialCut`]. Allocates nothing.
    ///
    /// Never one of a zone's apex in `denial_cut`, nor of a name above the zone of the server block or that another
    /// `forward` line asks for. DS is a matter of the zone above (RFC 4035 section 3.1.4.1), ANY one for people.
    pub(super) fn cut(&self, way: &Way<'_>, settings: &Settings, query: &mut Query<'_>) -> Option<Arc<Entry>> {
        let (entry, refused) = self.above(way, settings, query, |entry| entry.is_fresh(way.now))?;
        if refused {
            self.registry.worker(way.worker).count(Event::DenialCutRefused);
        }
        (!refused).then_some(entry)
    }

    /// The same of an expired denial that is still used, as an expired entry of the asked name itself.
    pub(super) fn cut_by_stale(
        &self,
        way: &Way<'_>,
        settings: &Settings,
        stale: &ServeStale,
        query: &mut Query<'_>,
    ) -> Option<Arc<Entry>> {
        let usable = |entry: &Entry| entry.expired_for(way.now) < stale.duration;
        let (above, _) = self.above(way, settings, query, usable).filter(|(_, refused)| !refused)?;
        let lifetime = Lifetime { class: above.class, duration: above.lifetime, whole_name: true };
        let quota = &self.lines[way.route_index].quotas[1];
        Some(Arc::new(Entry::new(denial_beneath(query, &above.response), &lifetime, above.stored, quota)))
    }

    /// The usable denial of the nearest name above, and whether it says nothing of the asked one.
    fn above(
        &self,
        way: &Way<'_>,
        settings: &Settings,
        query: &mut Query<'_>,
        usable: impl Fn(&Entry) -> bool,
    ) -> Option<(Arc<Entry>, bool)> {
        if query.qclass != Class::IN || matches!(query.qtype, Type::DS | Type::ANY) {
            return None;
        }
        let zones = &self.routes.listens[usize::from(way.client.listen)].zones;
        // The table gave the longest zone of the name, which is that of every name between the two.
        let highest = highest(settings, query.name())?.max(zones.zone(way.zone).label_count());
        let (fingerprint, bits, count) = (way.route.fingerprint, Bits::of(query).cached(), query.label_offsets().len());
        for skipped in 1..=count.saturating_sub(highest) {
            let from = usize::from(query.label_offsets()[skipped]);
            // Such a name groups services or records (RFC 8552). CoreDNS denies `_tcp.web` where `_http._tcp.web` exists.
            if query.name()[from + 1] == b'_' {
                continue;
            }
            let found = self.cache.get(&self.cache.key(fingerprint, &query.key(WHOLE_NAME, bits)[from..]));
            let Some(entry) = found.filter(|entry| usable(entry) && denies_name(&entry.response)) else {
                continue;
            };
            let above = &query.name()[from..];
            if !asked_alike(&way.route.forwards, query.name(), above) {
                return None;
            }
            let refused = self.cache.beneath().knows(self.cache.key(fingerprint, above).hash(), way.now);
            return Some((entry, refused));
        }
        None
    }

    /// Whether a denial of the name `above`, in lower-case wire form, would be one of the asked name.
    pub(super) fn could_cut(&self, way: &Way<'_>, settings: &Settings, query: &Query<'_>, above: &[u8]) -> bool {
        let zones = &self.routes.listens[usize::from(way.client.listen)].zones;
        let Some(highest) = highest(settings, query.name()) else { return false };
        labels(above).count() >= highest.max(zones.zone(way.zone).label_count() + 1)
            && above[1] != b'_'
            && asked_alike(&way.route.forwards, query.name(), above)
            && !self.cache.beneath().knows(self.cache.key(way.route.fingerprint, above).hash(), way.now)
    }

    /// Writes the reply for a name from the denial of a name above it.
    pub(super) fn write_cut(
        &self,
        way: &Way<'_>,
        settings: &Settings,
        query: &Query<'_>,
        above: &Entry,
        out: &mut [u8],
    ) -> usize {
        way.slab.cache_hit(observe::Class::Denial);
        self.registry.worker(way.worker).count(Event::DenialCut);
        let ttl = settings.reply_ttl(above, way.now);
        let explained = Explained { code: Ede::SYNTHESIZED, text: "a name above it does not exist" };
        let shape = reply::Shape { ttl: Some(ttl), explained: Some(explained), limit: way.limit(query, out) };
        let length = reply::write(query, &denial_beneath(query, &above.response), shape, out);
        self.finish(way, query, Rcode::NXDOMAIN, Plugin::Cache, &mut out[..length], way.now);
        length
    }

    /// Notes of every name above one that exists that there is something beneath it. An alias to a missing name exists.
    pub(super) fn note_existence(
        &self,
        asked: &Asked,
        settings: &Settings,
        response: &Response,
        lifetime: Option<Duration>,
        now: Instant,
    ) {
        let exists =
            response.rcode() == Rcode::NOERROR || (response.rcode() == Rcode::NXDOMAIN && !denies_name(response));
        let Some(highest) = highest(settings, &asked.name).filter(|_| exists && asked.qclass == Class::IN) else {
            return;
        };
        let fingerprint = self.routes.routes[asked.route].fingerprint;
        let count = labels(&asked.name).count();
        let mut above: &[u8] = &asked.name;
        for _ in highest..count {
            above = &above[1 + usize::from(above[0])..];
            let hash = self.cache.key(fingerprint, above).hash();
            self.cache.beneath().note(hash, lifetime.unwrap_or_default(), now);
        }
    }
}

/// The denial of a name above as one of the asked name: SOA and, for clients with DO, the proof, which holds for both.
pub(super) fn denial_beneath(query: &Query<'_>, above: &Response) -> Response {
    let mut builder = Builder::new(query.message, query.question_end, [0, above.wire()[3] & AD]);
    for (_, record) in above.records().filter(|(section, _)| *section == Count::Authority) {
        if builder.copy(Count::Authority, above.wire(), &record).is_none() {
            break;
        }
    }
    builder.build(Rcode::NXDOMAIN, Vec::new())
}

/// How many labels the highest name has whose denial may cut beneath it: one more than the highest zone of `denial_cut`
/// with this name strictly beneath it.
fn highest(settings: &Settings, name: &[u8]) -> Option<usize> {
    let zones = settings.denial_cut.iter().filter(|zone| name != zone.as_wire() && is_under(name, zone.as_wire()));
    zones.map(|zone| zone.label_count() + 1).min()
}

fn denies_name(response: &Response) -> bool {
    response.rcode() == Rcode::NXDOMAIN && response.answers() == 0
}

/// Whether the same upstreams are asked for both names, in the same order.
fn asked_alike(forwards: &[Forward], name: &[u8], above: &[u8]) -> bool {
    for forward in forwards {
        match (forward.matches(name), forward.matches(above)) {
            (true, true) if forward.next.is_empty() && !forward.next_on_nodata => return true,
            (one, other) if one != other => return false,
            _ => {}
        }
    }
    forwards.iter().any(|forward| forward.matches(name))
}
