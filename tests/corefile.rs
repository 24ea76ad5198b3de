//! Corefiles as people write them: what they mean, and what is said about them. The grammar and each option have their
//! tests in `src/corefile`, `src/plugins` and `src/routes`; here are whole files, and every example in the documents.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dnslet::corefile::{Imported, glob_match, is_pattern};
use dnslet::plugins;
use dnslet::routes::{Interface, Loaded, Routes, Sources, check_text, load};
use dnslet::upstream::spec::Target;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(root().join(path)).expect("a file of this repository")
}

/// Compiles beside files and variables, on a node with `lo` and `eth0`.
fn compiled(text: &str, files: &[(&str, &str)], env: &[(&str, &str)]) -> Loaded {
    let mut import = |path: &Path| {
        let found = files.iter().filter(|(name, _)| glob_match(path, Path::new(name)));
        let found: Vec<_> =
            found.map(|(name, text)| Imported { path: name.into(), text: (*text).to_owned() }).collect();
        if found.is_empty() && !is_pattern(path) { Err("no such file".to_owned()) } else { Ok(found) }
    };
    let env = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    let interface = |name: &str, index, address: &str| Interface {
        name: name.into(),
        index,
        addresses: vec![address.parse().expect("an address")],
    };
    let interfaces = vec![interface("lo", 1, "127.0.0.1"), interface("eth0", 2, "10.0.0.5")];
    load(Path::new("/etc/Corefile"), text, &mut import, &env, &Sources { interfaces, default_port: 53 })
}

#[track_caller]
fn good(text: &str, files: &[(&str, &str)], env: &[(&str, &str)]) -> Routes {
    let loaded = compiled(text, files, env);
    assert!(loaded.diagnostics.is_empty(), "{}", loaded.render(false));
    loaded.routes.expect("no errors, so a table")
}

/// `address zone>route ...` for each listen.
fn table(routes: &Routes) -> Vec<String> {
    let line = |listen: &dnslet::routes::Listen| {
        let zones: Vec<_> = listen.zones.entries().map(|(zone, route)| format!("{zone}>{route}")).collect();
        format!("{} {}", listen.address, zones.join(" "))
    };
    routes.listens.iter().map(line).collect()
}

fn targets(routes: &Routes, route: usize) -> Vec<String> {
    let forwards = routes.routes[route].forwards.iter();
    forwards.flat_map(|forward| forward.spec.targets.iter().map(Target::to_string)).collect()
}

#[test]
fn the_nodelocaldns_file_once_filled_in() {
    let text = read("tests/corefiles/nodelocaldns")
        .replace("__PILLAR__DNS__DOMAIN__", "cluster.local")
        .replace("__PILLAR__LOCAL__DNS__", "169.254.20.10")
        .replace("__PILLAR__DNS__SERVER__", "10.96.0.10")
        .replace("__PILLAR__CLUSTER__DNS__", "10.96.3.7")
        .replace("__PILLAR__UPSTREAM__SERVERS__", "/etc/resolv.conf");
    let routes = good(&text, &[], &[]);
    let zones = "cluster.local.>0 in-addr.arpa.>1 ip6.arpa.>2 .>3";
    assert_eq!(table(&routes), [format!("169.254.20.10:53 {zones}"), format!("10.96.0.10:53 {zones}")]);
    assert_eq!(
        (targets(&routes, 0), targets(&routes, 3)),
        (vec!["10.96.3.7:53".into()], vec!["/etc/resolv.conf".into()])
    );
    let cluster = &routes.routes[0];
    let cache = cluster.cache.as_ref().expect("a cache");
    assert_eq!((cache.success.capacity, cache.success.max_ttl, cache.denial.max_ttl), (9984, 30, 5));
    assert!(cluster.forwards[0].spec.force_tcp && !routes.routes[3].forwards[0].spec.force_tcp);
    assert!(routes.routes.iter().all(|route| route.loop_check && route.metrics.is_some() && route.errors.is_some()));
    assert_eq!(routes.process.health[0].socket.to_string(), "169.254.20.10:8080");
    assert_eq!((routes.process.prometheus.len(), routes.process.reload.is_some()), (1, true));
}

#[test]
fn the_nodelocaldns_file_as_shipped_says_what_was_not_filled_in() {
    let loaded = compiled(&read("tests/corefiles/nodelocaldns"), &[], &[]);
    let lines: Vec<_> = loaded.lines().map(|(_, line)| line).collect();
    assert!(loaded.routes.is_none() && lines.len() == 14, "{lines:#?}");
    for placeholder in ["__PILLAR__LOCAL__DNS__", "__PILLAR__CLUSTER__DNS__", "__PILLAR__UPSTREAM__SERVERS__"] {
        assert!(lines.iter().any(|line| line.contains(placeholder)), "{placeholder}: {lines:#?}");
    }
}

#[test]
fn a_kubeadm_file_names_the_plugin_that_is_missing_and_nothing_else() {
    let text = ".:53 {\n    errors\n    health {\n       lameduck 5s\n    }\n    ready\n    kubernetes cluster.local in-addr.arpa \
                ip6.arpa {\n       pods insecure\n       fallthrough in-addr.arpa ip6.arpa\n       ttl 30\n    }\n    \
                prometheus :9153\n    forward . /etc/resolv.conf {\n       max_concurrent 1000\n    }\n    cache 30 {\n       \
                disable success cluster.local\n       disable denial cluster.local\n    }\n    loop\n    reload\n    \
                loadbalance\n}\n";
    let lines: Vec<_> = compiled(text, &[], &[]).lines().map(|(_, line)| line).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("/etc/Corefile:7:5: `kubernetes` is a CoreDNS plugin that dnslet does not have"));
    let without: String = text.lines().filter(|line| !line.contains("kubernetes")).collect::<Vec<_>>().join("\n");
    let without = without.replacen(
        "       pods insecure\n       fallthrough in-addr.arpa ip6.arpa\n       ttl 30\n    }\n",
        "",
        1,
    );
    let routes = good(&without, &[], &[]);
    assert_eq!(routes.process.lameduck, Duration::from_secs(5));
    assert_eq!(table(&routes), ["[::]:53 .>0"]);
}

#[test]
fn files_with_imports_snippets_and_variables() {
    let files = [
        ("/etc/custom/a.server", "a.example:{$PORT} {\n import ../common\n}\n"),
        ("/etc/custom/b.server", "b.example:{$PORT},\nc.example:{%PORT%}\n{\n import ../common\n}\n"),
        ("/etc/common", "bind eth0\nforward . {$UPSTREAM}"),
    ];
    let text = "(limits) {\n success 2000\n}\nimport custom/*.server\n. {\n bind lo\n cache {\n  import limits\n }\n import \
                common.*\n forward . 9.9.9.9\n}\n";
    let loaded = compiled(text, &files, &[("PORT", "5300"), ("UPSTREAM", "10.1.0.53")]);
    let routes = loaded.routes.expect("no errors");
    assert_eq!(table(&routes), ["10.0.0.5:5300 a.example.>0 b.example.>1 c.example.>1", "127.0.0.1:53 .>2"]);
    assert_eq!(routes.routes[2].cache.as_ref().expect("a cache").success.capacity, 2000);
    assert_eq!(targets(&routes, 1), ["10.1.0.53:53"]);
    let watched: Vec<_> = loaded.watched.iter().map(|path| path.display().to_string()).collect();
    assert_eq!(watched, ["/etc/custom/*.server", "/etc/common", "/etc/common.*"]);
}

/// What was seen on a running node-cache, and how it is read here.
#[test]
fn what_node_cache_reads_in_its_own_way() {
    let names = |routes: &Routes| routes.routes[0].zones.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    // Upper-case zones match.
    assert_eq!(names(&good("Example.ORG {\n}\n", &[], &[])), "example.org.");
    // A port may have leading zeros; braces may be missing, or open on the next line.
    assert_eq!(table(&good("a:0053\nwhoami\n", &[], &[])), ["[::]:53 a.>0"]);
    assert_eq!(table(&good("a:53\n{\nwhoami\n}", &[], &[])), ["[::]:53 a.>0"]);
    // A comment inside a word hides the rest of the line.
    assert!(good(". {\n debug#x extra\n}\n", &[], &[]).process.debug);
    // One snippet twice in a row stays two lines.
    let twice = good("(f) {\n forward a 9.9.9.9\n}\n. {\n import f\n import f\n}\n", &[], &[]);
    assert_eq!(twice.routes[0].forwards.len(), 2);
    // A value with a space stays one argument.
    let spaced = compiled(". {\n forward . {$UP}\n}\n", &[], &[("UP", "1.1.1.1 9.9.9.9")]);
    assert!(spaced.diagnostics[0].message.starts_with("`1.1.1.1 9.9.9.9` is not an IP address"));
    // `cache {}` is a cache with its defaults, a brace that ends a line is a brace; both are remarked on.
    for (text, remark) in
        [(". {\n cache {}\n}", "`{}` is read as an empty block"), (". { cache }", "this `}` ends a line")]
    {
        let loaded = compiled(text, &[], &[]);
        assert_eq!(loaded.diagnostics.iter().map(|found| found.message.as_str()).collect::<Vec<_>>(), [remark]);
        assert!(loaded.routes.expect("only a remark").routes[0].cache.is_some());
    }
    // A brace glued to a zone, a value that contains itself: errors, not a zone of that name, not an endless loop.
    assert!(check_text("C", "example.org{\n whoami\n}\n").unwrap_err().contains("put a space before it"));
    assert!(compiled("{$A} {\n}\n", &[], &[("A", "x{$A}")]).routes.is_none());
    // A template that was filled from nothing.
    assert!(check_text("C", ". {\n forward . <nil>\n}\n").unwrap_err().contains("the template left `<nil>`"));
}

#[test]
fn everything_wrong_is_told_at_once() {
    let shown = check_text("Corefile", &read("tests/corefiles/faulty")).unwrap_err();
    let expected = read("tests/corefiles/faulty.expected");
    assert!(shown == expected, "the findings have changed; now they are:\n{shown}");
}

/// The fenced blocks of one kind in a document.
fn blocks(document: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = document;
    while let Some((_, after)) = rest.split_once("```corefile\n") {
        let (block, after) = after.split_once("```").expect("a closed fence");
        found.push(block.to_owned());
        rest = after;
    }
    found
}

fn documents() -> Vec<PathBuf> {
    let inside = |directory: &str| {
        let entries = fs::read_dir(root().join(directory)).expect("a directory of this repository");
        entries.map(|entry| entry.expect("a readable entry").path()).collect::<Vec<_>>()
    };
    let mut found = [inside("docs"), inside("docs/plugins"), vec![root().join("README.md")]].concat();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    found.sort();
    found
}

#[test]
fn every_example_in_the_documents_compiles() {
    let mut number = 0;
    for path in documents() {
        for block in blocks(&read(&path)) {
            number += 1;
            let loaded = compiled(&block, &[], &[]);
            let remarks: Vec<_> = loaded.diagnostics.iter().map(|found| found.message.as_str()).collect();
            let expected = remarks.is_empty() || remarks == ["`pprof` does nothing"];
            assert!(loaded.routes.is_some() && expected, "{}:\n{block}\n{}", path.display(), loaded.render(false));
        }
    }
    assert!(number >= plugins::names().count());
}

#[test]
fn every_directive_has_a_page_with_an_example_that_uses_it() {
    for name in plugins::names() {
        let page = blocks(&read(format!("docs/plugins/{name}.md")));
        let used = |block: &String| block.lines().any(|line| line.split_whitespace().next() == Some(name));
        assert!(page.iter().any(used), "docs/plugins/{name}.md has no example with {name}");
    }
}

/// Small changes to good files: whatever comes out, nothing panics, and what is refused is refused with a reason.
#[test]
fn no_text_makes_the_compiler_panic() {
    let mut seeds: Vec<String> = documents().iter().flat_map(|path| blocks(&read(path))).collect();
    seeds.extend(["nodelocaldns", "faulty"].map(|name| read(Path::new("tests/corefiles").join(name))));
    let pieces = [
        "{", "}", "\"", "\n", " ", "#", "{$X}", "import x", "(s) {", ",", ":", "/9", "\u{feff}", "\\", "-1", "\u{e9}",
        "\r",
    ];
    // A linear congruential generator: the same texts in every run.
    let mut state = 1_u64;
    let mut below = move |limit: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % limit.max(1)
    };
    let mut refused = 0;
    for _ in 0..4000 {
        let mut text = seeds[below(seeds.len())].clone();
        for _ in 0..=below(4) {
            let at = (0..=below(text.len() + 1)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            match below(3) {
                0 => text.insert_str(at, pieces[below(pieces.len())]),
                1 => text.truncate(at),
                _ => drop(text.pop()),
            }
        }
        if let Err(shown) = check_text("C", &text) {
            refused += 1;
            assert!(shown.contains("error: "), "{text:?}\n{shown}");
        }
    }
    assert!(refused > 400);
}
