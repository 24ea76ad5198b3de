//! What the page for operators shows is what is printed.

use super::{costs, squeezed, walking};

/// What is the same each time: no times; of two walks at once not which of them came to know first, nor how much that saved.
fn steady(text: &str) -> Vec<String> {
    let (mut walked, mut lines) = (false, Vec::new());
    let always = |line: &&str| !line.starts_with("  and later, for other names");
    for line in text.lines().filter(always).map(squeezed) {
        walked |= line == "With autopath";
        let said = line.split_once("; ").and_then(|(said, rest)| Some(format!("{said}; {}", rest.split_once(", ")?.1)));
        lines.push(match said {
            Some(said) => said,
            None if walked && line.starts_with("asked ") => "asked".to_owned(),
            None if line.contains(" does not exist: ") => line.split(": ").next().unwrap_or_default().to_owned(),
            None if line.starts_with("with autopath 2 ") => "with autopath 2".to_owned(),
            None => line,
        });
    }
    lines
}

#[test]
fn the_page_for_operators_shows_an_explanation() {
    let world = walking();
    let corefile = std::fs::read_to_string(world.directory.path().join("Corefile")).expect("written");
    world.directory.write("Corefile", &corefile.replace("search corp.example.org", "search ."));
    let (code, text, _) = world.explain(&["www.example.org", "-ns", "shop"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!((costs(&text)[0], costs(&text)[2]), ((8, 8), (2, 2)), "{text}");
    let shown = text.replace("127.0.0.1:5300", "169.254.20.10:53");
    let shown = shown.replace(&world.upstreams[0], "10.1.0.53:53").replace(&world.upstreams[1], "10.96.3.7:53");
    let page = include_str!("../../docs/trouble.md");
    let (_, sample) = page.split_once("$ dnslet explain www.example.org -ns shop\n").expect("a sample");
    let (sample, _) = sample.split_once("```").expect("its end");
    assert_eq!(steady(&shown), steady(sample), "docs/trouble.md does not show this:\n{shown}");
}
