//! What is left when the agent stops, and what `cleanup` and `doctor` say and do.

use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::lab::agent::who_answers;
use super::lab::{self, Host, KubeProxy, LINK_LOCAL, Lab, Load, NODE, POD1, Running, SERVICE, Start, Who};
use super::lab::{dns, kernel, listening};
use crate::support::client::{Tcp, Udp};
use crate::support::program::dnslet;
use crate::support::wire::{A, RA};
use crate::support::{Message, Query, Upstream, time};

const TEST: &str = "node::teardown";

#[track_caller]
fn stop(mut agent: Running) {
    agent.strike(agent.keeper(), Signal::SIGTERM);
    let status = agent.wait();
    assert!(status.success(), "{status}\n{}", agent.log());
}

/// Exit code, and all that the program printed when it was run to its end on the node.
fn on_node(arguments: &[&str]) -> (Option<i32>, String) {
    let (code, told, complaint) = NODE.run(|| dnslet(arguments));
    let printed = told + &complaint;
    println!("dnslet {}: {code:?}\n{printed}", arguments.join(" "));
    (code, printed)
}

fn placed() -> Vec<&'static str> {
    [LINK_LOCAL, SERVICE].concat().into_iter().filter(|address| kernel::link_of(dns(address).ip()).is_some()).collect()
}

#[test]
fn sigterm_removes_the_rules_first_and_then_answers_what_is_in_flight() {
    if !lab::entered(&format!("{TEST}::sigterm_removes_the_rules_first_and_then_answers_what_is_in_flight")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Nftables);
    let upstream = NODE.run(Upstream::start);
    let mut agent = Start::new().edit("forward . 10.9.3.2", &format!("forward . {}", upstream.address())).start();
    let query = Query::new("hold.test", A);
    let clients: Vec<Udp> = POD1.run(|| listening().map(Udp::to).into());
    clients.iter().for_each(|client| client.send(&query.bytes()));
    let mut stream = POD1.run(|| Tcp::to(dns(SERVICE[0])));
    stream.send(&query.bytes());
    time::until("five clients of one query", || {
        (agent.metric("dnslet_flights_joined_total", &[]) >= 4.0).then_some(())
    });

    agent.strike(agent.keeper(), Signal::SIGTERM);
    time::until("the rules to go", || kernel::intercepted().is_empty().then_some(()));
    agent.check_alive();
    assert_eq!(who_answers(POD1, dns(SERVICE[0])), Some(Who::Cluster), "new queries go to the cluster");
    upstream.release();
    for client in &clients {
        let reply = client.receive(time::PATIENCE).expect("an answer to what was in flight");
        assert!(Message::parse(&reply).expect("a message").has(RA));
    }
    assert!(stream.next().has(RA));
    drop(stream);
    assert!(agent.wait().success(), "{}", agent.log());
}

#[test]
fn a_stop_and_the_next_start_lose_nothing_under_load() {
    if !lab::entered_alone(&format!("{TEST}::a_stop_and_the_next_start_lose_nothing_under_load")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Nftables);
    let agent = Start::new().start();
    // A host client's socket has the address that it asks for its source, and cannot send once that is gone.
    let crowd = |from: Host, servers: &[SocketAddr]| Load { rate: 2500, ..Load::heavy(from, servers) }.start();
    let loads = [crowd(POD1, &listening()), crowd(NODE, &LINK_LOCAL.map(dns))];
    time::pass(Duration::from_millis(500));
    let told = time::now();
    stop(agent);
    println!("stopped after {:?}", told.elapsed());
    time::pass(Duration::from_millis(500));
    let _agent = Start::new().start();
    time::pass(Duration::from_millis(500));
    for load in loads {
        let report = load.stop();
        println!("{report}");
        assert!(report.lost().is_empty(), "{report}");
        assert_eq!(report.answers().len(), 2, "{report}");
    }
}

#[test]
fn what_stays_is_what_link_local_clients_need() {
    if !lab::entered(&format!("{TEST}::what_stays_is_what_link_local_clients_need")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Nftables);
    stop(Start::new().start());
    assert_eq!(
        placed(),
        [LINK_LOCAL[0], LINK_LOCAL[1], SERVICE[1]],
        "what has a fallback stays; a unique local address of a Service cannot be told from one of the node's own"
    );
    for server in listening() {
        for from in [POD1, NODE] {
            assert_eq!(who_answers(from, server), Some(Who::Cluster), "{from:?} asks {server}");
        }
    }
    stop(Start::new().flag("-skipteardown", "true").start());
    assert_eq!(placed().len(), 4, "-skipteardown keeps every address");
    for server in listening() {
        assert_eq!(who_answers(POD1, server), Some(Who::Cluster), "no rule holds packets where nobody answers");
    }
}

#[test]
fn cleanup_removes_what_is_ours_and_what_node_cache_left() {
    if !lab::entered(&format!("{TEST}::cleanup_removes_what_is_ours_and_what_node_cache_left")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Nftables);
    let untouched = kernel::ruleset(NODE);
    let mut agent = Start::new().start();
    agent.signal(Signal::SIGKILL);
    agent.wait();
    assert!(kernel::rules() > 0, "the base outlives the agent");
    let rules = [
        ("raw", "PREROUTING -p udp -d 169.254.20.10 --dport 53 -j NOTRACK", "skip conntrack"),
        ("raw", "OUTPUT -p udp -s 169.254.20.10 --sport 53 -j NOTRACK", "skip conntrack"),
        ("filter", "INPUT -p udp -d 169.254.20.10 --dport 53 -j ACCEPT", "allow DNS traffic"),
        ("filter", "OUTPUT -p tcp -s 169.254.20.10 --sport 53 -j ACCEPT", "allow DNS traffic"),
    ];
    for (table, rule, comment) in rules {
        NODE.feed(
            "iptables-restore --noflush",
            &format!("*{table}\n-A {rule} -m comment --comment \"NodeLocal DNS Cache: {comment}\"\nCOMMIT\n"),
        );
    }
    NODE.command("iptables -A INPUT -p udp --dport 5353 -j ACCEPT");

    let (code, printed) = on_node(&["cleanup", "-localip", &[LINK_LOCAL, SERVICE].concat().join(",")]);
    assert_eq!(code, Some(0), "{printed}");
    let saved = NODE.command("iptables-save");
    assert!(!saved.contains("NodeLocal DNS Cache"), "{saved}");
    assert!(saved.contains("--dport 5353"), "what is not ours stays: {saved}");
    assert_eq!((kernel::rules(), placed()), (0, Vec::new()), "{printed}");
    for part in ["169.254.20.10", "dnslet", "NodeLocal DNS Cache"] {
        assert!(printed.contains(part), "{part} is not told in: {printed}");
    }
    let (again, printed) = on_node(&["cleanup", "-localip", &[LINK_LOCAL, SERVICE].concat().join(",")]);
    assert!(again == Some(0) && !printed.contains("169.254.20.10"), "{printed}");
    NODE.command("iptables -D INPUT -p udp --dport 5353 -j ACCEPT");
    let proxy = |text: &str| text.split("\ntable ").find(|part| part.contains("inet proxy")).map(str::to_owned);
    assert!(proxy(&untouched).is_some() && proxy(&kernel::ruleset(NODE)).is_some(), "kube-proxy's rules stay");
}

#[test]
fn doctor_tells_a_healthy_node_from_a_broken_one() {
    if !lab::entered(&format!("{TEST}::doctor_tells_a_healthy_node_from_a_broken_one")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Nftables);
    let localip = [LINK_LOCAL, SERVICE].concat().join(",");
    let agent = Start::new().start();
    for _ in 0..7 {
        assert_eq!(who_answers(POD1, dns(LINK_LOCAL[0])), Some(Who::Agent));
    }
    let (healthy, printed) = on_node(&["doctor", "-localip", &localip]);
    assert_eq!(healthy, Some(0), "{printed}");
    for part in [LINK_LOCAL, SERVICE].concat() {
        assert!(printed.contains(part), "{part} is missing in: {printed}");
    }
    stop(agent);
    NODE.ip(&format!(
        "address delete {}/32 dev {}",
        LINK_LOCAL[0],
        kernel::link_of(dns(LINK_LOCAL[0]).ip()).expect("it stays")
    ));
    let (broken, printed) = on_node(&["doctor", "-localip", &localip]);
    assert_eq!(broken, Some(1), "{printed}");
}
