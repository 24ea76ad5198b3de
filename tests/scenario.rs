//! The resolver without sockets and without waiting: each file in `tests/scenarios/` is a story of queries, upstream
//! answers and passing time. `script` is the language, `play` plays it.
//! `outage` and `lists` are stories too long for a file.

mod lists;
mod outage;
mod play;
mod script;
mod text;

use std::collections::BTreeSet;
use std::path::Path;

/// One test per scenario.
macro_rules! scenarios {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                play::run(include_str!(concat!("scenarios/", stringify!($name), ".rpl")));
            }
        )*

        const LISTED: &[&str] = &[$(stringify!($name)),*];
    };
}

scenarios! { aaaa autopath autopath_ends autopath_families autopath_plain autopath_stale autopath_tops cname denial_cut disable dnssec edns keepttl negative prefetch serve_stale stale_chain truncation ttl }

#[test]
fn every_scenario_is_played() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let files = std::fs::read_dir(directory).expect("the scenarios are there");
    let names = files.map(|file| file.expect("a readable directory").file_name().to_string_lossy().into_owned());
    let there: BTreeSet<String> = names.collect();
    let listed: BTreeSet<String> = LISTED.iter().map(|name| format!("{name}.rpl")).collect();
    assert_eq!(there, listed);
}

#[test]
#[should_panic(expected = "STEP 3 EXPECT")]
fn wrong_expectation_fails() {
    let text = include_str!("scenarios/ttl.rpl").replacen("long.test. 30 A", "long.test. 31 A", 1);
    play::run(&text);
}
