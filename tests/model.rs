//! The resolver against a reference: in a world of five names everything happens in any order (questions, answers, denials,
//! failures, silence, late answers, passing time, evictions, reloads), and after each step both must have said the same.
//!
//! `DNSLET_MODEL_STEPS` is how many steps there are in all, `DNSLET_MODEL_SEED` which world comes first.

mod driver;
mod reference;
mod rig;
mod world;

use std::collections::BTreeMap;

use self::driver::World;
use self::world::Rules;

/// Steps in all, unless said otherwise.
const STEPS: u64 = 100_000;
/// Steps in one world.
const STEPS_IN_A_WORLD: u64 = 2_000;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

/// All that happens in one world; how often each kind of reply was seen.
fn live(mut world: World) -> BTreeMap<&'static str, u64> {
    (0..STEPS_IN_A_WORLD).for_each(|_| world.step());
    std::mem::take(&mut world.seen)
}

#[test]
fn resolver_does_what_the_reference_does() {
    let steps = number("DNSLET_MODEL_STEPS").unwrap_or(STEPS);
    let first = number("DNSLET_MODEL_SEED").unwrap_or(1);
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in first..first + steps.div_ceil(STEPS_IN_A_WORLD) {
        for (kind, count) in live(World::new(seed)) {
            *seen.entry(kind).or_default() += count;
        }
    }
    println!("{steps} steps: {seen:?}");
    // A world in which nothing of a kind happens proves nothing about it.
    for kind in ["answers", "stale answers", "stale NXDOMAIN", "failures", "remembered failures", "refreshes"] {
        let count = seen.get(kind).copied().unwrap_or_default();
        assert!(count >= steps / 1_000, "{count} {kind}");
    }
    let cuts = seen.get("denials of names above").copied().unwrap_or_default();
    assert!(cuts >= steps / 10_000, "{cuts} denials of names above");
}

/// A reference that is wrong by a second is found out, so one that agrees means something.
#[test]
#[should_panic(expected = "found and expected")]
fn reference_with_another_longest_ttl_disagrees() {
    live(World::judged_by(1, |mut rules| {
        rules.positive.longest += 1;
        rules
    }));
}

#[test]
#[should_panic(expected = "refresh")]
fn reference_with_another_pause_after_a_failed_refresh_disagrees() {
    for seed in 1..100 {
        live(World::judged_by(seed, |mut rules| {
            rules.stale.iter_mut().for_each(|stale| stale.recheck += 1);
            rules
        }));
    }
}

#[test]
#[should_panic(expected = "an upstream was to be asked")]
fn reference_without_denials_of_names_above_disagrees() {
    for seed in 1..100 {
        live(World::judged_by(seed, |rules| Rules { cut: false, ..rules }));
    }
}
