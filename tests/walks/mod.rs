//! Stub resolvers over two agents in random worlds, one of which walks search lists for them: they have to come to the same
//! results, and upstreams are asked no more often. `world` is what there is, `side` an agent, `stub` the rules of stubs.

mod side;
mod stub;
mod world;

use std::time::Duration;

use crate::support::chance::Chance;
use side::Side;
use stub::{Stub, Wanted};
use world::World;

/// How many worlds, and lookups in each; the first may be set by DNSLET_WALK_WORLDS.
const WORLDS: u64 = 60;
const LOOKUPS: usize = 60;

#[test]
fn walks_never_change_what_a_stub_finds() {
    let worlds = std::env::var("DNSLET_WALK_WORLDS").map_or(WORLDS, |number| number.parse().expect("a number"));
    let mut found = 0;
    let (mut walked, mut plain) = ([0; 2], [0; 2]);
    for seed in 0..worlds {
        let mut chance = Chance::new(seed);
        let world = World::any(&mut chance);
        let mut sides = [Side::new(&world, true), Side::new(&world, false)];
        for step in 0..LOOKUPS {
            let wanted = Wanted::any(&world, &mut chance);
            let stub = chance.of(&Stub::ALL);
            let [with, without] = sides.each_mut().map(|side| stub.look_up(&wanted, side, &world));
            assert_eq!(
                with,
                without,
                "world {seed}, lookup {step}: {stub:?} {wanted:?}\n{}\n{world:?}",
                sides[0].log()
            );
            found += usize::from(with.is_found());
            if chance.percent(30) {
                let pause = Duration::from_millis(chance.of(&[10, 900, 3_000, 6_000, 70_000]));
                sides.iter_mut().for_each(|side| side.wait(pause));
            }
        }
        let [with, without] = [&sides[0], &sides[1]];
        (walked[0], walked[1]) = (walked[0] + with.queries, walked[1] + with.packets);
        (plain[0], plain[1]) = (plain[0] + without.queries, plain[1] + without.packets);
        // One question for each namespace, and again where its denial has been forgotten.
        let allowed = without.packets + world.namespaces().len() * if world.proper { 1 } else { 3 };
        assert!(with.packets <= allowed, "world {seed}: {} packets, {} without", with.packets, without.packets);
    }
    println!("{found} found; queries {} of {}, packets {} of {}", walked[0], plain[0], walked[1], plain[1]);
    assert!(found * 4 > worlds as usize * LOOKUPS, "only {found} lookups found anything");
    assert!(walked[0] < plain[0] && walked[1] < plain[1]);
}
