//! The rules of this repository's own layout: which room may import which, how long a file may be, and that every
//! promise made in docs/ has something behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The longest a source file may be, in lines.
const LONGEST: usize = 400;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file under the directory whose name ends so, build output left out.
fn files(directory: &str, ending: &str) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![root().join(directory)]);
    while let Some(directory) = open.pop() {
        let entries = fs::read_dir(&directory).into_iter().flatten();
        for path in entries.map(|entry| entry.expect("a readable directory").path()) {
            let name = path.file_name().expect("an entry has a name").to_string_lossy().into_owned();
            if path.is_dir() && !["target", "corpus", "artifacts"].contains(&name.as_str()) {
                open.push(path);
            } else if name.ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The rooms in the order src/lib.rs declares them.
fn rooms() -> Vec<String> {
    let text = read("src/lib.rs");
    let declared = text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    declared.map(str::to_owned).collect()
}

/// The rows of the first table below a heading, cells trimmed, header and rule left out.
fn table(document: &str, heading: &str) -> Vec<Vec<String>> {
    let text = read(document);
    let below =
        text.lines().skip_while(|line| line.trim_start_matches('#').trim() != heading || !line.starts_with('#'));
    let rows = below.skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let rows: Vec<Vec<String>> = rows.skip(2).map(cells).collect();
    assert!(!rows.is_empty(), "{document} has a table below {heading:?}");
    rows
}

fn cells(row: &str) -> Vec<String> {
    row.trim().trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|char: char| !char.is_ascii_alphanumeric() && char != '_').filter(|word| !word.is_empty())
}

/// What each room may import, from the table in docs/architecture.md.
fn allowed() -> BTreeMap<String, BTreeSet<String>> {
    let order = rooms();
    let mut allowed = BTreeMap::new();
    for row in table("docs/architecture.md", "Rooms") {
        let room = row[0].trim_matches('`').to_owned();
        let place = order.iter().position(|other| *other == room);
        let above = &order[..place.unwrap_or_else(|| panic!("the table names {room:?}, src/lib.rs does not"))];
        let named: BTreeSet<String> = if row[3] == "all above" {
            above.iter().cloned().collect()
        } else {
            words(&row[3]).filter(|word| order.iter().any(|room| room == word)).map(str::to_owned).collect()
        };
        assert!(named.iter().all(|name| above.contains(name)), "{room} may import only rooms above it");
        allowed.insert(room, named);
    }
    assert_eq!(allowed.len(), order.len(), "the table and src/lib.rs name the same rooms");
    allowed
}

/// Source text without comments.
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The first path segments behind every `crate::`, groups opened.
fn imported(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, prefix) in code.match_indices("crate::") {
        let rest = code[at + prefix.len()..].trim_start();
        let Some(group) = rest.strip_prefix('{') else {
            found.extend(words(rest).next().map(str::to_owned));
            continue;
        };
        let mut depth = 1;
        let mut item = String::new();
        for char in group.chars() {
            match char {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 || depth == 1 && char == ',' {
                found.extend(words(&item).next().map(str::to_owned));
                item.clear();
            } else {
                item.push(char);
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
}

#[test]
fn imports_are_found_in_every_form() {
    let text = "use crate::dns::Name;\npub(in crate::cache) fn f() { crate::sys::clock::now(); }\n\
                use crate::{\n    observe::{self, Registry},\n    upstream,\n};\n// use crate::life;\n";
    let found: Vec<String> = imported(&code(text)).into_iter().collect();
    assert_eq!(found, ["cache", "dns", "observe", "sys", "upstream"]);
}

#[test]
fn rooms_import_only_what_the_architecture_allows() {
    let mut wrong = Vec::new();
    for (room, allowed) in allowed() {
        for file in files(&format!("src/{room}"), ".rs") {
            let code = code(&fs::read_to_string(&file).expect("a source file"));
            let (outside, inside) = match file.file_name().is_some_and(|name| name == "tests.rs") {
                true => ("", code.as_str()),
                false => code.split_once("#[cfg(test)]").unwrap_or((&code, "")),
            };
            let own = |name: &String| *name == room || allowed.contains(name);
            // Unit tests need a time to hand in, and a room that never reads a clock has none.
            let others = imported(outside).into_iter().filter(|name| !own(name));
            let others = others.chain(imported(inside).into_iter().filter(|name| !own(name) && name != "sys"));
            wrong.extend(others.map(|name| format!("{} imports {name}", file.display())));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn files_are_short() {
    let files = ["src", "tests", "benches"].map(|directory| files(directory, ".rs")).concat();
    assert!(files.len() > 20);
    let lines = |path: &PathBuf| fs::read_to_string(path).expect("a source file").lines().count();
    let long: Vec<_> = files.iter().map(|path| (path, lines(path))).filter(|(_, lines)| *lines > LONGEST).collect();
    assert!(long.is_empty(), "longer than {LONGEST} lines: {long:#?}");
}

#[test]
fn no_file_holds_what_belongs_elsewhere() {
    // Written in halves, so that this file does not hold them either.
    let forbidden =
        [("TO", "DO"), ("FIX", "ME"), ("XX", "X"), ("HA", "CK"), ("/home", "/"), ("/wo", "rk/"), ("/ro", "ot/")];
    let mut found = Vec::new();
    for (directory, ending) in
        [("src", ".rs"), ("tests", ".rs"), ("tests", ".rpl"), ("benches", ".rs"), ("docs", ".md")]
    {
        for file in files(directory, ending) {
            let text = fs::read_to_string(&file).expect("a text file");
            for (number, line) in text.lines().enumerate() {
                let hit = forbidden.iter().any(|(first, second)| line.contains(&format!("{first}{second}")));
                found.extend(hit.then(|| format!("{}:{}: {line}", file.display(), number + 1)));
            }
        }
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn every_directive_has_a_page() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_dnslet")).arg("-plugins").output().expect("the binary");
    let printed = String::from_utf8(output.stdout).expect("text");
    let names: Vec<&str> = printed.lines().filter_map(|line| line.trim().strip_prefix("dns.")).collect();
    assert!(names.len() >= 10, "{printed}");
    let missing: Vec<_> =
        names.iter().filter(|name| !root().join(format!("docs/plugins/{name}.md")).exists()).collect();
    assert!(missing.is_empty(), "no page in docs/plugins for {missing:?}");
}

#[test]
fn metrics_that_operators_are_told_to_watch_exist() {
    let all = read("docs/metrics.md");
    let known: BTreeSet<&str> = words(&all).collect();
    for page in ["docs/trouble.md", "docs/operations.md", "docs/node.md"] {
        let text = read(page);
        let named = words(&text).filter(|word| word.starts_with("dnslet_") || word.starts_with("coredns_"));
        // A table tells of a histogram; an expression reads its buckets.
        let named: BTreeSet<&str> = named.map(|name| name.strip_suffix("_bucket").unwrap_or(name)).collect();
        let unknown: Vec<_> = named.difference(&known).collect();
        assert!(!named.is_empty() && unknown.is_empty(), "{page} names what docs/metrics.md does not: {unknown:?}");
    }
}

#[test]
fn every_rule_of_the_compliance_table_has_its_test() {
    let sources = ["src", "tests"].map(|directory| files(directory, ".rs")).concat();
    let mut functions = BTreeSet::new();
    for path in sources {
        let text = fs::read_to_string(path).expect("a source file");
        let names =
            text.lines().filter_map(|line| line.trim_start().strip_prefix("fn ")?.split('(').next().map(str::to_owned));
        functions.extend(names);
    }
    let mut named = BTreeSet::new();
    for row in table("docs/compliance.md", "Rules and their tests") {
        let [number, .., tests] = row.as_slice() else { panic!("a short row: {row:?}") };
        let prefix = format!("c{:0>3}", number.trim_start_matches("C-"));
        for test in tests.split(", ").map(|test| test.trim_matches('`')) {
            assert!(functions.contains(test), "{number}: there is no test {test}");
            assert!(test.contains(&prefix), "{number}: {test} is named after another rule");
            named.insert(test.to_owned());
        }
    }
    let rules = functions.iter().filter(|name| {
        let digits = name.strip_prefix('c').map(|rest| rest.bytes().take(3).filter(u8::is_ascii_digit).count());
        digits == Some(3) && name.as_bytes().get(4) == Some(&b'_')
    });
    let unlisted: Vec<_> = rules.filter(|name| !named.contains(*name)).collect();
    assert!(unlisted.is_empty(), "not in docs/compliance.md: {unlisted:?}");
}
