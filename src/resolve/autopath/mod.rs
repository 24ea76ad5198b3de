//! A client's search list, walked here instead of there.
//!
//! Example: a pod in namespace `shop` looks for `www.example.com`, and asks for the first name of its list,
//! `www.example.com.shop.svc.cluster.local`. `list` reads the rest of the list from the question: `...svc.cluster.local`,
//! `...cluster.local`, the domains of the node, the name itself. `walker` is told what memory and upstreams say about
//! each (`said`), in order, and says whom to ask next; `asker` looks names up as if the client had asked for them. The
//! first that exists decides. `conclusion` makes the reply, an alias from the name asked for to the one that exists, and
//! keeps it under a key of its own, so that the next query is an ordinary hit. A walk that has to wait is a `walk`.
//!
//! A stub that gets no answer goes on with its list by itself, and is answered plainly (`marks`): it ends as it would have
//! ended without any walk.

mod asker;
mod conclusion;
mod later;
mod list;
mod marks;
mod namespace;
mod said;
mod search;
mod step;
mod told;
mod walk;
mod walker;

use std::sync::Arc;

use crate::cache::settings::Settings;
use crate::cache::{Class, Entry};
use crate::dns::{MAX_NAME, Query, Rcode, name};
use crate::observe::{Event, Plugin};
use crate::plugins::policy::autopath::Autopath;

use super::answer::Verdict;
use super::bits::Bits;
use super::lookup::{Known, counted};
use super::miss::Miss;
use super::outcome::Outcome;
use super::resolver::Resolver;
use super::way::Way;

use asker::Asker;
use list::First;
use said::What;
use walker::{Next, Walker};

pub use list::LONGEST;
pub use marks::Walks;
pub(super) use search::Search;
pub use step::Subject;
pub use told::{Name as ToldName, Told};
pub use walk::Walk;
pub use walker::{About, End};

/// The bit of a key under which the result of a walk is kept: beside what the name itself has.
const WALKED: u8 = 0x80;

/// The first name of a search list on its way.
struct Start<'a> {
    autopath: &'a Autopath,
    search: &'a Search,
    first: First,
    /// The route of keys: equal where every name of the list is answered alike.
    list: u64,
    settings: Option<&'a Settings>,
}

impl Resolver {
    /// Answers the first name of a search list; `None` where the query is to be answered like any other.
    pub(super) fn walk(
        self: &Arc<Self>,
        way: &Way<'_>,
        autopath: &Autopath,
        query: &mut Query<'_>,
        out: &mut [u8],
    ) -> Option<Verdict> {
        let search = self.lines[way.route_index].search.as_ref()?;
        let zone = self.routes.listens[usize::from(way.client.listen)].zones.zone(way.zone);
        let first = First::of(autopath, zone, search, query)?;
        let settings = way.route.cache.as_ref().filter(|settings| settings.covers(query.name()));
        // One label is most often a Service that is there, and this lookup then the only one.
        let short = settings.filter(|_| first.is_short()).map(|settings| self.know(way, settings, query));
        let search = search.load();
        let start = Start { autopath, search: &search, first, list: self.list(way, &search), settings };
        if is_excepted(autopath, &first, query.name()) {
            return self.leave(way, &start, query, Event::PlainExcept);
        }
        if let Some(settings) = start.settings
            && let Some(verdict) = self.remembered(way, &start, settings, short, query, out)
        {
            return Some(verdict);
        }
        if self.is_continued(way, &start, query) {
            return self.leave(way, &start, query, Event::PlainContinued);
        }
        if first
            .namespace(query.name())
            .is_some_and(|name| namespace::is_missing(&Asker::new(self.clone(), way), name, way.now))
        {
            return self.leave(way, &start, query, Event::PlainNamespace);
        }
        Some(self.set_out(way, &start, query, out))
    }

    /// The route of keys for what becomes of a list's first names.
    fn list(&self, way: &Way<'_>, search: &Search) -> u64 {
        self.doors[usize::from(way.client.listen)].fingerprint ^ search.fingerprint.rotate_left(1)
    }

    /// Nothing is walked for this name; the client may go on with a list that begins with it.
    fn leave(self: &Arc<Self>, way: &Way<'_>, start: &Start<'_>, query: &Query<'_>, why: Event) -> Option<Verdict> {
        self.registry.worker(way.worker).count(why);
        self.mark_later(way, start, query);
        None
    }

    /// Whether the client may ask for this name because it walks another list itself.
    fn is_continued(&self, way: &Way<'_>, start: &Start<'_>, query: &Query<'_>) -> bool {
        let key = self.cache.key(start.list, query.name());
        self.walks.is_marked(way.client.peer.ip(), &key, way.now)
    }

    /// The reply from the result of an earlier walk, or from what memory has for the name itself, unless that is a denial.
    fn remembered(
        self: &Arc<Self>,
        way: &Way<'_>,
        start: &Start<'_>,
        settings: &Settings,
        short: Option<Known>,
        query: &mut Query<'_>,
        out: &mut [u8],
    ) -> Option<Verdict> {
        let known = match short {
            Some(known @ Known::Fresh(_)) if !is_denied(&known) => known,
            _ => {
                let kept = self.cache.get(&self.cache.key(start.list, walked(query)));
                if let Some(entry) = kept.filter(|entry| entry.is_fresh(way.now)) {
                    let continued = self.is_continued(way, start, query);
                    let mut reply = || self.write_walked(way, start, settings, query, &entry, out);
                    return (!continued).then(|| Verdict::Reply(reply()));
                }
                self.know(way, settings, query)
            }
        };
        match &known {
            known if is_denied(known) => return None,
            Known::Unknown(_) => return None,
            Known::Fresh(entry) | Known::Stale { entry, .. } if entry.class == Class::Success => {}
            _ => self.mark_later(way, start, query),
        }
        self.registry.worker(way.worker).count(Event::WalkFirst);
        Some(self.tell(way, settings, query, known, out))
    }

    fn write_walked(
        self: &Arc<Self>,
        way: &Way<'_>,
        start: &Start<'_>,
        settings: &Settings,
        query: &Query<'_>,
        entry: &Entry,
        out: &mut [u8],
    ) -> usize {
        let counts = self.registry.worker(way.worker);
        way.slab.cache_hit(counted(entry.class));
        match (entry.class, entry.response.rcode()) {
            (Class::Success, _) => {
                counts.count(Event::WalkFound);
                counts.count_n(Event::WalkSaved, u64::from(entry.saves()));
            }
            (Class::Denial, rcode) => {
                counts.count(if rcode == Rcode::NOERROR { Event::WalkNoData } else { Event::WalkMissing });
                self.mark_later(way, start, query);
            }
        }
        self.write_kept(way, query, entry, settings.reply_ttl(entry, way.now), None, out)
    }

    /// Walks as far as memory goes, which may be the end.
    fn set_out(self: &Arc<Self>, way: &Way<'_>, start: &Start<'_>, query: &mut Query<'_>, out: &mut [u8]) -> Verdict {
        let Start { first, search, settings, .. } = start;
        let candidates = first.candidates(query.name(), &search.domains);
        let namespace = first.namespace(query.name());
        let asker = Asker::new(self.clone(), way);
        let mut walker = Walker::new(asker, query.qtype, candidates, namespace, start.autopath.max_depth);
        let key = settings.map(|_| self.cache.key(start.list, walked(query)).to_key());
        let end = match walker.next(way.now) {
            Next::Done(end) => end,
            Next::Ask(asks) => {
                if settings.is_some() {
                    way.slab.cache_miss();
                }
                let own = Miss::new(self.clone(), way, query, None);
                return Verdict::Walk(Box::new(Walk::new(own, walker, *first, search.domains.clone(), key, asks)));
            }
        };
        let conclusion = walker.conclude(end, query, key.as_ref(), way.now);
        walker.count(end, &conclusion);
        if conclusion.as_ref().map_or(true, |conclusion| conclusion.goes_on) {
            self.mark_later(way, start, query);
        }
        let length = match (conclusion, walker.said_of_first().map(|said| (&said.what, said))) {
            (Err(_), Some((What::Entry(entry), said))) => {
                way.slab.cache_hit(counted(entry.class));
                self.write_kept(way, query, entry, said.ttl, None, out)
            }
            (Err(_), _) => self.write_outcome(way, query, &walker.plain(query), out),
            (Ok(conclusion), _) => self.write_outcome(way, query, &conclusion.outcome, out),
        };
        match walker.asker.renewals(way.now) {
            renewals if renewals.is_empty() => Verdict::Reply(length),
            renewals => Verdict::Refresh(length, renewals),
        }
    }

    fn write_outcome(&self, way: &Way<'_>, query: &Query<'_>, outcome: &Outcome, out: &mut [u8]) -> usize {
        if way.route.cache.is_some() {
            way.slab.cache_hit(counted(if outcome.rcode() == Rcode::NOERROR { Class::Success } else { Class::Denial }));
        }
        let length = outcome.write(query, way.limit(query, out), false, out);
        self.finish(way, query, outcome.rcode(), Plugin::Cache, &mut out[..length], way.now);
        length
    }

    /// The client was not told of an address, and will go on with its list by itself.
    fn mark_later(self: &Arc<Self>, way: &Way<'_>, start: &Start<'_>, query: &Query<'_>) {
        if start.first.is_short() && !start.search.is_odd {
            return;
        }
        let domains = &start.search.domains;
        Asker::new(self.clone(), way).mark_later(&start.first, query.name(), domains, query.qtype, way.now);
    }
}

fn is_denied(known: &Known) -> bool {
    match known {
        Known::Fresh(entry) | Known::Stale { entry, .. } => entry.response.rcode() == Rcode::NXDOMAIN,
        Known::Above(_) => true,
        Known::Failed(_) | Known::Unknown(_) => false,
    }
}

/// The octets of a key for the result of a walk.
fn walked<'q>(query: &'q mut Query<'_>) -> &'q [u8] {
    let (qtype, bits) = (query.qtype, Bits::of(query).cached());
    query.key(qtype, bits | WALKED)
}

/// Whether the line excepts the name asked for, or the one looked for.
fn is_excepted(autopath: &Autopath, first: &First, asked: &[u8]) -> bool {
    if autopath.except.is_empty() {
        return false;
    }
    let mut wanted = [0; MAX_NAME];
    wanted[..first.base].copy_from_slice(&asked[..first.base]);
    let under = |except: &[u8]| name::is_under(asked, except) || name::is_under(&wanted[..=first.base], except);
    autopath.except.iter().any(|except| under(except.as_wire()))
}
