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
    /// The same with `options single-request`: one family after the other.
    InTurn,
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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Found {
    Data(BTreeSet<Vec<u8>>),
    NoData,
    NoName,
    TryAgain,
}

/// How far a lookup has come without an end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Progress {
    nodata: bool,
    failed: bool,
    last: Found,
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
    pub fn list(&self, world: &World) -> Vec<String> {
        if let Some(whole) = self.name.strip_suffix('.') {
            return vec![whole.to_owned()];
        }
        let mut ends = vec![format!("{}.svc.{ZONE}", self.namespace), format!("svc.{ZONE}"), ZONE.to_owned()];
        ends.extend(world.domain.then(|| DOMAIN.to_owned()));
        let mut list: Vec<_> = ends.iter().map(|end| format!("{}.{end}", self.name)).collect();
        let first = self.name.matches('.').count() >= self.ndots;
        list.insert(if first { 0 } else { list.len() }, self.name.clone());
        list
    }

    /// Whether it is looked for under its full name in the cluster's zone.
    pub fn is_of_the_cluster(&self) -> bool {
        self.name.trim_end_matches('.').ends_with(ZONE)
    }

    /// The client's address: each namespace has its pod.
    fn client(&self) -> [u8; 4] {
        [10, 0, 0, self.namespace.as_bytes()[0]]
    }
}

impl Found {
    pub fn is_found(&self) -> bool {
        matches!(self, Found::Data(_))
    }

    /// Whether all of its data are in some of these.
    pub fn is_of(&self, others: &BTreeSet<Found>) -> bool {
        let Found::Data(data) = self else { return false };
        let has = |one| others.iter().any(|other| matches!(other, Found::Data(data) if data.contains(one)));
        data.iter().all(has)
    }
}

impl Progress {
    pub fn new() -> Progress {
        Progress { nodata: false, failed: false, last: Found::NoName }
    }

    /// Takes in the replies for one name; the end, if that is one.
    pub fn take(&mut self, stub: Stub, replies: &[Reply]) -> Option<Found> {
        match stub.step(replies) {
            Step::End(found) => return Some(found),
            Step::GoOn(found) => {
                self.nodata |= found == Found::NoData;
                self.failed |= found == Found::TryAgain;
                self.last = found;
            }
        }
        None
    }

    /// What is reported after the last name.
    pub fn end(self) -> Found {
        match () {
            () if self.nodata => Found::NoData,
            () if self.failed => Found::TryAgain,
            () => self.last,
        }
    }
}

impl Stub {
    pub const ALL: [Stub; 8] =
        [Stub::Glibc, Stub::Glibc, Stub::InTurn, Stub::Musl, Stub::Go, Stub::Ares, Stub::Search(A), Stub::Search(AAAA)];

    /// The types that it asks for.
    pub fn kinds(&self) -> &[u16] {
        if let Stub::Search(kind) = self { std::slice::from_ref(kind) } else { &[A, AAAA] }
    }

    pub fn look_up(self, wanted: &Wanted, side: &mut Side, world: &World) -> Found {
        let mut progress = Progress::new();
        for name in wanted.list(world) {
            let client = wanted.client();
            let replies = match self {
                Stub::InTurn => [A, AAAA].iter().flat_map(|kind| side.ask(client, &name, &[*kind], world)).collect(),
                _ => side.ask(client, &name, self.kinds(), world),
            };
            if let Some(found) = progress.take(self, &replies) {
                return found;
            }
        }
        progress.end()
    }

    fn step(self, replies: &[Reply]) -> Step {
        let data: BTreeSet<_> = replies.iter().flat_map(|reply| reply.data.clone()).collect();
        let failure = replies.iter().any(|reply| !matches!(reply.rcode, NOERROR | NXDOMAIN));
        let missing = replies.iter().all(|reply| reply.rcode == NXDOMAIN);
        let nothing = if missing { Found::NoName } else { Found::NoData };
        match self {
            // The first reply that is no answer decides.
            Stub::Musl => match replies.iter().map(|reply| reply.rcode).find(|rcode| *rcode != NOERROR) {
                Some(NXDOMAIN) => Step::GoOn(Found::NoName),
                Some(_) => Step::End(Found::TryAgain),
                None if data.is_empty() => Step::End(Found::NoData),
                None => Step::End(Found::Data(data)),
            },
            _ if !data.is_empty() => Step::End(Found::Data(data)),
            // An alias alone is an answer to these.
            Stub::Glibc | Stub::InTurn | Stub::Search(_)
                if replies.iter().any(|reply| reply.rcode == NOERROR && reply.answers) =>
            {
                Step::End(Found::NoData)
            }
            Stub::Ares if failure => Step::End(Found::TryAgain),
            _ if failure => Step::GoOn(Found::TryAgain),
            _ => Step::GoOn(nothing),
        }
    }
}
