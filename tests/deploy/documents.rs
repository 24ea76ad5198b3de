//! Every command of the documents that operators type from, run where the document says: in this repository, at a cluster, on
//! a node, on a host with the package. A block that says nothing holds no command.

mod host;
mod node;
mod page;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use page::{Page, Place, read, run};

/// What begins a command.
const PROGRAMS: [&str; 12] =
    ["dnslet", "kubectl", "make", "cargo", "systemctl", "journalctl", "apt-get", "dpkg", "dig", "ip", "nft", "sudo"];

#[test]
fn every_command_says_where_it_is_typed() {
    let places = Place::ALL.map(Place::info);
    let mut wrong = Vec::new();
    for page in Page::all() {
        for block in page.blocks() {
            let at = |number: usize| format!("{}:{number}", page.path);
            let first = block.lines.first().map_or(0, |(number, _)| *number);
            match block.info {
                "corefile" | "promql" | "yaml" | "text" => {}
                "" => {
                    let typed = block.lines.iter().filter(|(_, line)| is_command(line));
                    wrong.extend(typed.map(|(number, line)| format!("{}: {line}", at(*number))));
                }
                info if places.contains(&info) => {}
                info => wrong.push(format!("{}: nobody knows where a block {info:?} is typed", at(first))),
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

fn is_command(line: &str) -> bool {
    let first = line.split_whitespace().next().unwrap_or_default();
    PROGRAMS.contains(&first.rsplit('/').next().unwrap_or_default())
}

#[test]
fn what_is_typed_in_a_checkout_succeeds() {
    let gate = gate();
    // It types the README's in a bare Debian.
    let walk = read("tests/newcomer/run");
    assert!(walk.contains("README.md") && walk.contains(Place::Checkout.info()), "{walk}");
    for page in Page::with(Place::Checkout) {
        let long = |line: &str| line.starts_with("make ") || line.starts_with(".ci/run");
        for block in page.blocks().iter().filter(|block| block.info == Place::Checkout.info()) {
            for (number, line) in block.lines.iter().filter(|(_, line)| long(line)) {
                let target = line.split_whitespace().nth(1).unwrap_or_default();
                let is_run = line.starts_with(".ci/run") || gate.contains(target) || page.path == "README.md";
                assert!(is_run, "{}:{number}: neither .ci/run nor the newcomer's walk runs `{line}`", page.path);
            }
        }
        let mut command = Command::new("bash");
        command.current_dir(env!("CARGO_MANIFEST_DIR")).env("PATH", path()).arg("-c");
        run(command, &page.script(Place::Checkout, |line| !long(line)));
    }
}

/// The targets of the Makefile that .ci/run makes, those that they make themselves among them.
fn gate() -> BTreeSet<String> {
    let (makefile, gate) = (read("Makefile"), read(".ci/run"));
    let mut open: Vec<String> = after(&gate, "make ").collect();
    let mut found = BTreeSet::new();
    while let Some(target) = open.pop() {
        let mut lines = makefile.lines().skip_while(|line| !line.starts_with(&format!("{target}:")));
        let first = lines.next().unwrap_or_else(|| panic!("the Makefile has no target {target}"));
        let rest: String = lines.take_while(|line| line.starts_with('\t')).collect();
        let needs = first.split([':', ';']).nth(1).unwrap_or_default().split_whitespace().map(str::to_owned);
        open.extend(needs.chain(after(&format!("{first}\n{rest}"), "$(MAKE) ")));
        found.insert(target);
    }
    found
}

/// The words that follow this one in a text.
fn after<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = String> + 'a {
    let next = |rest: &str| rest.split([' ', '\n', ';']).next().unwrap_or_default().to_owned();
    text.split(word).skip(1).map(next)
}

/// Where commands are looked for: the built program's directory first.
fn path() -> String {
    let built = Path::new(env!("CARGO_BIN_EXE_dnslet")).parent().expect("a directory");
    format!("{}:{}:/usr/sbin:/sbin", built.display(), std::env::var("PATH").unwrap_or_default())
}
