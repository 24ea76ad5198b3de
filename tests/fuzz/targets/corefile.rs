//! What an operator may write: text to tree, tree to typed values, and every fault told.
#![no_main]

use std::path::Path;

use dnslet::corefile::{self, Imported};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let env = |name: &str| match name {
        "PORT" => Some("53".to_owned()),
        "AGAIN" => Some("{$AGAIN}{$PORT}".to_owned()),
        _ => None,
    };
    // One file there is, and it imports itself.
    let mut files = |path: &Path| match path.ends_with("common") {
        true => Ok(vec![Imported { path: path.to_owned(), text: "cache 30\nimport common\n".to_owned() }]),
        false => Err("no such file".to_owned()),
    };
    let mut parsed = corefile::parse(Path::new("Corefile"), text, &mut files, &env);
    for block in &parsed.blocks {
        dnslet::plugins::parse(block, &mut parsed.diagnostics);
    }
    let rendered = corefile::render_all(&parsed.diagnostics, &parsed.sources, false);
    assert_eq!(parsed.diagnostics.is_empty(), rendered.is_empty());
    for diagnostic in &parsed.diagnostics {
        assert_eq!(diagnostic.line(&parsed.sources).lines().count(), 1, "one line for the log");
    }
    assert_eq!(parsed.digest().len(), 128);
});
