//! The checks of the fuzz targets, on their seeds: so that they compile, and hold, whenever the tests run.

use std::path::Path;

#[path = "fuzz/checks/accept.rs"]
mod accept;
#[path = "fuzz/checks/corefile.rs"]
mod corefile;
#[path = "fuzz/checks/question.rs"]
mod question;

/// Every seed of a target, each also cut short at every octet.
fn inputs(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds").join(target);
    let files = std::fs::read_dir(directory).expect("the seeds are there");
    let seeds = files.map(|file| std::fs::read(file.expect("a readable directory").path()).expect("a seed"));
    let cut = |seed: Vec<u8>| (0..=seed.len()).map(move |end| seed[..end].to_vec());
    let inputs: Vec<_> = seeds.flat_map(cut).collect();
    assert!(inputs.len() > 100);
    inputs
}

#[test]
fn questions() {
    inputs("question").iter().for_each(|input| question::check(input));
}

#[test]
fn answers() {
    inputs("accept").iter().for_each(|input| accept::check(input));
}

#[test]
fn corefiles() {
    inputs("corefile").iter().filter_map(|input| std::str::from_utf8(input).ok()).for_each(corefile::check);
}
