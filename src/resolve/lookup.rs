//! What memory has for a query: an answer that is fresh, one that has expired, or a failure.

use std::sync::Arc;

use crate::cache::settings::ServeStale;
use crate::cache::{Class, Entry, Settings};
use crate::dns::{Ede, Explained, Query, Rcode, reply};
use crate::observe::{self, Event, Plugin};

use super::answer::Verdict;
use super::asked::WHOLE_NAME;
use super::bits::Bits;
use super::miss::Miss;
use super::outcome::Outcome;
use super::resolver::Resolver;
use super::way::Way;

/// What the cache has for a query.
enum Found {
    Fresh(Arc<Entry>),
    Stale(Arc<Entry>),
    Above(Arc<Entry>),
    Absent,
}

/// What memory has for a question, and so what becomes of it.
pub(super) enum Known {
    /// An answer.
    Fresh(Arc<Entry>),
    /// The denial of a name above, which denies this one as well.
    Above(Arc<Entry>),
    /// An expired answer that is used at once. `hope`: somebody could be asked for a better one.
    Stale { entry: Arc<Entry>, hope: bool },
    /// The failure of a moment ago.
    Failed(Arc<Outcome>),
    /// Somebody has to be asked; what has expired is used if that fails.
    Unknown(Option<Arc<Entry>>),
}

impl Resolver {
    /// Answers from the cache, or from the memory of a failure, if they have something.
    pub(super) fn look_up(
        self: &Arc<Self>,
        way: &Way<'_>,
        settings: &Settings,
        query: &mut Query<'_>,
        out: &mut [u8],
    ) -> Verdict {
        let known = self.know(way, settings, query);
        self.tell(way, settings, query, known, out)
    }

    /// Answers with what memory has.
    pub(super) fn tell(
        self: &Arc<Self>,
        way: &Way<'_>,
        settings: &Settings,
        query: &mut Query<'_>,
        known: Known,
        out: &mut [u8],
    ) -> Verdict {
        match known {
            Known::Fresh(entry) => self.hit(way, settings, query, &entry, out),
            Known::Above(entry) => Verdict::Reply(self.write_cut(way, settings, query, &entry, out)),
            Known::Stale { entry, hope } => self.stale(way, settings, query, entry, hope, out),
            Known::Failed(failure) => self.fail_again(way, query, &failure, out),
            Known::Unknown(old) => {
                way.slab.cache_miss();
                self.miss(way, query, old, out)
            }
        }
    }

    /// What memory has for a question. Counts nothing but denials of names above that are not used.
    pub(super) fn know(&self, way: &Way<'_>, settings: &Settings, query: &mut Query<'_>) -> Known {
        let entry = match self.find(way, settings, query) {
            Found::Fresh(entry) => return Known::Fresh(entry),
            Found::Above(entry) => return Known::Above(entry),
            Found::Absent => return self.failed(way, query).map_or(Known::Unknown(None), Known::Failed),
            Found::Stale(entry) => entry,
        };
        let verify = settings.serve_stale.as_ref().is_some_and(|stale| stale.verify);
        // What is down is probed anyway, and what failed a moment ago is not asked again: no hope, nobody asked.
        let hope = !self.is_down(way, query) && self.failed(way, query).is_none();
        if verify && hope && !entry.refresh_paused(way.now, self.recoveries(way.route_index)) {
            return Known::Unknown(Some(entry));
        }
        Known::Stale { entry, hope }
    }

    /// How this very question failed a short time ago.
    fn failed(&self, way: &Way<'_>, query: &mut Query<'_>) -> Option<Arc<Outcome>> {
        let (qtype, bits) = (query.qtype, Bits::of(query).flying());
        let key = self.cache.key(way.route.fingerprint, query.key(qtype, bits));
        self.failures.get(&key, way.now, self.recoveries(way.route_index))
    }

    fn fail_again(&self, way: &Way<'_>, query: &Query<'_>, failure: &Outcome, out: &mut [u8]) -> Verdict {
        self.watch_for_loops(way, query);
        way.slab.cache_hit(observe::Class::Denial);
        self.registry.worker(way.worker).count(Event::FailedAgain);
        let length = failure.write(query, way.limit(query, out), true, out);
        self.finish(way, query, failure.rcode(), Plugin::Cache, &mut out[..length], way.now);
        Verdict::Reply(length)
    }

    /// What the cache holds of a question, expired or not: that its name is missing, or what the type has.
    pub(super) fn held(&self, way: &Way<'_>, query: &mut Query<'_>) -> Option<Arc<Entry>> {
        let (bits, qtype, fingerprint) = (Bits::of(query).cached(), query.qtype, way.route.fingerprint);
        let whole = self.cache.get(&self.cache.key(fingerprint, query.key(WHOLE_NAME, bits)));
        whole.or_else(|| self.cache.get(&self.cache.key(fingerprint, query.key(qtype, bits))))
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
        if let Some(entry) = self.cut(way, settings, query) {
            return Found::Above(entry);
        }
        let Some(stale) = settings.serve_stale.as_ref().filter(|_| query.recursion_desired()) else {
            return Found::Absent;
        };
        let usable = |entry: &Arc<Entry>| entry.expired_for(way.now) < stale.duration;
        let newest = match (exact, whole) {
            (Some(exact), Some(_)) if stale.prefer_positive && exact.class == Class::Success && usable(&exact) => {
                Some(exact)
            }
            // A denial older than what the type has would have been removed. It counts even when it is too old to be
            // used itself: what it denied does not come back (RFC 8767 section 4).
            (_, Some(whole)) => Some(whole),
            (exact, None) => exact,
        };
        match newest {
            // What was known of the name only by one above it is so still.
            None => self.cut_by_stale(way, settings, stale, query).map_or(Found::Absent, Found::Stale),
            Some(entry) if usable(&entry) => Found::Stale(entry),
            Some(_) => Found::Absent,
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
        let length = self.write_kept(way, query, entry, settings.reply_ttl(entry, way.now), None, out);
        let popular = self.is_popular(way, settings, query, entry);
        if popular && entry.try_refresh(way.now, self.recoveries(way.route_index)) {
            way.slab.prefetch();
            return Verdict::Refresh(length, vec![Miss::refresh(self.clone(), way, query, entry.clone())]);
        }
        Verdict::Reply(length)
    }

    /// Counts a hit, and says whether the entry has become worth a refresh ahead of its end.
    pub(super) fn is_popular(&self, way: &Way<'_>, settings: &Settings, query: &mut Query<'_>, entry: &Entry) -> bool {
        settings.prefetch.as_ref().is_some_and(|prefetch| {
            query.recursion_desired() && entry.wants_prefetch(way.now, prefetch) && self.failed(way, query).is_none()
        })
    }

    fn stale(
        self: &Arc<Self>,
        way: &Way<'_>,
        settings: &Settings,
        query: &mut Query<'_>,
        entry: Arc<Entry>,
        hope: bool,
        out: &mut [u8],
    ) -> Verdict {
        let stale = settings.serve_stale.as_ref().expect("stale entries are found only where they are used");
        way.slab.cache_hit(counted(entry.class));
        let length = self.write_stale(way, stale, query, &entry, out);
        if hope && entry.try_refresh(way.now, self.recoveries(way.route_index)) {
            way.slab.prefetch();
            return Verdict::Refresh(length, vec![Miss::refresh(self.clone(), way, query, entry)]);
        }
        Verdict::Reply(length)
    }

    /// Whether every upstream that could be asked is down.
    fn is_down(&self, way: &Way<'_>, query: &Query<'_>) -> bool {
        let forward = way.route.forwards.iter().position(|forward| forward.matches(query.name()));
        forward.is_some_and(|index| self.lines[way.route_index].pools[index].is_down())
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
        self.write_kept(way, query, entry, stale.ttl(), Some(explained), out)
    }

    pub(super) fn write_kept(
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
}

pub(super) fn counted(class: Class) -> observe::Class {
    match class {
        Class::Success => observe::Class::Success,
        Class::Denial => observe::Class::Denial,
    }
}
