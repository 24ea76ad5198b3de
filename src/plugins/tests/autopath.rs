//! `autopath`: what each line means, and everything that can be wrong with one.

use super::*;
use crate::plugins::policy::autopath::{Autopath, List, NODES};

/// Reads the lines of a block for `keys`, with a cache; the settings and the findings without their file.
fn read_in(keys: &str, lines: &str) -> (Option<Autopath>, Vec<String>) {
    read_block(&format!("{keys} {{\n{lines}\ncache\n}}"))
}

fn read_block(text: &str) -> (Option<Autopath>, Vec<String>) {
    let parsed = corefile::parse(Path::new("C"), text, &mut |_| Err("none".into()), &|_| None);
    let mut found = Vec::new();
    let settings = parse(&parsed.blocks[0], &mut found);
    let found = found.iter().map(|finding| finding.line(&parsed.sources).trim_start_matches("C:").to_owned()).collect();
    (settings.autopath, found)
}

fn findings(text: &str) -> Vec<String> {
    read_block(text).1
}

#[track_caller]
fn walked(keys: &str, lines: &str) -> Autopath {
    let (autopath, found) = read_in(keys, lines);
    assert_eq!(found, Vec::<String>::new(), "{lines}");
    autopath.unwrap()
}

/// Each text in a block for `cluster.local` with a cache, and all findings it must give.
#[track_caller]
fn wrong(cases: &[(&str, &[&str])]) {
    for (lines, expected) in cases {
        assert_eq!(read_in("cluster.local", lines).1, *expected, "{lines}");
    }
}

#[test]
fn every_option() {
    let plain = walked("cluster.local", "autopath @query");
    let expected = Autopath { zones: None, list: List::Query(None), except: vec![], max_depth: 10 };
    assert_eq!((plain.file(), &plain), (Some(Path::new(NODES)), &expected));

    let all = walked(
        ".",
        "autopath Cluster.local @query {\n search eu.Corp.example corp.example.\n except prod.svc.cluster.local a\n except b\n max_depth 40\n}",
    );
    assert_eq!((all.zones.as_deref(), all.file()), (Some(&[name("cluster.local")][..]), None));
    assert_eq!(all.list, List::Query(Some(vec![name("eu.corp.example"), name("corp.example")])));
    assert_eq!(all.except, [name("prod.svc.cluster.local"), name("a"), name("b")]);
    assert_eq!(all.max_depth, 40);

    let none = walked("cluster.local", "autopath @query {\n search .\n}");
    assert_eq!((none.file(), &none.list), (None, &List::Query(Some(vec![]))));

    let file = walked(".", "autopath ./resolv.conf {\n max_depth 2\n}");
    assert_eq!((file.file(), file.max_depth), (Some(Path::new("./resolv.conf")), 2));
    let file = walked(".", "autopath a.example b.example /etc/resolv.conf");
    assert_eq!(file.zones.unwrap(), [name("a.example"), name("b.example")]);
    assert_eq!(file.list, List::File("/etc/resolv.conf".into()));
}

/// As many suffixes as kubelet gives a pod, and a walk as long as that takes.
#[test]
fn the_longest_list() {
    let suffixes = |count: usize| (0..count).map(|n| format!(" s{n}.example")).collect::<String>();
    let line = |count, depth| format!("autopath @query {{\n search{}\n max_depth {depth}\n}}", suffixes(count));
    let Autopath { list: List::Query(Some(list)), .. } = walked("cluster.local", &line(32, 36)) else {
        panic!("suffixes of the line");
    };
    assert_eq!((list.len(), &list[31]), (32, &name("s31.example")));
    let found = |count, depth| read_in("cluster.local", &line(count, depth)).1;
    assert_eq!(found(32, 35), ["3:2: a search list has 36 names with these suffixes (write `max_depth 36`)"]);
    assert_eq!(found(34, 40), ["3:383: more than 32 suffixes (name at most 32)"]);
}

#[test]
fn where_the_list_comes_from() {
    wrong(&[
        ("autopath", &["2:1: `autopath` needs more arguments (write `autopath [ZONES...] RESOLV-CONF|@query`)"]),
        ("autopath @kubernetes", &["2:10: `@kubernetes` cannot be asked for a search list (write `@query`)"]),
        ("autopath cluster.local @k8s", &["2:24: `@k8s` cannot be asked for a search list (write `@query`)"]),
        ("autopath @query cluster.local", &["2:10: `@query` comes last (write `autopath cluster.local @query`)"]),
        (
            "autopath a.local @query cluster.local",
            &["2:18: `@query` comes last (write `autopath a.local cluster.local @query`)"],
        ),
        ("autopath cluster.local /a/b @query", &["2:24: a file or `@query`, not both (remove one of them)"]),
        ("autopath @query ./r", &["2:17: a file or `@query`, not both (remove one of them)"]),
        (
            "autopath resolv.conf",
            &[
                "2:10: `resolv.conf` is taken for a file, which needs a slash (write `autopath ./resolv.conf` for a file, or `autopath resolv.conf @query` for the names of a cluster)",
            ],
        ),
        (
            "autopath a.cluster.local r.conf",
            &[
                "2:26: `r.conf` is taken for a file, which needs a slash (write `autopath a.cluster.local ./r.conf` for a file, or `autopath a.cluster.local r.conf @query` for the names of a cluster)",
            ],
        ),
        ("autopath \"\"", &["2:10: this file name is empty (name a file, or write `@query`)"]),
        (
            "autopath @query\nautopath /etc/resolv.conf",
            &["3:1: `autopath` can be used only once in a block (put all of it into one)"],
        ),
    ]);
}

#[test]
fn zones_that_are_not_of_the_block() {
    wrong(&[
        (
            "autopath cluster.local other.example @query",
            &[
                "2:24: other.example. is not in this block (move the line to the block of this zone, or remove the zone)",
            ],
        ),
        (
            "autopath local @query",
            &["2:10: local. is not in this block (move the line to the block of this zone, or remove the zone)"],
        ),
        ("autopath local /r", &[]),
        (
            "autopath . @query",
            &["2:10: `.` is not the zone of a cluster (name the zone, as in `autopath cluster.local @query`)"],
        ),
        (
            "autopath a..b @query",
            &[
                "2:10: `a..b` is not a domain name: a label is empty (two dots in a row) (write a name such as `example.org`, or a block such as `10.0.0.0/8`)",
            ],
        ),
    ]);
    let root = "2:1: `@query` needs the name of the cluster's zone here (write `autopath cluster.local @query`, or move the line to the block of that zone)";
    assert_eq!(read_in(".", "autopath @query").1, [root]);
    assert_eq!(read_in("cluster.local, .:5353", "autopath @query").1, [root]);
    assert_eq!(
        read("autopath @query").1,
        ["2:1: `autopath` without `cache`: every walk asks everything anew (add a line `cache`)"]
    );
}

/// In blocks for `cluster.local` with `cache ZONES`.
#[test]
fn a_cache_that_keeps_no_walk() {
    let out = "2:1: `cache` leaves cluster.local. out: no walk there is kept (add cluster.local. to the zones of `cache`, or name none there)";
    for (zones, expected) in [
        ("other.example", vec![out]),
        ("30 other.example", vec![out]),
        ("local", vec![]),
        ("svc.cluster.local other.example", vec![]),
    ] {
        let text = format!("cluster.local {{\nautopath @query\ncache {zones}\n}}");
        assert_eq!(findings(&text), expected, "{zones}");
    }
    assert_eq!(findings("cluster.local . {\nautopath cluster.local @query\ncache corp.example\n}"), [out]);
}

#[test]
fn options_that_say_nothing_or_too_much() {
    wrong(&[
        ("autopath @query {\n serch a\n}", &["3:2: `autopath` has no option `serch` (did you mean `search`?)"]),
        ("autopath @query {\n search\n}", &["3:2: `search` needs more arguments (write `search SUFFIX...`)"]),
        ("autopath @query {\n search a . b\n}", &["3:11: `.` beside suffixes (remove it, or all the others)"]),
        ("autopath @query {\n search a A.\n}", &["3:11: `A.` is named twice (remove it)"]),
        (
            "autopath @query {\n search a\n search b\n}",
            &["4:2: `search` is given twice (put all suffixes on one line)"],
        ),
        (
            "autopath @query {\n search a..b\n}",
            &[
                "3:9: `a..b` is not a domain name: a label is empty (two dots in a row) (write a name such as `example.org`)",
            ],
        ),
        (
            "autopath @query {\n search corp.example svc.Cluster.local\n}",
            &[
                "3:22: `svc.Cluster.local` is in the cluster's own zone cluster.local. (remove it; to have no other suffixes, write `search .`)",
            ],
        ),
        (
            "autopath @query {\n search \"\" {$NOPE}\n}",
            &[
                "3:9: this name is empty (name a domain; to have no suffixes, write `search .`)",
                "3:12: this name is empty (name a domain; to have no suffixes, write `search .`)",
            ],
        ),
        ("autopath @query {\n except {$NOPE}\n}", &["3:9: this name is empty (remove it)"]),
        ("autopath /r {\n search a\n}", &["3:2: `search` belongs to `@query` (remove it)"]),
        ("autopath @query {\n except\n}", &["3:2: `except` needs more arguments (write `except NAME...`)"]),
        (
            "autopath @query {\n except a b\n except local\n}",
            &["3:2: `except` leaves no name for `autopath` (name less, or remove `autopath`)"],
        ),
        ("autopath @query {\n max_depth 1\n}", &["3:12: 1 is out of range (write a number from 2 to 40)"]),
        ("autopath @query {\n max_depth 41\n}", &["3:12: 41 is out of range (write a number from 2 to 40)"]),
        ("autopath @query {\n max_depth 5\n max_depth 9\n}", &["4:2: `max_depth` is given twice (remove one of them)"]),
        ("autopath @query {\n max_depth ten\n}", &["3:12: `ten` is not a whole number (write a number from 2 to 40)"]),
        (
            "autopath @query {\n max_depth 3 {\n a\n }\n}",
            &["3:2: `max_depth` has no options in braces (remove the braces and what is between them)"],
        ),
        (
            "autopath @query {\n search a\n max_depth 3\n}",
            &["3:2: a search list has 5 names with these suffixes (write `max_depth 5`)"],
        ),
    ]);
}
