//! The agent at work: beside real servers, under many questions at once, over several zones and listeners.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use nix::sys::signal::Signal;

use crate::support::agent::http_get;
use crate::support::dig::{dig, short};
use crate::support::process::{Directory, Process};
use crate::support::wire::*;
use crate::support::{Agent, Message, Query, Upstream, namespace, peers, time};

/// The shipped Corefile as the operator's `sed` leaves it: cluster domain and local addresses filled in.
fn shipped_corefile() -> String {
    include_str!("corefiles/nodelocaldns")
        .replace("__PILLAR__DNS__DOMAIN__", "cluster.local")
        .replace("__PILLAR__LOCAL__DNS__", "169.254.20.10")
        .replace("__PILLAR__DNS__SERVER__", "10.96.0.10")
}

/// Starts the agent with the arguments of the shipped DaemonSet, set-up of link and rules off.
fn start_as_daemonset(directory: &Arc<Directory>) -> Process {
    start_as_daemonset_with(directory, &directory.path().join("Corefile"))
}

/// The same with another place for the filled Corefile.
fn start_as_daemonset_with(directory: &Arc<Directory>, output: &Path) -> Process {
    let base = directory.write("Corefile.base", &shipped_corefile());
    let mut command = Command::new(env!("CARGO_BIN_EXE_dnslet"));
    command
        .args(["-localip", "169.254.20.10,10.96.0.10", "-upstreamsvc", "kube-dns-upstream"])
        .args(["-setupinterface=false", "-setupiptables=false"])
        .arg("-conf")
        .arg(output)
        .arg("-basecorefile")
        .arg(base)
        .arg("-pidfile")
        .arg(directory.path().join("pid"))
        .env("KUBE_DNS_UPSTREAM_SERVICE_HOST", "10.96.5.5");
    Process::start("dnslet", command, Arc::clone(directory))
}

#[test]
fn a_read_only_root_is_nothing_to_warn_of() {
    if !namespace::entered("serving::a_read_only_root_is_nothing_to_warn_of") {
        return;
    }
    namespace::add_address("169.254.20.10/32");
    namespace::add_address("10.96.0.10/32");
    let directory = Directory::new();
    let root = directory.write("root/Corefile", "").parent().expect("a directory").to_owned();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "ro", "none"]).arg(&root).status();
    assert!(mounted.expect("mount: apt-get install mount").success(), "{}", root.display());
    let mut agent = start_as_daemonset_with(&directory, &root.join("Corefile"));
    agent.wait_until_serving(([169, 254, 20, 10], 53).into());
    assert!(agent.log().contains("Updated Corefile") && !agent.log().contains("cannot write"), "{}", agent.log());
}

#[test]
fn shipped_corefile_serves_cluster_reverse_and_external_names() {
    if !namespace::entered("serving::shipped_corefile_serves_cluster_reverse_and_external_names") {
        return;
    }
    let directory = Directory::new();
    for address in ["169.254.20.10/32", "10.96.0.10/32", "10.96.5.5/32", "192.0.2.53/32"] {
        namespace::add_address(address);
    }
    namespace::mount_over(&directory.write("resolv.conf", "nameserver 192.0.2.53\n"), "/etc/resolv.conf");
    let _cluster = peers::cluster(([10, 96, 5, 5], 53).into());
    let _outside = peers::outside(([192, 0, 2, 53], 53).into());
    let mut agent = start_as_daemonset(&directory);
    for ip in [[169, 254, 20, 10], [10, 96, 0, 10]] {
        let server = SocketAddr::from((ip, 53));
        agent.wait_until_serving(server);
        for transport in ["+notcp", "+tcp"] {
            let short = |arguments: &[&str]| short(server, &[&[transport], arguments].concat());
            assert_eq!(short(&["kubernetes.default.svc.cluster.local"]), ["10.96.0.1"]);
            assert_eq!(short(&["-x", "10.96.0.1"]), ["kubernetes.default.svc.cluster.local."]);
            assert_eq!(short(&["-x", "fd00::1"]), ["six.shop.svc.cluster.local."]);
            assert_eq!(short(&["www.example.org"]), ["192.0.2.80"]);
            assert_eq!(short(&["www.example.org", "AAAA"]), ["2001:db8::80"]);
            assert_eq!(short(&["alias.example.org"]), ["www.example.org.", "192.0.2.80"]);
            assert_eq!(short(&["many.example.org"]).len(), 200);
            assert!(dig(server, &[transport, "none.default.svc.cluster.local"]).contains("NXDOMAIN"));
        }
    }
    assert_eq!(http_get(([169, 254, 20, 10], 8080).into(), "/health"), Some((200, "OK".to_owned())));
    for port in [9253, 9353] {
        let (_, metrics) = http_get(([127, 0, 0, 1], port).into(), "/metrics").expect("metrics");
        assert!(metrics.contains("coredns_dns_requests_total{"), "{metrics}");
    }
    let pid = std::fs::read_to_string(directory.path().join("pid")).expect("a pid file");
    assert_eq!(pid, format!("{}\n", agent.pid()));
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.wait().code(), Some(0), "{}", agent.log());
    assert!(!directory.path().join("pid").exists(), "the pid file goes with the process");
}

#[test]
fn thousand_equal_cold_questions_are_one_upstream_query() {
    let (agent, up) = Agent::beside_upstream("cache 30\n forward . {once}");
    let clients: Vec<_> = (0..100).map(|_| agent.udp()).collect();
    let spellings = ["hold.thousand.test.", "HOLD.Thousand.test.", "hold.THOUSAND.TEST."];
    for round in 0..10 {
        for client in &clients {
            client.send(&Query::new(spellings[round % 3], A).with_id(round as u16).bytes());
        }
        // All of them are in before more are sent, so that no socket buffer overflows and none is a late hit.
        let arrived = (round + 1) as f64 * clients.len() as f64;
        time::until("the questions to arrive", || {
            (agent.metric("coredns_dns_requests_total", &[]) >= arrived).then_some(())
        });
    }
    up.release();
    for client in &clients {
        let mut ids: Vec<u16> = (0..10).map(|_| answered(&client.receive(time::PATIENCE).expect("a reply"))).collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..10).collect::<Vec<u16>>());
    }
    assert_eq!(up.count("hold.thousand.test."), 1);
}

/// The ID of a reply that holds the answer, in the spelling of its question.
fn answered(raw: &[u8]) -> u16 {
    let reply = Message::parse(raw).expect("a well-formed reply");
    assert_eq!((reply.rcode, reply.answers.len()), (NOERROR, 1));
    assert_eq!(reply.answers[0].name, reply.questions[0].name);
    reply.id
}

#[test]
fn burst_of_different_questions_is_answered_whole() {
    let (agent, _up) = Agent::beside_upstream("cache 30\n forward . {once}");
    let client = agent.udp();
    for _cold_then_warm in 0..2 {
        for number in 0..64 {
            client.send(&Query::new(&format!("ttl300.n{number}.burst.test."), A).with_id(number).bytes());
        }
        let mut ids: Vec<u16> = (0..64).map(|_| answered(&client.receive(time::PATIENCE).expect("a reply"))).collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..64).collect::<Vec<u16>>());
    }
}

#[test]
fn many_questions_at_once_on_one_connection_are_all_answered() {
    let (agent, _up) = Agent::beside_upstream("cache 30\n forward . {once}");
    let mut client = agent.tcp();
    for number in 0..100 {
        client.send(&Query::new(&format!("ttl300.n{number}.pipeline.test."), A).with_id(number).bytes());
    }
    let mut ids: Vec<u16> = (0..100).map(|_| answered(&client.receive().expect("a reply"))).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..100).collect::<Vec<u16>>());
}

#[test]
fn longest_zone_answers() {
    let (inner, outer) = (Upstream::start(), Upstream::start());
    let plan = Agent::plan();
    let corefile = [
        plan.block("test", &format!("forward . {}", outer.address())),
        plan.block("Inner.Test", &format!("forward . {}", inner.address())),
    ];
    let agent = plan.corefile(&corefile.concat()).start();
    agent.ask_a("ttl300.a.inner.test.");
    agent.ask_a("ttl300.A.INNER.TEST.");
    agent.ask_a("ttl300.notinner.test.");
    agent.ask(&Query::new("inner.test.", DS));
    assert_eq!(inner.count("ttl300.a.inner.test."), 2);
    assert_eq!(outer.count("ttl300.notinner.test."), 1);
    assert_eq!(outer.count("inner.test."), 1, "DS belongs to the parent");
    for outside in ["ttl300.example.", "."] {
        assert_eq!(agent.ask_a(outside).rcode, REFUSED, "{outside}");
    }
}

#[test]
fn failing_block_does_not_fall_back_to_another() {
    let up = Upstream::start();
    let plan = Agent::plan();
    let corefile = [
        plan.block(".", &format!("forward . {}", up.address())),
        plan.block("inner.test", &format!("forward . {} {{\n except ttl300.inner.test\n }}", up.address())),
    ];
    let agent = plan.corefile(&corefile.concat()).start();
    assert_eq!(agent.ask_a("ttl300.inner.test.").rcode, SERVFAIL);
    assert_eq!(up.all().len(), 0);
}

#[test]
fn both_families_are_served() {
    if !namespace::entered("serving::both_families_are_served") {
        return;
    }
    let up = Upstream::start();
    let plan = Agent::plan();
    let corefile = format!(".:53 {{\n bind 127.0.0.1 ::1\n forward . {}\n cache\n}}\n", up.address());
    let mut agent = plan.corefile(&corefile).launch();
    for server in ["127.0.0.1:53", "[::1]:53"] {
        let server = server.parse().expect("an address");
        agent.wait_until_serving(server);
        assert_eq!(short(server, &["ttl300.families.test"]), ["192.0.2.1"]);
        assert_eq!(short(server, &["+tcp", "ttl300.families.test", "AAAA"]), ["2001:db8::1"]);
    }
}

#[test]
fn verify_falls_back_to_the_stale_answer() {
    let settings = "cache {\n success 9984 1 0\n serve_stale 1h verify\n }\n forward . {once}";
    for failure in ["servfail", "refused", "silent", "wrongq"] {
        let (agent, up) = Agent::beside_upstream(settings);
        let (name, query) = ("ttl300.verify.test.", Query::new("ttl300.verify.test.", A).edns(1232));
        assert_eq!(agent.ask(&query).ttls(), [1]);
        up.change(name, failure);
        let stale = time::until("a stale answer", || Some(agent.ask(&query)).filter(|reply| reply.errors() == [3]));
        assert_eq!((stale.rcode, stale.ttls()), (NOERROR, vec![30]), "{failure}");
        assert!(up.count(name) >= 2, "{failure}: the upstream was asked first");
    }
}

#[test]
fn huge_and_unfinished_messages_leave_memory_flat() {
    const MEMORY: &str = "process_resident_memory_bytes";
    let (agent, _up) = Agent::beside_upstream("cache 30\n forward . {once}");
    let plain = Query::new("ttl300.memory.test.", A).edns(1232);
    let padding = vec![0; 65_535 - plain.bytes().len() - 4];
    let huge = plain.clone().option(PADDING, &padding);
    assert_eq!(huge.bytes().len(), 65_535);
    let mut client = agent.tcp();
    assert_eq!(client.ask(&plain).answers.len(), 1);
    let before = agent.metric(MEMORY, &[]);
    for length in [65_535, 60_000].repeat(50) {
        client.send(&huge.bytes()[..length]);
        assert_eq!(client.next().rcode, FORMERR, "no query needs {length} octets");
        assert_eq!(client.ask(&plain).answers.len(), 1, "the connection goes on");
    }
    let unfinished: Vec<_> = (0..100)
        .map(|_| {
            let mut client = agent.tcp();
            let framed = crate::support::upstream::framed(&huge.bytes());
            client.0.write_all(&framed[..1_000]).expect("an open connection");
            client
        })
        .collect();
    assert_eq!(agent.ask(&plain).answers.len(), 1);
    assert_eq!(agent.ask_tcp(&plain).answers.len(), 1);
    drop(unfinished);
    let grown = agent.metric(MEMORY, &[]) - before;
    assert!(grown < 16.0 * 1024.0 * 1024.0, "{grown} bytes more");
}

#[test]
fn next_hands_an_rcode_on_to_the_following_forward() {
    let (first, second) = (Upstream::start(), Upstream::start());
    let agent = Agent::root(&format!(
        "cache\n forward . {} {{\n next NXDOMAIN\n }}\n forward in.test {}",
        first.address(),
        second.address()
    ));
    second.change("nx.in.test.", "ttl300");
    assert_eq!(agent.ask_a("nx.in.test.").rcode, NOERROR);
    assert_eq!((first.count("nx.in.test."), second.count("nx.in.test.")), (1, 1));
    assert_eq!(agent.ask_a("servfail.in.test.").rcode, SERVFAIL, "not an RCODE that is handed on");
    assert_eq!(agent.ask_a("nx.out.test.").rcode, NXDOMAIN, "not a name of the other one");
    assert_eq!(second.all().len(), 1);
}
