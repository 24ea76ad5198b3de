//! Stub resolvers, as far as their rules differ: when they go on to the next name of a search list, and what they report.

use std::collections::BTreeSet;

use crate::support::chance::Chance;
use crate::support::wire::*;

use super::side::{Reply, Side};
use super::world::{DOMAIN, World, ZONE};

#[derive(Clone, Copy, Debug)]
pub enum Stub {
    /// glibc's getaddrinfo.
    Glibc,
    /// musl's, which ends where a name exists.
    Musl,
    /// Go's own resolver.
    Go,
    /// c-ares, which ends where a server fails.
    Ares,
    /// res_search for one type.
    Search(u16),
}

/// What a program looks for.
#[derive(Clone, Debug)]
pub struct Wanted {
    name: String,
    namespace: &'static str,
    ndots: usize,
}

/// What it finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Data(BTreeSet<Vec<u8>>),
    NoData,
    NoName,
    TryAgain,
}

/// One name of the list, for all types that are asked for.
enum Step {
    End(Found),
    GoOn(Found),
}

impl Wanted {
    pub fn any(world: &World, chance: &mut Chance) -> Wanted {
        let mut name = world.any_wanted(chance);
        // A whole name that is not there is one that only the search list's owner knows to be whole.
        if chance.percent(10) && (world.has(&name) || !name.ends_with(ZONE)) {
            name.push('.');
        }
        Wanted { name, namespace: chance.of(world.namespaces()), ndots: chance.of(&[5, 5, 5, 2, 1]) }
    }

    /// The names to be asked for, in order.
    fn list(&self) -> Vec<String> {
        if let Some(whole) = self.name.strip_suffix('.') {
            return vec![whole.to_owned()];
        }
        let ends =
            [format!("{}.svc.{ZONE}", self.namespace), format!("svc.{ZONE}"), ZONE.to_owned(), DOMAIN.to_owned()];
        let mut list: Vec<_> = ends.iter().map(|end| format!("{}.{end}", self.name)).collect();
        let first = self.name.matches('.').count() >= self.ndots;
        list.insert(if first { 0 } else { list.len() }, self.name.clone());
        list
    }

    /// The client's address: each namespace has its pod.
    pub fn client(&self) -> [u8; 4] {
        [10, 0, 0, self.namespace.as_bytes()[0]]
    }
}

impl Found {
    pub fn is_found(&self) -> bool {
        matches!(self, Found::Data(_))
    }
}

impl Stub {
    pub const ALL: [Stub; 7] =
        [Stub::Glibc, Stub::Glibc, Stub::Musl, Stub::Go, Stub::Ares, Stub::Search(A), Stub::Search(AAAA)];

    pub fn look_up(self, wanted: &Wanted, side: &mut Side, world: &World) -> Found {
        let (mut nodata, mut failed, mut last) = (false, false, Found::NoName);
        for name in wanted.list() {
            let kinds: &[u16] = if let Stub::Search(kind) = &self { std::slice::from_ref(kind) } else { &[A, AAAA] };
            let replies: Vec<Reply> = kinds.iter().map(|kind| side.ask(wanted.client(), &name, *kind, world)).collect();
            match self.step(&replies) {
                Step::End(found) => return found,
                Step::GoOn(found) => {
                    nodata |= found == Found::NoData;
                    failed |= found == Found::TryAgain;
                    last = found;
                }
            }
        }
        match () {
            () if nodata => Found::NoData,
            () if failed => Found::TryAgain,
            () => last,
        }
    }

    fn step(self, replies: &[Reply]) -> Step {
        let data: BTreeSet<_> = replies.iter().flat_map(|reply| reply.data.clone()).collect();
        let failure = replies.iter().any(|reply| !matches!(reply.rcode, NOERROR | NXDOMAIN));
        let missing = replies[0].rcode == NXDOMAIN;
        let nothing = if missing { Found::NoName } else { Found::NoData };
        match self {
            Stub::Musl => match () {
                () if failure => Step::End(Found::TryAgain),
                () if missing => Step::GoOn(Found::NoName),
                () if data.is_empty() => Step::End(Found::NoData),
                () => Step::End(Found::Data(data)),
            },
            _ if !data.is_empty() => Step::End(Found::Data(data)),
            // An alias alone is an answer to these.
            Stub::Glibc | Stub::Search(_)
                if replies.iter().any(|reply| reply.rcode == NOERROR && reply.answers > 0) =>
            {
                Step::End(Found::NoData)
            }
            Stub::Ares if failure => Step::End(Found::TryAgain),
            _ if failure => Step::GoOn(Found::TryAgain),
            _ => Step::GoOn(nothing),
        }
    }
}
