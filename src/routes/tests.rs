use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::dns::Type;

/// A node with the address of a cluster node and a link-local one.
fn node() -> Sources {
    let interface = |name: &str, index, addresses: &[&str]| Interface {
        name: name.into(),
        index,
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
    };
    Sources {
        interfaces: vec![
            interface("lo", 1, &["127.0.0.1", "::1"]),
            interface("eth0", 2, &["10.0.0.5", "fe80::5"]),
            interface("nodelocaldns", 3, &["169.254.20.10"]),
        ],
        default_port: 53,
    }
}

fn read(text: &str) -> Loaded {
    load(Path::new("C"), text, &mut |_| Err("no such file".into()), &|_| None, &node())
}

#[track_caller]
fn good(text: &str) -> Routes {
    let loaded = read(text);
    assert_eq!(loaded.diagnostics, [], "{}", loaded.render(false));
    loaded.routes.unwrap()
}

fn lines(text: &str) -> Vec<String> {
    read(text).lines().map(|(_, line)| line).collect()
}

/// `address: zone>route zone>route` for each listen.
fn table(routes: &Routes) -> Vec<String> {
    let line = |listen: &Listen| {
        let zones: Vec<_> = listen.zones.entries().map(|(zone, route)| format!("{zone}>{route}")).collect();
        format!("{}: {}", listen.address, zones.join(" "))
    };
    routes.listens.iter().map(line).collect()
}

#[test]
fn blocks_are_grouped_by_address() {
    let routes = good("a b:54 {\n bind lo\n}\nc {\n bind 127.0.0.1\n}\nd:55 10.0.0.0/8:55 {\n}\n");
    assert_eq!(
        table(&routes),
        [
            "127.0.0.1:53: a.>0 c.>1",
            "127.0.0.1:54: b.>0",
            "[::1]:53: a.>0",
            "[::1]:54: b.>0",
            "[::]:55: d.>2 10.in-addr.arpa.>2",
        ]
    );
    let servers: Vec<_> = routes.listens.iter().map(Listen::server).collect();
    assert_eq!(
        (servers[0].as_str(), servers[2].as_str(), servers[4].as_str()),
        ("dns://127.0.0.1:53", "dns://[::1]:53", "dns://:55")
    );
    assert_eq!(
        routes.listens.iter().map(|listen| listen.explicit).collect::<Vec<_>>(),
        [true, true, true, true, false]
    );
    assert_eq!((routes.first_address(1), routes.first_address(9)), (Some("127.0.0.1:53".parse().unwrap()), None));
    assert_eq!(routes.listens[0].zones.find(b"\x01c\x00", &[0], Type::A), Some((1, 1)));
}

#[test]
fn interfaces_and_exceptions() {
    let routes =
        good("a {\n bind eth0 169.254.20.10 eth0\n}\nb {\n bind eth0 {\n  except 10.0.0.5\n }\n bind fe80::9%eth0\n}");
    assert_eq!(
        table(&routes),
        ["10.0.0.5:53: a.>0", "[fe80::5%2]:53: a.>0 b.>1", "169.254.20.10:53: a.>0", "[fe80::9%2]:53: b.>1",]
    );
    assert_eq!(
        lines("a {\n bind eth1 10.0.0.300 __PILLAR__LOCAL__DNS__\n}"),
        [
            "C:2:7: `eth1` is neither an IP address nor an interface (did you mean the interface `eth0`?)",
            "C:2:12: `10.0.0.300` is neither an IP address nor an interface (this node has the interfaces lo, eth0, nodelocaldns)",
            "C:2:23: `__PILLAR__LOCAL__DNS__` is neither an IP address nor an interface (the template was not filled in here: which address is meant?)",
        ]
    );
    let gone = "a {\n bind lo {\n  except lo\n }\n}\n";
    let nowhere = "C:2:2: this block listens nowhere (every address is excepted, or the interface has none)";
    assert_eq!(lines(gone), [nowhere, "no block listens anywhere (see the `bind` lines)"]);
    assert_eq!(lines(&format!("{gone}b {{\n bind lo\n}}")), [nowhere]);
}

#[test]
fn zones_served_twice() {
    assert_eq!(
        lines("a b {\n}\nA:53 {\n}\n"),
        [
            "C:3:1: a.:53 is already served (put both into one block, or give them different zones, ports or `bind` addresses)",
        ]
    );
    assert_eq!(lines("a {\n bind lo\n}\nb a {\n bind lo\n}\n").len(), 1);
    assert_eq!(lines("a a {\n}\n").len(), 1);
    good("a {\n bind 127.0.0.1\n}\na {\n bind 127.0.0.2\n}\na:54 {\n}\n");
    assert_eq!(
        lines("a {\n bind lo\n}\na {\n}\n"),
        ["C:1:1: a.:53 is served both on 127.0.0.1 and on all addresses (use `bind` in both blocks, or in neither)",]
    );
    assert_eq!(
        lines("a {\n bind lo\n}\nb {\n}\n"),
        [
            "C:2:7: 127.0.0.1:53 is bound here, and another block takes all addresses (use `bind` in all blocks of a port, or in none)",
        ]
    );
}

#[test]
fn keys_that_cannot_be_served() {
    assert_eq!(
        lines("tls://a https://b:1 a: a..b :53 {\n}\n"),
        [
            "C:1:1: serving DNS over TLS is not offered (remove `tls://`, or leave this block to another server)",
            "C:1:9: serving DNS over HTTPS is not offered (remove `https://`, or leave this block to another server)",
            "C:1:21: a port must follow the last colon (write `example.org`, `example.org:5353`, `.:53` or `10.0.0.0/8`)",
            "C:1:24: `a..b` is not a domain name: a label is empty (two dots in a row) (write `example.org`, `example.org:5353`, `.:53` or `10.0.0.0/8`)",
            "C:1:29: the zone is empty; the root zone is written `.` (write `example.org`, `example.org:5353`, `.:53` or `10.0.0.0/8`)",
        ]
    );
    assert_eq!(
        lines("_tcp.example.org 10.0.0.1 {\n}\nforward . 1.1.1.1\n"),
        [
            "C:1:1: domain \"_tcp.example.org.\" does not follow RFC1035 preferred syntax",
            "C:1:18: domain \"10.0.0.1.\" does not follow RFC1035 preferred syntax (for the reverse zone of this address write `10.0.0.1/32`)",
            "C:3:1: `forward` is read as a zone here (directives stand inside a block: `. {`, then the directive on its own line, then `}`)",
            "C:3:11: domain \"1.1.1.1.\" does not follow RFC1035 preferred syntax (for the reverse zone of this address write `1.1.1.1/32`)",
        ]
    );
    let many: String = (0..1000).map(|n| format!("10.{}.{}.0/25 ", n / 250, n % 250)).collect();
    assert_eq!(
        lines(&format!("{many} {{\n}}")).last().map(|line| line.ends_with("more than 100000 zones")),
        Some(true)
    );
}

#[test]
fn upstreams_that_are_ourselves() {
    let circle = |zone: &str, own: &str| {
        format!("this upstream is this server itself (name another upstream: {own} is one of our own addresses) {zone}")
    };
    let circles = |text: &str| -> Vec<String> {
        let strip = |found: &Diagnostic| {
            let zone = found.label.split(' ').nth(2).unwrap_or_default();
            format!("{} ({}) {zone}", found.message, found.help.as_deref().unwrap_or_default())
        };
        read(text).diagnostics.iter().map(strip).collect()
    };
    let own = "127.0.0.1:53";
    assert_eq!(circles(". {\n bind lo\n forward . 1.1.1.1 127.0.0.1\n}"), [circle(".", own)]);
    assert_eq!(circles("a {\n forward . 10.0.0.5\n}"), [circle("a.", "port 53 of this node")]);
    assert_eq!(circles(". {\n bind lo\n forward a 127.0.0.1\n}"), [circle("a.", own)]);
    // Through another block and back.
    assert_eq!(
        circles(". {\n bind lo\n forward . 127.0.0.1:54\n}\n.:54 {\n bind lo\n forward . 127.0.0.1\n}"),
        [circle(".", "127.0.0.1:54"), circle(".", own)]
    );
    // Not circles: another port, another block, another protocol, another node.
    good("a {\n bind 127.0.0.1\n forward . 127.0.0.2\n}\n. {\n bind 127.0.0.2\n forward . 1.1.1.1\n}");
    good(". {\n bind lo\n forward . 127.0.0.1:54 169.254.20.10 127.0.0.53\n}\n.:54 {\n bind lo\n forward . 1.1.1.1\n}");
    good(". {\n forward . tls://127.0.0.1 10.0.0.6 127.0.0.1:54\n}");
    good("a.b {\n bind lo\n}\nb {\n bind lo\n forward a.b 127.0.0.1\n}");
}

#[test]
fn fingerprints() {
    let of = |text: &str| good(text).routes.iter().map(|route| route.fingerprint).collect::<Vec<_>>();
    let base = of("a {\n cache 30\n forward . 1.1.1.1 {\n  except x\n }\n}");
    assert_eq!(base, of("a {\n log\n prometheus\n forward . 9.9.9.9 {\n  except x\n  force_tcp\n }\n cache 30\n}"));
    for other in [
        "b {\n cache 30\n forward . 1.1.1.1 {\n  except x\n }\n}",
        "a:54 {\n cache 30\n forward . 1.1.1.1 {\n  except x\n }\n}",
        "a {\n cache 31\n forward . 1.1.1.1 {\n  except x\n }\n}",
        "a {\n cache 30\n forward . 1.1.1.1\n}",
        "a {\n bufsize\n cache 30\n forward . 1.1.1.1 {\n  except x\n }\n}",
        "a {\n bind 10.0.0.5\n cache 30\n forward . 1.1.1.1 {\n  except x\n }\n}",
    ] {
        assert_ne!(base, of(other), "{other}");
    }
    let two = of("a {\n bind 127.0.0.1\n cache\n}\na {\n bind 127.0.0.2\n cache\n}");
    assert_ne!(two[0], two[1]);
}

#[test]
fn the_process_and_the_listens_take_the_last_word() {
    let routes = good(
        "a {\n health :8080 {\n  lameduck 5s\n }\n ready\n prometheus :9253\n reload 10s\n timeouts {\n  read 2s\n  idle 9s\n }\n}\nb {\n health :8080\n health 127.0.0.1:8081\n ready :8181 {\n  monitor continuously\n }\n prometheus :9253\n reload 20s\n debug\n timeouts {\n  read 4s\n }\n}\nc {\n prometheus\n forward . 1.1.1.1\n}",
    );
    let process = &routes.process;
    let ports = |addresses: &[HttpAddress]| addresses.iter().map(|address| address.socket.port()).collect::<Vec<_>>();
    assert_eq!((ports(&process.health), process.lameduck), (vec![8080, 8081], Duration::from_secs(5)));
    assert_eq!((ports(&process.prometheus), process.ready.len(), process.debug), (vec![9253, 9153], 1, true));
    assert_eq!(process.reload.unwrap().interval, Duration::from_secs(20));
    let listen = &routes.listens[0];
    assert_eq!(
        (listen.timeouts.read, listen.timeouts.idle),
        (Some(Duration::from_secs(4)), Some(Duration::from_secs(9)))
    );
    assert!(listen.any_forward && routes.routes[1].debug && !routes.routes[0].debug);
}

#[test]
fn routes_say_what_the_metrics_need() {
    let routes =
        good("a b {\n cache\n errors\n}\nc {\n}\nd {\n cache 5 x y\n forward d.e 1.1.1.1 {\n  except f.d.e d.e\n }\n}");
    let label = |at: usize| routes.routes[at].cache_zones_label();
    assert_eq!((label(0).as_deref(), label(1), label(2).as_deref()), (Some("a.,b."), None, Some("x.,y.")));
    assert_eq!(
        (routes.routes[0].handlers.as_slice(), routes.routes[1].has_plugins),
        (["errors", "cache"].as_slice(), false)
    );
    let forward = &routes.routes[2].forwards[0];
    let matches = |name: &str| forward.matches(Name::parse(name).unwrap().as_wire());
    assert_eq!((matches("d.e"), matches("g.d.e"), matches("e")), (true, false, false));
}

#[test]
fn an_empty_file_is_the_default_and_findings_are_in_order() {
    for text in ["", "# nothing\n", "(s) {\n x\n}\n"] {
        let routes = good(text);
        assert!(routes.routes[0].whoami && routes.routes[0].log.len() == 1);
        assert_eq!(table(&routes), ["[::]:53: .>0"]);
    }
    let mixed = lines("a {\n cahe\n x {$NONE}\n whoami }\nb: {\n}");
    assert_eq!(mixed.iter().map(|line| &line[..5]).collect::<Vec<_>>(), ["C:2:2", "C:3:2", "C:3:4", "C:4:9", "C:5:1"]);
    let error = check_text("Corefile", ". {\n forwrd\n}\n").unwrap_err();
    assert!(error.contains("did you mean `forward`?") && error.ends_with("1 error, 0 warnings\n"), "{error}");
    assert!(check_text("Corefile", ". {\n whoami }").is_ok());
}

#[test]
fn digests_follow_the_words() {
    let files: HashMap<_, _> = HashMap::from([("/c", "log")]);
    let of = |text: &str| {
        let mut load_file = |path: &Path| {
            let text = *files.get(path.to_str().unwrap()).ok_or("none")?;
            Ok(vec![crate::corefile::Imported { path: path.into(), text: text.into() }])
        };
        load(Path::new("/C"), text, &mut load_file, &|_| None, &node()).digest
    };
    assert_eq!(of(". {\n log\n}"), of("# a\n. {\n\n import c\n}"));
    assert_ne!(of(". {\n log\n}"), of(". {\n log .\n}"));
}

/// A line of the block for all names, beside a block for `cluster.local` at these addresses; what is said, with the places
/// it names.
fn shadowed(bind: &str, line: &str, at: &str) -> Vec<String> {
    let text = format!("cluster.local {{\n bind {at}\n cache\n}}\n. {{\n bind {bind}\n {line}\n}}\n");
    let loaded = read(&text);
    let place = |span| loaded.sources.locate(span);
    let said = loaded.diagnostics.iter().map(|found| {
        let related = found.related.iter().map(|(span, label)| format!("; {label}: {}", place(*span)));
        format!("{}: {}{}", place(found.span.unwrap()), found.message, related.collect::<String>())
    });
    said.collect()
}

#[test]
fn zones_that_a_more_specific_block_answers() {
    let (near, both) = ("169.254.20.10", "169.254.20.10 10.0.0.5");
    let said = |place: &str, option: &str, zone: &str| {
        vec![format!(
            "C:{place}: `{option}` does nothing for `{zone}` in this block; another block at the same address answers them: C:1:1"
        )]
    };
    let walk = "cache\n autopath cluster.local @query";
    assert_eq!(shadowed(near, walk, near), said("8:11", "autopath", "cluster.local"));
    assert_eq!(shadowed(near, walk, both), said("8:11", "autopath", "cluster.local"));
    assert_eq!(shadowed(both, walk, near), Vec::<String>::new(), "it acts at the other address");
    let below = "cache {\n denial_cut corp.example svc.cluster.local\n }";
    assert_eq!(shadowed(near, below, near), said("8:26", "denial_cut", "svc.cluster.local"));
    let aaaa = "aaaa off corp.example cluster.LOCAL";
    assert_eq!(shadowed(near, aaaa, near), said("7:24", "aaaa off", "cluster.LOCAL"));
    for meant in ["aaaa off", "aaaa off local", "cache {\n denial_cut local\n }"] {
        assert_eq!(shadowed(near, meant, near), Vec::<String>::new(), "{meant}");
    }
    good("cluster.local {\n cache\n}\nb.cluster.local . {\n cache {\n  denial_cut cluster.local\n }\n}");
    assert_eq!(lines("cluster.local {\n}\n.:53 .:54 {\n aaaa off cluster.local\n}"), Vec::<String>::new());
    assert_eq!(
        lines("cluster.local {\n}\n. {\n aaaa off cluster.local\n}"),
        ["C:4:11: `aaaa off` does nothing for `cluster.local` in this block (move it into that block)"]
    );
}
