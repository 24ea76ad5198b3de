//! What a lookup may come to, by what there is and was: a cache may say what was true within its time.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::wire::*;

use super::config::{Config, Stale};
use super::side::Reply;
use super::stub::{Found, Progress, Stub, Wanted};
use super::world::{World, ZONE};

/// The longest TTL there is, and for how long after it an answer may be used.
const TTL: Duration = Duration::from_secs(60);
const STALE: Duration = Duration::from_secs(3600);

/// Worlds, and from when on they were so; the last one is.
pub struct History {
    worlds: Vec<(Duration, World)>,
    pub clock: Duration,
    kept: Duration,
    cuts: bool,
}

impl History {
    pub fn new(world: World, config: &Config) -> History {
        let kept = if config.stale == Stale::Never { TTL } else { TTL + STALE };
        History { worlds: vec![(Duration::ZERO, world)], clock: Duration::ZERO, kept, cuts: config.cuts }
    }

    pub fn world(&self) -> &World {
        &self.worlds.last().expect("there is a world").1
    }

    pub fn change(&mut self, change: impl FnOnce(&mut World)) {
        let mut world = self.world().clone();
        change(&mut world);
        self.worlds.push((self.clock, world));
    }

    /// What may be found by what is so.
    pub fn true_results(&self, stub: Stub, wanted: &Wanted) -> BTreeSet<Found> {
        self.results(stub, wanted, &[self.world()])
    }

    /// Whether a name of the list exists and has nothing of what is asked for: then a stub may go on by itself.
    pub fn has_nodata(&self, stub: Stub, wanted: &Wanted) -> bool {
        let world = self.worlds.first().map_or(self.world(), |(_, world)| world);
        let is_bare = |reply: Reply| reply.rcode == NOERROR && reply.data.is_empty();
        wanted.list(world).iter().any(|name| stub.kinds().iter().any(|kind| is_bare(world.reply(name, *kind))))
    }

    /// What may be found by what some cache may hold.
    pub fn allowed_results(&self, stub: Stub, wanted: &Wanted) -> BTreeSet<Found> {
        let ended = |at: usize| self.worlds.get(at + 1).map(|(until, _)| *until);
        let seen = |at: &usize| ended(*at).is_none_or(|until| until + self.kept > self.clock);
        let worlds: Vec<&World> = (0..self.worlds.len()).filter(seen).map(|at| &self.worlds[at].1).collect();
        self.results(stub, wanted, &worlds)
    }

    /// Every result that the rules of a stub come to if each reply is one that may be. All addresses of a result are those
    /// of one name.
    fn results(&self, stub: Stub, wanted: &Wanted, worlds: &[&World]) -> BTreeSet<Found> {
        let (mut found, mut open) = (BTreeSet::new(), BTreeSet::from([Progress::new()]));
        for name in wanted.list(self.world()) {
            let mut rows: Vec<Vec<Reply>> = vec![Vec::new()];
            for kind in stub.kinds() {
                let replies = self.replies(&name, *kind, worlds);
                let longer = |row: &Vec<Reply>| {
                    replies.iter().map(|reply| [&row[..], std::slice::from_ref(reply)].concat()).collect()
                };
                rows = rows.iter().flat_map(|row| -> Vec<Vec<Reply>> { longer(row) }).collect();
            }
            let mut next = BTreeSet::new();
            for progress in &open {
                for row in &rows {
                    let mut progress = progress.clone();
                    match progress.take(stub, row) {
                        Some(end) => _ = found.insert(end),
                        None => _ = next.insert(progress),
                    }
                }
            }
            open = next;
        }
        found.extend(open.into_iter().map(Progress::end));
        found
    }

    /// What a client may be told.
    fn replies(&self, name: &str, kind: u16, worlds: &[&World]) -> BTreeSet<Reply> {
        let mut replies: BTreeSet<Reply> = worlds.iter().map(|world| world.reply(name, kind)).collect();
        let nothing = |rcode| Reply { rcode, answers: false, data: BTreeSet::new() };
        // Who knows that a name has the other family may say that it has nothing of this one.
        if worlds.iter().any(|world| world.denies_one(name, kind)) {
            replies.insert(nothing(NOERROR));
        }
        // A denial of one type is one of the name (RFC 2308 section 5), and may be one of all names beneath.
        let denied = |name: &str| {
            let denies = |world: &&World| [A, AAAA].iter().any(|kind| world.reply(name, *kind).rcode == NXDOMAIN);
            worlds.iter().any(denies)
        };
        let above = |name: &str| {
            let end = format!(".{ZONE}");
            self.cuts && name.ends_with(&end) && name.match_indices('.').any(|(at, _)| denied(&name[at + 1..]))
        };
        if denied(name) || above(name) {
            replies.insert(nothing(NXDOMAIN));
        }
        replies
    }
}
