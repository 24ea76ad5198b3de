//! The later names of a list, which a stub asks for by itself when the first brought it no answer.

use std::time::Instant;

use crate::dns::{MAX_NAME, Name, Query, Type};
use crate::resolve::way::Way;

use super::asker::Asker;
use super::list::First;
use super::namespace;

impl Asker {
    /// Lets the client ask for the later names of its list by itself, as far as they look like the first of another.
    pub(super) fn mark_later(&self, first: &First, name: &[u8], domains: &[Name], qtype: Type, now: Instant) {
        let base = &name[..first.base];
        for (suffix, kind) in first.suffixes(name, domains).skip(1) {
            if !first.may_begin(name, suffix, kind) {
                continue;
            }
            let mut octets = [0; MAX_NAME];
            let length = base.len() + suffix.len();
            let Some(candidate) = octets.get_mut(..length) else { continue };
            candidate[..base.len()].copy_from_slice(base);
            candidate[base.len()..].copy_from_slice(suffix);
            if candidate != name {
                self.on_way(candidate, qtype, now, |way, query| self.mark(way, query));
            }
        }
    }

    fn mark(&self, way: &Way<'_>, query: &mut Query<'_>) -> Option<()> {
        let resolver = &self.resolver;
        let search = resolver.lines[way.route_index].search.as_ref()?;
        let zone = resolver.routes.listens[usize::from(way.client.listen)].zones.zone(way.zone);
        let first = First::of(way.route.autopath.as_ref()?, zone, search, query)?;
        // Where there is no such namespace, there is no walk: most names outside look like names in one.
        if first.namespace(query.name()).is_some_and(|namespace| namespace::is_missing(self, namespace, way.now)) {
            return None;
        }
        let key = resolver.cache.key(resolver.list(way, &search.load()), query.name());
        resolver.walks.mark(self.client.peer.ip(), &key, way.now);
        Some(())
    }
}
