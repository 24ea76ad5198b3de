use super::*;
use crate::node::diagnosis::{Chains, Interface, Ipv6, Kernel, Table, Tracked, Unseen};
use crate::sys::process::PortOf;

const LOCAL: &str = "169.254.20.10";
const SERVICE: &str = "10.96.0.10";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn listener(address: &str, transport: PortOf, holder: &str) -> Listener {
    Listener { address: address.parse().unwrap(), transport, holder: holder.to_owned() }
}

/// A node where all is well: two addresses, intercepted, and an agent that answers.
fn healthy() -> Examined {
    let addresses = vec![ip(LOCAL), ip(SERVICE)];
    let instance = Table {
        name: "dnslet_1a2b3c4d".to_owned(),
        holder: Some("dnslet (pid 7)".to_owned()),
        rules: 14,
        intercepted: [(ip(LOCAL), 40), (ip(SERVICE), 2)].into(),
        fallback: [].into(),
    };
    let base = Table {
        name: "dnslet".to_owned(),
        holder: None,
        rules: 9,
        intercepted: [].into(),
        fallback: [(ip(LOCAL), 3)].into(),
    };
    let facts = Facts {
        link: Ok(Some(Interface { name: "nodelocaldns".to_owned(), kind: Some("dummy".to_owned()), up: true })),
        places: addresses.iter().map(|address| (*address, vec!["nodelocaldns".to_owned()])).collect(),
        tables: Ok(vec![base, instance]),
        iptables: Ok(Chains::default()),
        tracked: Ok(Tracked { complete: true, ..Tracked::default() }),
        kernel: Kernel {
            release: Some("6.1.0".to_owned()),
            ends_tables: Some(true),
            dummy: Some(true),
            ipv6: Ipv6::On,
            tracked: Some((10, 1000)),
        },
        placeable: Ok(Rules::Nftables),
        addresses: addresses.clone(),
    };
    let listeners = addresses.iter().flat_map(|address| {
        [PortOf::Udp, PortOf::Tcp].map(|transport| listener(&format!("{address}:53"), transport, "dnslet (pid 8)"))
    });
    let answers = addresses.iter().flat_map(|address| {
        [Protocol::Udp, Protocol::Tcp].map(|protocol| Answer {
            address: *address,
            protocol,
            result: Ok(Duration::from_micros(300)),
        })
    });
    Examined {
        unset: Vec::new(),
        listeners: listeners.collect(),
        answers: answers.collect(),
        link: "nodelocaldns".to_owned(),
        dns_port: 53,
        rules: Rules::Auto,
        resolv_conf: [Some(vec!["192.0.2.53:53".parse().unwrap()]), None],
        metrics: Some((METRICS, vec![listener("0.0.0.0:9353", PortOf::Tcp, "dnslet (pid 8)")])),
        upstreams: [("192.0.2.53:53".to_owned(), true), ("192.0.2.54:53".to_owned(), true)].into(),
        facts,
    }
}

/// The lines that are not ok, after a change to the healthy node.
fn complaints(change: impl FnOnce(&mut Examined)) -> Vec<(Verdict, String)> {
    let mut examined = healthy();
    change(&mut examined);
    let unwell = findings(&examined).into_iter().filter(|finding| finding.verdict != Verdict::Ok);
    unwell.map(|finding| (finding.verdict, finding.text)).collect()
}

#[track_caller]
fn assert_one(verdict: Verdict, part: &str, change: impl FnOnce(&mut Examined)) {
    let complaints = complaints(change);
    assert!(complaints.len() == 1 && complaints[0].0 == verdict && complaints[0].1.contains(part), "{complaints:?}");
}

#[test]
fn a_healthy_node_is_described_without_complaint() {
    let report = rendered(&findings(&healthy()));
    for line in [
        "ok       interface nodelocaldns is a dummy link and up\n",
        "ok       address 169.254.20.10 is on nodelocaldns\n",
        "ok       table inet dnslet sends 169.254.20.10 to the cluster's DNS while the agent is away: 3 packets so far\n",
        "ok       table inet dnslet_1a2b3c4d ends with dnslet (pid 7) and has 14 rules; packets: 2 to 10.96.0.10 and 40 to 169.254.20.10\n",
        "ok       connection tracking has no entry for the addresses\n",
        "ok       port 53 of 10.96.0.10 is held by dnslet (pid 8) over UDP and TCP\n",
        "ok       a query to 10.96.0.10 is answered over UDP in 0.3 ms and over TCP in 0.3 ms\n",
        "ok       none of the agent's upstreams is down: 192.0.2.53:53 and 192.0.2.54:53\n",
        "ok       /etc/resolv.conf names 192.0.2.53, not the cache\n",
        "ok       kernel 6.1.0 can remove the rules",
        "ok       metrics are at http://127.0.0.1:9353/metrics",
        "\n0 problems, 0 warnings\n",
    ] {
        assert!(report.contains(line), "{line} in\n{report}");
    }
}

#[test]
fn every_complaint_says_what_to_do() {
    let mut examined = healthy();
    examined.facts.link = Ok(None);
    examined.facts.places.clear();
    examined.facts.tables = Ok(Vec::new());
    examined.listeners.clear();
    examined.answers.iter_mut().for_each(|answer| answer.result = Err(probe::Failure::Silence));
    let complaints = findings(&examined);
    let complaints: Vec<_> = complaints.iter().filter(|finding| finding.verdict != Verdict::Ok).collect();
    assert!(complaints.len() >= 7, "{complaints:?}");
    assert!(complaints.iter().all(|finding| finding.advice.is_some()), "{complaints:?}");
    let report = rendered(&findings(&examined));
    assert!(report.contains("over UDP and TCP\n         -> start the agent"), "{report}");
}

#[test]
fn the_interface() {
    let with = |change: fn(&mut Interface)| {
        move |seen: &mut Examined| change(seen.facts.link.as_mut().unwrap().as_mut().unwrap())
    };
    assert_one(Verdict::Problem, "is down", with(|link| link.up = false));
    assert_one(Verdict::Problem, "is a bridge of somebody else", with(|link| link.kind = Some("bridge".to_owned())));
    assert_eq!(complaints(|seen| seen.facts.link = Ok(None)), []);
}

#[test]
fn the_addresses() {
    let place = |names: &'static [&str]| {
        move |seen: &mut Examined| {
            seen.facts.places.insert(ip(SERVICE), names.iter().map(ToString::to_string).collect());
        }
    };
    assert_one(Verdict::Problem, "10.96.0.10 is on no interface", place(&[]));
    assert_one(Verdict::Warning, "nodelocaldns and eth0", place(&["nodelocaldns", "eth0"]));
    let six = |ipv6| {
        move |seen: &mut Examined| {
            seen.facts.addresses.push(ip("fd00::10"));
            seen.facts.kernel.ipv6 = ipv6;
        }
    };
    for (ipv6, part) in [(Ipv6::Off, "IPv6 is switched off"), (Ipv6::Absent, "no IPv6"), (Ipv6::On, "no interface")] {
        let complaints = complaints(six(ipv6));
        assert!(complaints[0].1.starts_with("address fd00::10") && complaints[0].1.contains(part), "{complaints:?}");
    }
}

#[test]
fn the_rules() {
    let table = |change: fn(&mut Table)| move |seen: &mut Examined| change(&mut seen.facts.tables.as_mut().unwrap()[1]);
    assert_one(Verdict::Warning, "was loaded by hand", table(|table| table.holder = None));
    assert_one(
        Verdict::Problem,
        "10.96.0.10 are not intercepted",
        table(|table| {
            table.intercepted.remove(&ip(SERVICE));
        }),
    );
    let withdrawn = complaints(table(|table| table.intercepted.clear()));
    assert!(withdrawn[0].1.contains("its probes get no answer"), "{withdrawn:?}");
    assert_one(Verdict::Problem, "no rules bring packets to the cache", |seen| seen.facts.tables = Ok(Vec::new()));
    assert_one(Verdict::Problem, "and none can be placed", |seen| {
        seen.facts.tables = Ok(Vec::new());
        seen.facts.placeable = Err("the kernel has no nf_tables".to_owned());
    });
    let by_iptables = |seen: &mut Examined| {
        let intercepted = [(ip(LOCAL), 5), (ip(SERVICE), 6)].into();
        seen.facts.iptables = Ok(Chains { ours: 20, intercepted, ..Chains::default() });
        seen.facts.tables = Ok(Vec::new());
    };
    assert_eq!(complaints(by_iptables), []);
    assert_one(Verdict::Warning, "a running agent uses nf_tables", |seen| {
        seen.facts.iptables = Ok(Chains { ours: 20, ..Chains::default() });
    });
    let unread = |seen: &mut Examined| {
        seen.facts.tables = Ok(Vec::new());
        seen.facts.iptables = Err(Unseen::Failed("iptables-save is not installed here".to_owned()));
    };
    assert_one(Verdict::Skipped, "iptables-save is not installed", |seen| {
        unread(seen);
        seen.rules = Rules::Iptables;
    });
    assert_one(Verdict::Skipped, "iptables-save is not installed", |seen| {
        unread(seen);
        seen.facts.placeable = Ok(Rules::Iptables);
    });
    assert_eq!(
        complaints(|seen| {
            seen.facts.tables = Ok(Vec::new());
            seen.rules = Rules::None;
        }),
        []
    );
    assert_one(Verdict::Warning, "12 rules of node-cache", |seen| {
        seen.facts.iptables = Ok(Chains { node_caches: 12, ..Chains::default() });
    });
}

#[test]
fn what_takes_root_is_said_and_is_no_problem() {
    let mut examined = healthy();
    examined.facts.tables = Err(Unseen::Forbidden);
    examined.facts.iptables = Err(Unseen::Forbidden);
    examined.facts.tracked = Err(Unseen::Forbidden);
    examined.listeners = vec![listener("169.254.20.10:53", PortOf::Udp, "another process (uid 0)")];
    examined.facts.addresses.pop();
    let findings = findings(&examined);
    let skipped: Vec<_> = findings.iter().filter(|finding| finding.verdict == Verdict::Skipped).collect();
    assert_eq!(skipped.len(), 4, "{findings:?}");
    assert!(skipped[0].text.ends_with("to see that takes root (CAP_NET_ADMIN)"), "{skipped:?}");
    assert!(rendered(&findings).ends_with("; 4 lines skipped: run it as root\n"));
}

#[test]
fn connection_tracking() {
    let entries = |address: &str| {
        Ok(Tracked {
            entries: [(ip(address), 4)].into(),
            example: Some("UDP from 10.0.0.5:4242 to 10.96.0.10:53".to_owned()),
            complete: true,
        })
    };
    assert_one(Verdict::Warning, "4 for 10.96.0.10 (UDP from 10.0.0.5:4242", |seen| {
        seen.facts.tracked = entries(SERVICE)
    });
    assert_one(Verdict::Problem, "not intercepted", |seen| {
        seen.facts.tracked = entries(SERVICE);
        seen.facts.tables.as_mut().unwrap()[1].intercepted.remove(&ip(SERVICE));
    });
    assert_one(Verdict::Problem, "950 of 1000 entries", |seen| seen.facts.kernel.tracked = Some((950, 1000)));
}

#[test]
fn the_port() {
    assert_one(Verdict::Problem, "nobody listens on port 53 of 10.96.0.10 over TCP", |seen| {
        seen.listeners.retain(|one| one.address.ip() != ip(SERVICE) || one.transport == PortOf::Udp);
    });
    assert_one(Verdict::Problem, "port 53 of 10.96.0.10 is held by named (pid 3) over UDP", |seen| {
        seen.listeners.push(listener("10.96.0.10:53", PortOf::Udp, "named (pid 3)"));
    });
    assert_one(Verdict::Warning, "every address is held by dnsmasq (pid 4) over UDP and TCP", |seen| {
        seen.listeners.push(listener("0.0.0.0:53", PortOf::Udp, "dnsmasq (pid 4)"));
        seen.listeners.push(listener("[::]:53", PortOf::Tcp, "dnsmasq (pid 4)"));
    });
    let wildcard = |seen: &mut Examined| {
        seen.listeners = [PortOf::Udp, PortOf::Tcp].map(|of| listener("[::]:53", of, "dnslet (pid 8)")).into();
    };
    assert_eq!(complaints(wildcard), []);
}

#[test]
fn an_address_that_does_not_answer() {
    assert_one(Verdict::Problem, "a query to 169.254.20.10 fails over TCP: no answer in time", |seen| {
        seen.answers[1].result = Err(probe::Failure::Silence);
    });
}

#[test]
fn an_address_that_leads_to_another_server() {
    assert_one(Verdict::Warning, "a query to 169.254.20.10 is answered over TCP by another server", |seen| {
        seen.answers[1].result = Err(probe::Failure::Foreign);
    });
}

#[test]
fn the_upstreams() {
    let down =
        |count: usize| move |seen: &mut Examined| seen.upstreams.values_mut().take(count).for_each(|up| *up = false);
    assert_one(Verdict::Warning, "of 2 upstreams of the agent 1 is down: 192.0.2.53:53", down(1));
    assert_one(Verdict::Problem, "every upstream of the agent is down: 192.0.2.53:53 and 192.0.2.54:53", down(2));
    assert_eq!(complaints(|seen| seen.upstreams.clear()), [], "nobody tells");
}

#[test]
fn circles_in_resolv_conf() {
    let names = |first: &'static str, behind: Option<&'static str>| {
        move |seen: &mut Examined| {
            let servers = |text: &str| vec![SocketAddr::new(ip(text), 53)];
            seen.resolv_conf = [Some(servers(first)), behind.map(servers)];
        }
    };
    assert_one(Verdict::Warning, "names 169.254.20.10, the cache", names(LOCAL, None));
    assert_one(Verdict::Problem, "which asks 10.96.0.10, the cache", names("127.0.0.53", Some(SERVICE)));
    assert_one(Verdict::Warning, "cannot be seen from here", names("127.0.0.53", None));
    assert_eq!(complaints(names("127.0.0.53", Some("192.0.2.1"))), []);
    let with_others = |seen: &mut Examined| {
        seen.resolv_conf[0] = Some([LOCAL, "192.0.2.1"].map(|text| SocketAddr::new(ip(text), 53)).into());
    };
    assert_eq!(complaints(with_others), [], "as dnslet host enable writes it");
    assert_one(Verdict::Warning, "names ::1, a program on this node", names("::1", None));
    assert_one(Verdict::Warning, "names no server", |seen| seen.resolv_conf[0] = Some(Vec::new()));
}

#[test]
fn an_old_kernel() {
    assert_one(Verdict::Warning, "cannot remove rules of nf_tables", |seen| {
        seen.facts.kernel.ends_tables = Some(false)
    });
    assert_eq!(complaints(|seen| seen.facts.kernel.dummy = Some(false)), []);
}
