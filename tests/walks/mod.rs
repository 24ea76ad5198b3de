//! Stub resolvers over two agents in random worlds, one of which walks search lists for them: they have to come to the same
//! results, and upstreams are asked no more often. `world` is what there is, `config` how agents are configured, `side` an
//! agent, `both` two of them, `stub` the rules of stubs, `truth` what they may find.
//!
//! What is guaranteed, and tested here:
//! - Every result is one that the rules of the stub come to from replies each of which a cache may hold. So addresses of one
//!   result are those of one name (but for a lookup in which one of them has just come or gone), and where nothing changes,
//!   and no server contradicts itself, there is one result, and both agents give it.
//! - After a change both agents give what is so: at once where nothing that has expired is used, else after one more lookup
//!   with walks than without, if at all: what was not asked for is older.
//! - Where the agent without walks finds something in an outage, the other one finds it, too.
//! - In each world walks cost upstreams no more than one question for each namespace.

mod both;
mod config;
mod side;
mod stub;
mod truth;
mod world;

use std::time::Duration;

use crate::support::chance::Chance;
use both::{Both, Story};
use config::{Config, Stale};
use world::World;

/// How many worlds, and lookups in each; the first may be set by DNSLET_WALK_WORLDS.
const WORLDS: u64 = 40;
const LOOKUPS: usize = 60;

/// After so many lookups of the same name nothing that has expired is left of its list.
const SETTLED: usize = 8;

/// Plays random worlds, and panics with the shortest story of those that went wrong. The sum of what they count.
fn in_worlds<const N: usize>(play: impl Fn(u64) -> Result<[usize; N], Story>) -> [usize; N] {
    let worlds = worlds();
    let (mut sums, mut stories) = ([0; N], Vec::new());
    for seed in 0..worlds {
        match play(seed) {
            Ok(counts) => sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count),
            Err(story) => stories.push(story),
        }
    }
    let wrong = stories.len();
    if let Some(story) = stories.into_iter().min_by_key(String::len) {
        panic!("{wrong} of {worlds} worlds went wrong, for example {story}");
    }
    sums
}

fn worlds() -> u64 {
    std::env::var("DNSLET_WALK_WORLDS").map_or(WORLDS, |number| number.parse().expect("a number"))
}

#[test]
fn walks_never_change_what_a_stub_finds() {
    let [found, walked, plain, packets, plain_packets] = in_worlds(|seed| {
        let mut chance = Chance::new(seed);
        let mut world = World::any(&mut chance).failing(&mut chance);
        if chance.percent(40) {
            world = world.odd(&mut chance);
        }
        let config = Config::any(&world, &mut chance);
        let mut both = Both::new(seed, world, config, chance);
        let mut found = 0;
        for _ in 0..LOOKUPS {
            let lookup = both.any_lookup();
            let results = both.look_up(&lookup);
            both.expect_one_of(&both.history.true_results(lookup.0, &lookup.1), &lookup, &results)?;
            found += usize::from(results[0].is_found());
            if both.chance.percent(30) {
                both.wait_for_one_of(&[10, 900, 3_000, 6_000, 70_000]);
            }
        }
        both.expect_no_more_packets()?;
        let [with, without] = &both.sides;
        Ok([found, with.queries, without.queries, with.packets, without.packets])
    });
    println!("{found} found; queries {walked} of {plain}, packets {packets} of {plain_packets}");
    assert!(found * 4 > worlds() as usize * LOOKUPS, "only {found} lookups found anything");
    assert!(walked < plain && packets < plain_packets);
}

#[test]
fn walks_follow_what_changes() {
    let [found, changes] = in_worlds(|seed| {
        let mut chance = Chance::new(seed);
        let world = World::any(&mut chance);
        let config = Config::any(&world, &mut chance);
        let mut both = Both::new(seed, world, config, chance);
        both.changes = true;
        let (mut found, mut changes) = (0, 0);
        for _ in 0..LOOKUPS / 2 {
            let lookup = both.any_lookup();
            let results = both.look_up(&lookup);
            let mut allowed = both.history.allowed_results(lookup.0, &lookup.1);
            // The walk for one family may end at a name that has just gone, and that for the other behind it.
            allowed.extend(results[0].is_of(&allowed).then(|| results[0].clone()));
            both.expect_one_of(&allowed, &lookup, &results)?;
            found += usize::from(results[0].is_found());
            match both.chance.below(10) {
                0..=2 => both.wait_for_one_of(&[10, 900, 3_000, 6_000]),
                3..=4 => {
                    both.change_something();
                    changes += 1;
                }
                5..=6 => {
                    (0..=both.chance.below(3)).for_each(|_| both.change_something());
                    changes += 1;
                    // Longer than anything lives.
                    both.wait(Duration::from_secs(61));
                    follow(&mut both)?;
                }
                _ => {}
            }
        }
        Ok([found, changes])
    });
    println!("{found} found, {changes} changes");
    assert!(found > 0 && changes > 0);
}

/// Looks the same up until all is as it is: that takes walks one lookup more, if any.
fn follow(both: &mut Both) -> Result<(), Story> {
    let lookup = both.recent_lookup();
    let truth = both.history.true_results(lookup.0, &lookup.1);
    let lookups = if both.config.stale == Stale::Immediate { SETTLED } else { 1 };
    let mut wrong = [0; 2];
    for at in 1..=lookups {
        let results = both.look_up(&lookup);
        for (wrong, result) in wrong.iter_mut().zip(&results) {
            *wrong = if truth.contains(result) { *wrong } else { at };
        }
        if wrong[0] > wrong[1] + 1 || wrong.contains(&lookups) {
            return Err(both.story(&format!("not of {truth:?} after {wrong:?} lookups"), &lookup, &results));
        }
    }
    Ok(())
}

#[test]
fn walks_last_in_an_outage() {
    let [found] = in_worlds(|seed| {
        let mut chance = Chance::new(seed);
        let world = World::any(&mut chance);
        let stale = chance.of(&[Stale::Never, Stale::Immediate, Stale::Verify, Stale::Verify]);
        let config = Config::with(stale, &world, &mut chance);
        let mut both = Both::new(seed, world, config, chance);
        let lookups: Vec<_> = (0..12).map(|_| both.any_lookup()).collect();
        for lookup in &lookups {
            let results = both.look_up(lookup);
            both.expect_one_of(&both.history.true_results(lookup.0, &lookup.1), lookup, &results)?;
        }
        both.wait_for_one_of(&[1_000, 4_000, 6_000, 70_000, 3_000_000]);
        both.change(|world, chance| world.fail([0; 3].map(|_| chance.percent(60))));
        let mut found = 0;
        for _ in 0..2 * lookups.len() {
            let lookup = &lookups[both.chance.below(lookups.len())];
            let results = both.look_up(lookup);
            let [with, without] = &results;
            // Who goes on by himself asks for names that were denied by names above, which holds only while those are fresh.
            let alone = both.config.cuts && both.history.has_nodata(lookup.0, &lookup.1);
            if without.is_found() && with != without && !alone {
                return Err(both.story("the other one has an answer", lookup, &results));
            }
            both.expect_one_of(&both.history.allowed_results(lookup.0, &lookup.1), lookup, &results)?;
            found += usize::from(without.is_found());
            if both.chance.percent(30) {
                both.wait_for_one_of(&[10, 900, 6_000, 35_000]);
            }
        }
        both.change(|world, _| world.fail([false; 3]));
        // Longer than any pause after a failure.
        both.wait(Duration::from_secs(61));
        for _ in 0..4 {
            follow(&mut both)?;
        }
        Ok([found])
    });
    println!("{found} found in an outage");
    assert!(found > 0);
}
