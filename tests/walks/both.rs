//! Two agents over one world, which differ by walks alone.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::support::chance::Chance;

use super::config::Config;
use super::side::Side;
use super::stub::{Found, Stub, Wanted};
use super::truth::History;
use super::world::World;

/// What went wrong in a world.
pub type Story = String;

/// Who looks for what.
pub type Lookup = (Stub, Wanted);

/// So many lookups are remembered.
const RECENT: usize = 4;

pub struct Both {
    seed: u64,
    pub chance: Chance,
    pub history: History,
    pub config: Config,
    /// The world does not stay as it is.
    pub changes: bool,
    /// The last few lookups.
    recent: VecDeque<Lookup>,
    /// With walks, and without.
    pub sides: [Side; 2],
}

impl Both {
    pub fn new(seed: u64, world: World, config: Config, chance: Chance) -> Both {
        let side = |walks| Side::new(&config.text(&world, walks), 2 * seed + u64::from(walks), walks);
        let sides = [side(true), side(false)];
        Both {
            seed,
            chance,
            history: History::new(world, &config),
            config,
            changes: false,
            recent: VecDeque::new(),
            sides,
        }
    }

    pub fn wait(&mut self, pause: Duration) {
        self.history.clock += pause;
        self.sides.iter_mut().for_each(|side| side.wait(pause));
    }

    /// Waits for one of these numbers of milliseconds.
    pub fn wait_for_one_of(&mut self, pauses: &[u64]) {
        let pause = self.chance.of(pauses);
        self.wait(Duration::from_millis(pause));
    }

    pub fn any_lookup(&mut self) -> Lookup {
        let mut lookup = (self.chance.of(&Stub::ALL), Wanted::any(self.history.world(), &mut self.chance));
        // A denial of a whole name of the cluster that exists is kept, and so answered from outside.
        while self.changes && lookup.1.is_of_the_cluster() {
            lookup.1 = Wanted::any(self.history.world(), &mut self.chance);
        }
        self.recent.push_front(lookup.clone());
        self.recent.truncate(RECENT);
        lookup
    }

    /// One of the last lookups, or another one.
    pub fn recent_lookup(&mut self) -> Lookup {
        match self.chance.below(RECENT + 1) {
            at if at < self.recent.len() => self.recent[at].clone(),
            _ => self.any_lookup(),
        }
    }

    /// Something changes, most often what somebody has looked for.
    pub fn change_something(&mut self) {
        let (_, wanted) = self.recent_lookup();
        let list = wanted.list(self.history.world());
        let name = list[self.chance.below(list.len())].clone();
        self.change(
            |world, chance| if chance.percent(70) { world.change_name(&name, chance) } else { world.change(chance) },
        );
    }

    pub fn look_up(&mut self, (stub, wanted): &Lookup) -> [Found; 2] {
        let world = self.history.world();
        self.sides.each_mut().map(|side| {
            side.note(&format!("{stub:?} {wanted:?}"));
            let found = stub.look_up(wanted, side, world);
            side.note(&format!("= {found:?}"));
            found
        })
    }

    pub fn change(&mut self, change: impl Fn(&mut World, &mut Chance)) {
        let before = self.history.world().clone();
        let chance = &mut self.chance;
        self.history.change(|world| change(world, chance));
        let changes = self.history.world().changes_since(&before);
        self.sides.iter_mut().for_each(|side| side.note(&format!("a change: {changes}")));
    }

    pub fn expect_one_of(&self, allowed: &BTreeSet<Found>, lookup: &Lookup, results: &[Found; 2]) -> Result<(), Story> {
        match results.iter().all(|result| allowed.contains(result)) {
            true => Ok(()),
            false => Err(self.story(&format!("not of {allowed:?}"), lookup, results)),
        }
    }

    /// One question for each namespace, and again where its denial has been forgotten: upstreams get no more of them.
    pub fn expect_no_more_packets(&self) -> Result<(), Story> {
        let ([with, without], world) = (&self.sides, self.history.world());
        let allowed = without.packets + world.namespaces().len() * if world.proper { 1 } else { 3 };
        match with.packets <= allowed {
            true => Ok(()),
            false => Err(self.tell(&format!("{} packets, {} without", with.packets, without.packets))),
        }
    }

    pub fn story(&self, what: &str, (stub, wanted): &Lookup, [with, without]: &[Found; 2]) -> Story {
        self.tell(&format!("{what}: {stub:?} {wanted:?}: {with:?} with, {without:?} without"))
    }

    fn tell(&self, what: &str) -> Story {
        let Both { seed, config, .. } = self;
        let [with, without] = [&self.sides[0], &self.sides[1]].map(Side::log);
        let world = self.history.world();
        format!("{seed}: {what}\n{config:#?}\n{world:#?}\nwith:\n{with}\nwithout:\n{without}")
    }
}
