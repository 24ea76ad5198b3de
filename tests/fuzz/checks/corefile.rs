//! What an operator may write: text to tree, tree to typed values, typed values to routes, and every fault told.

use std::path::Path;

use dnslet::corefile::Imported;
use dnslet::routes::{self, Sources};

/// Panics where a promise is broken.
pub fn check(text: &str) {
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
    let loaded = routes::load(Path::new("Corefile"), text, &mut files, &env, &Sources::default());
    assert!(loaded.render(false).ends_with(" warnings\n") || loaded.render(true).ends_with(" warning\n"));
    assert!(loaded.routes.is_some() || !loaded.diagnostics.is_empty(), "what is refused is explained");
    assert!(loaded.lines().all(|(_, line)| line.lines().count() == 1), "one line each for the log");
    assert_eq!(loaded.digest.len(), 128);
}
