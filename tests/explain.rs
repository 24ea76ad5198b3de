//! `dnslet explain`, as an operator sees it: beside nsd as the cluster's DNS and knot as the rest of the world.

use std::sync::Arc;

mod page;

use crate::support::address::Address;
use crate::support::process::{Directory, Process};
use crate::support::program::{assert_has, dnslet};
use crate::support::{Upstream, peers};

/// A Corefile of two blocks, and the servers behind them.
struct World {
    directory: Arc<Directory>,
    /// Outside, and the cluster's.
    upstreams: [String; 2],
    _servers: Vec<Process>,
}

impl World {
    /// `lines` stand in the block of the cluster's zone.
    fn new(lines: &str) -> World {
        // Those who were asked are listed by their addresses: the outside first, as on the page for operators.
        let mut addresses = [Address::fresh(), Address::fresh()];
        addresses.sort_by_key(|address| address.dns().to_string());
        let [outside, cluster] = addresses;
        let servers = vec![peers::cluster(cluster.dns()), peers::outside(outside.dns())];
        let upstreams = [outside.dns(), cluster.dns()].map(|address| address.to_string());
        // One try each: an answer that is late because the machine is busy is not asked for again.
        let [outside, cluster] =
            [outside, cluster].map(|address| format!("forward . {} {{\n max_connect_attempts 1\n }}", address.dns()));
        let world = World { directory: Directory::new(), upstreams, _servers: servers };
        world.write(&format!("cache 30\n {cluster}\n {lines}"), &outside);
        world
    }

    fn write(&self, cluster: &str, outside: &str) {
        let block = |zone: &str, lines: &str| format!("{zone}:5300 {{\n bind 127.0.0.1\n {lines}\n}}\n");
        let text = block("cluster.local", cluster) + &block(".", &format!("cache 30\n {outside}"));
        self.directory.write("Corefile", &text);
    }

    /// Exit code, standard output, standard error; the node has no search list of its own.
    fn explain(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let corefile = self.directory.path().join("Corefile");
        let corefile = corefile.to_str().expect("a path of letters");
        explain(&[&["-conf", corefile], arguments].concat())
    }
}

fn explain(arguments: &[&str]) -> (Option<i32>, String, String) {
    dnslet(&[&["explain"], arguments].concat())
}

/// The lines of one part: `1. A name SAID; ...` without what comes behind the semicolon, and all others but those that tell who
/// was asked.
fn part(text: &str, heading: &str) -> Vec<String> {
    let lines = text.lines().skip_while(|line| *line != heading).skip(1).take_while(|line| !line.is_empty());
    let short = |line: &str| match line.split_once("; ") {
        Some((said, _)) if line.starts_with(' ') && line.trim_start().starts_with(|c: char| c.is_ascii_digit()) => {
            said.split_whitespace().collect::<Vec<_>>().join(" ")
        }
        _ => line.trim().to_owned(),
    };
    lines.map(short).filter(|line| !line.starts_with("asked ") && line != "nobody was asked").collect()
}

/// What the table of costs says: queries of the pod, and to upstreams.
fn costs(text: &str) -> Vec<(u32, u32)> {
    let rows = text.lines().filter(|line| line.starts_with("without autopath  ") || line.starts_with("with autopath"));
    let numbers = |line: &str| {
        let numbers: Vec<u32> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        (numbers[0], numbers[1])
    };
    rows.map(numbers).collect()
}

#[test]
fn without_autopath_every_query_of_the_pod_is_listed() {
    let world = World::new("");
    let (code, text, complaint) = world.explain(&["www.example.org", "-ns", "shop", "-search", "corp.example.org"]);
    assert_eq!((code, complaint.as_str()), (Some(0), ""), "{text}");
    assert_has(
        &text,
        &[
            "A pod in namespace shop looks for www.example.org (A and AAAA) at 127.0.0.1:5300.\n",
            "search shop.svc.cluster.local svc.cluster.local cluster.local corp.example.org, ndots:5.\n",
            ", block cluster.local.\n       asked 127.",
            ", block .\n       asked 127.",
            "\nautopath is off: no server block has `autopath @query`.\n\
             To turn it on, write this line into the server block cluster.local:\n    autopath @query\n",
        ],
    );
    let queries = part(&text, "Without autopath");
    assert_eq!(
        queries,
        [
            "1. A www.example.org.shop.svc.cluster.local. NXDOMAIN",
            "2. AAAA www.example.org.shop.svc.cluster.local. NXDOMAIN",
            "3. A www.example.org.svc.cluster.local. NXDOMAIN",
            "4. AAAA www.example.org.svc.cluster.local. NXDOMAIN",
            "5. A www.example.org.cluster.local. NXDOMAIN",
            "6. AAAA www.example.org.cluster.local. NXDOMAIN",
            "7. A www.example.org.corp.example.org. NXDOMAIN",
            "8. AAAA www.example.org.corp.example.org. NXDOMAIN",
            "9. A www.example.org. 1 answer",
            "10. AAAA www.example.org. 1 answer",
            "Result: 192.0.2.80, 2001:db8::80",
        ],
        "{text}"
    );
    assert!(!text.contains("With autopath"), "{text}");
}

#[test]
fn a_service_ends_the_list_and_a_missing_name_goes_through_all_of_it() {
    let world = World::new("");
    let (code, text, _) = world.explain(&["web", "-ns", "shop", "-search", "example.org"]);
    assert_eq!(code, Some(0), "{text}");
    let queries = part(&text, "Without autopath");
    assert_eq!(
        queries,
        [
            "1. A web.shop.svc.cluster.local. 1 answer",
            "2. AAAA web.shop.svc.cluster.local. no data",
            "Result: 10.96.7.7"
        ]
    );
    let (code, text, _) = world.explain(&["web.nowhere.", "-ns", "shop", "-type", "srv"]);
    assert_eq!(code, Some(1), "{text}");
    let queries = part(&text, "Without autopath");
    assert_eq!(queries.len(), 2, "a final dot, one type: {text}");
    assert!(queries[0].starts_with("1. SRV web.nowhere. REFUSED"), "{text}");
    let (code, text, _) = world.explain(&["no.example.org", "-ns", "shop", "-search", "example.org"]);
    assert_eq!(code, Some(1), "{text}");
    let queries = part(&text, "Without autopath");
    assert_eq!(queries[9..], ["10. AAAA no.example.org. NXDOMAIN", "Result: no such name"], "{text}");
}

#[test]
fn where_musl_ends_earlier_is_told() {
    let world = World::new("");
    // `svc.cluster.local` has names beneath it and no data; musl takes that for the end.
    let (code, text, _) = world.explain(&["svc", "-ns", "shop", "-search", "example.org"]);
    assert_eq!(code, Some(1), "{text}");
    assert_has(&text, &["     musl ends after query 6: the name exists.\n"]);
    let (_, text, _) = world.explain(&["a.b.c.example.org", "-ns", "shop"]);
    assert!(!text.contains("musl"), "{text}");
    let (_, text, _) = world.explain(&["a.b.c.d.e.example.org", "-ns", "shop", "-search", "example.org"]);
    assert_has(
        &text,
        &["asked for as it is first; musl asks no more than that.", "\n  1. A     a.b.c.d.e.example.org. "],
    );
}

#[test]
fn an_upstream_that_fails_leaves_the_lookup_without_an_answer() {
    let (world, up) = (World::new(""), Upstream::start());
    world.write(&format!("forward . {}", up.address()), "forward . 127.0.0.1:1");
    up.change_all(Some("edefail"));
    let (code, text, _) = world.explain(&["db.shop", "-ns", "shop", "-search", "example.org"]);
    assert_eq!(code, Some(1), "{text}");
    let queries = part(&text, "Without autopath");
    assert!(queries[0].starts_with("1. A db.shop.shop.svc.cluster.local. SERVFAIL ("), "why is told: {text}");
    assert!(queries.iter().any(|line| line == "musl ends after query 2: that is a failure."), "{text}");
    assert!(queries.last().expect("a result").starts_with("Result: nobody knows"), "{text}");
    assert_eq!(up.count("db.shop.shop.svc.cluster.local."), 2, "A and AAAA, once each");
}

#[test]
fn what_cannot_be_explained_ends_with_code_2() {
    let missing = "/nonexistent/Corefile";
    let long = ["a"; 130].join(".");
    let label = "a".repeat(64);
    for (arguments, part) in [
        (&["www", "-ns", "shop", "-conf", missing][..], "cannot read /nonexistent/Corefile"),
        (&["www"], "say the pod's namespace: -ns NAMESPACE"),
        (&["-ns", "shop"], "say one name"),
        (&["www", "-ns", "a.b"], "\"a.b\" is no namespace: one label"),
        (&["www", "-ns", &label], "is no namespace: one label"),
        (&[&long, "-ns", "shop"], "the name is no name: it has more than 255 octets"),
        (&["www", "-ns", "shop", "-localipp", "::1"], "the nearest one is -localip "),
    ] {
        let (code, text, complaint) = explain(arguments);
        assert_eq!((code, text.as_str()), (Some(2), ""), "{arguments:?}: {complaint}");
        assert_has(&complaint, &[part]);
    }
    let world = World::new("no_such_directive");
    let (code, text, complaint) = world.explain(&["www", "-ns", "shop"]);
    assert_eq!((code, text.as_str()), (Some(2), ""));
    assert_has(&complaint, &["the Corefile cannot be used\n", "no_such_directive"]);
    let (code, text, _) = explain(&["-h"]);
    assert_eq!(code, Some(0));
    assert_has(&text, &["dnslet explain NAME -ns NAMESPACE", "-ns <NAMESPACE>", "-conf <FILE>"]);
}

#[test]
fn a_zone_that_the_corefile_does_not_have_is_told() {
    let world = World::new("");
    let (_, text, _) = world.explain(&["web.shop", "-ns", "shop", "-zone", "k8s.test", "-search", "example.org"]);
    assert_has(
        &text,
        &[
            "search shop.svc.k8s.test svc.k8s.test k8s.test example.org",
            "autopath is off: no server block has `autopath @query` for k8s.test.\n",
            "a server block for k8s.test, the cluster's zone, which this Corefile does not have",
        ],
    );
}

const WALKED: &str = "cache 30 {\n denial_cut cluster.local\n }\n autopath @query {\n search corp.example.org\n }";

fn walking() -> World {
    let world = World::new("");
    let corefile = world.directory.path().join("Corefile");
    let text = std::fs::read_to_string(&corefile).expect("just written");
    world.directory.write("Corefile", &text.replacen("cache 30", WALKED, 1));
    world
}

#[test]
fn a_walk_is_told_name_by_name() {
    let world = walking();
    let (code, text, complaint) = world.explain(&["www.example.org", "-ns", "shop", "-type", "A"]);
    assert_eq!((code, complaint.as_str()), (Some(0), ""), "{text}");
    let list = part(&text, "With autopath");
    let squeezed: Vec<String> = list.iter().map(|line| squeezed(line)).collect();
    assert_eq!(
        squeezed,
        [
            "1. A www.example.org.shop.svc.cluster.local. 1 answer",
            "www.example.org.shop.svc.cluster.local. does not exist: asked",
            "shop.svc.cluster.local. the namespace exists, so this is the first name of a list",
            "www.example.org.svc.cluster.local. does not exist: asked",
            "www.example.org.cluster.local. does not exist: org.cluster.local. was asked for in its place (no name of a \
             cluster ends so), and that does not exist",
            "www.example.org.corp.example.org. does not exist: asked",
            "www.example.org. has the answer: asked",
            "-> the reply is an alias of the first name that exists, with its records",
            "Result: 192.0.2.80",
        ],
        "{text}"
    );
    // Five names; the same, and the namespace; what is not in the cluster.
    assert_eq!(costs(&text), [(5, 5), (1, 6), (1, 2)], "{text}");
    let (_, text, _) = world.explain(&["www.example.org", "-ns", "shop"]);
    let costs = costs(&text);
    assert_eq!((costs[0], costs[1].0, costs[2]), ((10, 10), 2, (2, 4)), "{text}");
    // Five names for each family and the namespace, but the name that no cluster has costs both families one question.
    assert!(costs[1].1 <= 10, "{text}");
    assert!(!text.contains("differently") && !text.contains("autopath is off"), "{text}");
}

fn squeezed(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn why_no_list_is_walked_is_told() {
    let world = walking();
    let label = |letter: &str, length| letter.repeat(length);
    let long = [label("a", 60), label("b", 60), label("c", 60)].join(".");
    let longer = format!("{long}.{}", label("d", 50));
    for (arguments, why) in [
        (&[long.as_str(), "-ns", "shop"][..], "it has more than 191 octets: "),
        (&[longer.as_str(), "-ns", "shop"], "the first name of the list, below shop.svc.cluster.local, is too long"),
        (&["www.example.org", "-ns", "shop", "-do"], "the query has DO set: "),
        (&["www.example.org", "-ns", "shop", "-type", "NS"], "lists are not walked for type NS\n"),
        (&["www.example.org.", "-ns", "shop"], "it is not the first name of a search list\n"),
        (&["a.b.c.d.e.example.org", "-ns", "shop"], "it is not the first name of a search list\n"),
    ] {
        let (_, text, complaint) = world.explain(arguments);
        assert_has(&text, &[&format!("       -> answered plainly: {why}")]);
        assert_eq!(complaint, "");
    }
    let corefile = world.directory.path().join("Corefile");
    let text = std::fs::read_to_string(&corefile).expect("written");
    let own = "shop.svc.cluster.local:5300 {\n bind 127.0.0.1\n whoami\n}\n";
    world.directory.write("Corefile", &(text.clone() + own));
    let (_, said, _) = world.explain(&["www.example.org", "-ns", "shop"]);
    assert_has(&said, &["-> answered plainly: the server block shop.svc.cluster.local. has no autopath\n"]);
    world.directory.write("Corefile", &text.replace("autopath @query", "aaaa off\n autopath @query"));
    let (_, said, _) = world.explain(&["www.example.org", "-ns", "shop"]);
    assert_has(&said, &["-> answered plainly: `aaaa off` has the answer\n"]);
}

#[test]
fn a_list_from_a_file_is_explained_too() {
    let world = World::new("");
    let list = world.directory.write("clients.conf", "search sub.example.org corp.example.org\n").display().to_string();
    let corefile = std::fs::read_to_string(world.directory.path().join("Corefile")).expect("written");
    let (cluster, outside) = corefile.split_once(".:5300").expect("two blocks");
    let outside = outside.replace("cache 30", &format!("cache 30\n autopath example.org {list}"));
    world.directory.write("Corefile", &format!("{cluster}.:5300{outside}"));
    let (code, text, complaint) = world.explain(&["www.example.org", "-ns", "shop", "-type", "A"]);
    assert_eq!((code, complaint.as_str()), (Some(0), ""), "{text}");
    let head = format!(
        "search sub.example.org corp.example.org, ndots:5; that is the list in {list}, whatever the namespace.\n"
    );
    assert_has(&text, &[&head, "       www.example.org.corp.example.org.  does not exist: asked\n"]);
    assert_eq!(costs(&text), [(3, 3), (1, 3)], "{text}");
    let (_, text, _) = world.explain(&["www.example.org", "-ns", "shop", "-zone", "cluster.local"]);
    assert_has(&text, &["autopath is off: no server block has `autopath @query` for cluster.local.\n"]);
    let elsewhere = outside.replace("autopath example.org", "autopath example.net");
    world.directory.write("Corefile", &format!("{cluster}.:5300{elsewhere}"));
    let (_, text, _) = world.explain(&["www.example.org", "-ns", "shop"]);
    assert_has(&text, &["-> answered plainly: the autopath line of its server block is about other zones\n"]);
    world.directory.write("Corefile", &format!("{cluster}.:5300{outside}"));
    // Without the file there is nothing to explain, unless it is about something else.
    std::fs::remove_file(&list).expect("just written");
    let (code, text, complaint) = world.explain(&["www.example.org", "-ns", "shop"]);
    assert_eq!((code, text.as_str()), (Some(2), ""));
    assert_has(&complaint, &[&format!("dnslet: cannot read the search list in {list}: No such file")]);
    let cluster = cluster.replacen("cache 30", "cache 30\n autopath @query {\n search .\n }", 1);
    world.directory.write("Corefile", &format!("{cluster}.:5300{outside}"));
    let (code, text, complaint) = world.explain(&["www.example.org", "-ns", "shop", "-type", "A"]);
    assert_eq!(code, Some(0), "{text}{complaint}");
    assert_has(&complaint, &[&list, "; its block is explained as if it had no autopath\n"]);
    assert_eq!(costs(&text)[0], (4, 4), "{text}");
}

#[test]
fn a_lookup_that_is_answered_plainly_is_told_why() {
    let world = walking();
    let (code, text, _) = world.explain(&["web", "-ns", "shop"]);
    assert_eq!(code, Some(0), "{text}");
    assert_has(&text, &["\n       -> the name asked for is not denied, so what it has is the reply\n"]);
    let (code, text, _) = world.explain(&["www.example.org", "-ns", "nowhere"]);
    assert_eq!(code, Some(0), "{text}");
    assert_has(
        &text,
        &[
            "no such namespace: this is no list's first name\n       -> answered plainly: the namespace nowhere does not exist",
            "-> answered plainly: the pod goes on with its list by itself\n",
        ],
    );
    let (_, text, _) = world.explain(&["web", "-ns", "shop", "-type", "NS"]);
    assert_has(&text, &["-> answered plainly: lists are not walked for type NS"]);
    let (_, text, _) = world.explain(&["www.example.org.", "-ns", "shop"]);
    assert_has(&text, &["-> answered plainly: it is not the first name of a search list\n"]);
    let (code, text, _) = world.explain(&["no.example.org", "-ns", "shop"]);
    assert_eq!(code, Some(1), "{text}");
    assert_has(&text, &["-> the reply is NXDOMAIN: none of the names exists\n"]);
    let corefile = std::fs::read_to_string(world.directory.path().join("Corefile")).expect("written");
    let search = "search corp.example.org\n";
    for (option, why) in [
        ("except example.org\n", "-> answered plainly: `except` of the autopath line names it\n"),
        (
            "max_depth 3\n",
            "-> answered plainly: the list has more than 3 names (`max_depth`), and none of those exists\n",
        ),
    ] {
        world.directory.write("Corefile", &corefile.replace(search, &format!("{search} {option}")));
        let (code, text, complaint) = world.explain(&["www.example.org", "-ns", "shop"]);
        assert_eq!(code, Some(0), "{text}{complaint}");
        assert_has(&text, &[why]);
    }
}

#[test]
fn a_failure_in_the_middle_of_a_walk_is_told() {
    let (world, up) = (walking(), Upstream::start());
    let corefile = std::fs::read_to_string(world.directory.path().join("Corefile")).expect("written");
    let (cluster, _) = corefile.split_once(".:5300").expect("two blocks");
    let outside = format!(".:5300 {{\n bind 127.0.0.1\n forward . {}\n}}\n", up.address());
    world.directory.write("Corefile", &format!("{cluster}{outside}"));
    up.change("www.example.org.corp.example.org.", "servfail");
    let (code, text, _) = world.explain(&["www.example.org", "-ns", "shop"]);
    assert_eq!(code, Some(0), "glibc goes on, and finds the last name: {text}");
    assert_has(
        &text,
        &[
            "www.example.org.corp.example.org.        fails with SERVFAIL: asked\n",
            "-> the reply is the failure: it is passed on, not skipped\n",
        ],
    );
}
