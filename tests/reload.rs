//! Changes while the agent serves: the Corefile, the template and its ConfigMap, resolv.conf.

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::agent::{Plan, http_get};
use crate::support::process::kill;
use crate::support::wire::*;
use crate::support::{Agent, Upstream, time};

/// An agent that forwards to `up` with a cache, and the text of its Corefile.
fn cached(up: &Upstream) -> (Agent, String) {
    let plan = Agent::plan();
    let text = plan.block(".", &format!("cache 3600\n    forward . {}", up.address()));
    (plan.corefile(&text).start(), text)
}

#[track_caller]
fn reload(agent: &mut Agent, corefile: &str, outcome: &str) {
    agent.directory.write("Corefile", corefile);
    agent.signal(Signal::SIGHUP);
    agent.wait_for_log(outcome);
}

#[test]
fn a_valid_file_adds_a_zone_and_keeps_the_cache() {
    let (up, other) = (Upstream::start(), Upstream::start());
    let (mut agent, text) = cached(&up);
    agent.ask_a("ttl300.keep.test.");
    let more = format!("corp.test:5300 {{\n    bind {}\n    forward . {}\n}}\n", agent.ip(), other.address());
    reload(&mut agent, &(text + &more), "Reloading complete");
    agent.ask_a("ttl300.corp.test.");
    assert_eq!(other.count("ttl300.corp.test."), 1, "the new zone has its own upstream");
    agent.ask_a("ttl300.keep.test.");
    assert_eq!(up.count("ttl300.keep.test."), 1, "the unchanged zone kept its entries");
    assert_eq!(agent.metric("dnslet_config_valid", &[]), 1.0);
    assert_eq!(agent.metric("coredns_reload_version_info", &[("hash", "sha512")]), 1.0);
}

#[test]
fn an_invalid_file_changes_nothing_but_a_gauge_and_one_line() {
    let up = Upstream::start();
    let (mut agent, text) = cached(&up);
    reload(&mut agent, &text.replace("cache", "cash"), "[ERROR] Restart failed: ");
    let log = agent.log();
    assert!(!log.contains("Corefile changed"), "a signal, not the directive, asked for it: {log}");
    assert!(log.contains("Corefile:4:"), "the place of the fault: {log}");
    assert_eq!(agent.metric("dnslet_config_valid", &[]), 0.0);
    assert_eq!(agent.metric("coredns_reload_failed_total", &[]), 1.0);
    agent.ask_a("ttl300.same.test.");
    agent.ask_a("ttl300.same.test.");
    assert_eq!(up.count("ttl300.same.test."), 1, "the old configuration serves, cache and all");
    reload(&mut agent, &text, "Reloading complete");
    assert_eq!(agent.metric("dnslet_config_valid", &[]), 1.0);
}

#[test]
fn a_server_that_is_replaced_serves_what_was_in_force_before_a_bad_edit() {
    let up = Upstream::start();
    let plan = Agent::plan();
    let import = |zone: &str| format!("{zone}:5300 {{\n    bind {}\n    whoami\n}}\n", plan.ip());
    plan.directory().write("more.conf", &import("me.test"));
    let text = plan.block(".", &format!("forward . {}", up.address())) + "import more.conf\n";
    let mut agent = plan.corefile(&text).start();
    for bad in [text.replace("forward", "backward"), text.replace("more.conf", "none.conf")] {
        agent.directory.write("more.conf", "nonsense {");
        agent.directory.write("Corefile", &bad);
        kill(agent.server(), Signal::SIGKILL);
        agent.ask_a("ttl300.in.force.test.");
        assert!(!agent.ask_a("x.me.test.").additional.is_empty(), "whoami answers by itself");
        assert_eq!(agent.metric("dnslet_config_valid", &[]), 0.0);
    }
    let log = agent.log();
    let told = log.lines().find(|line| line.contains("the configuration that was in force before serves on"));
    assert!(told.is_some_and(|line| line.contains("backward") && line.contains("Corefile:4")), "{log}");
    agent.directory.write("more.conf", "");
    reload(&mut agent, &text, "Reloading complete");
    assert_eq!(agent.metric("dnslet_config_valid", &[]), 1.0);
}

#[test]
fn a_listener_comes_and_goes() {
    let up = Upstream::start();
    let (mut agent, text) = cached(&up);
    let second = std::net::SocketAddr::new(agent.ip(), 5301);
    let block = format!(".:5301 {{\n    bind {}\n    whoami\n}}\n", agent.ip());
    reload(&mut agent, &(text.clone() + &block), "Reloading complete");
    agent.wait_until_serving(second);
    reload(&mut agent, &text, "Reloading complete");
    time::until("the port to be free", || std::net::UdpSocket::bind(second).ok());
    time::until("the port to be free", || std::net::TcpListener::bind(second).ok());
    agent.ask_a("still.here.test.");
}

#[test]
fn a_listener_that_cannot_be_bound_refuses_the_reload() {
    let up = Upstream::start();
    let (mut agent, text) = cached(&up);
    let second = std::net::SocketAddr::new(agent.ip(), 5301);
    let _holder = std::net::UdpSocket::bind(second).unwrap();
    let block = format!(".:5301 {{\n    bind {}\n    whoami\n}}\n", agent.ip());
    reload(&mut agent, &(text + &block), "Restart failed");
    assert!(agent.log().contains(&format!("pid {}", std::process::id())), "{}", agent.log());
    agent.ask_a("ttl300.held.test.");
    assert_eq!(up.count("ttl300.held.test."), 1);
}

#[test]
fn a_refused_reload_leaves_no_socket_behind() {
    let up = Upstream::start();
    let (mut agent, text) = cached(&up);
    let [free, taken] = [5301, 5302].map(|port| SocketAddr::new(agent.ip(), port));
    let block = |port| format!(".:{port} {{\n    bind {}\n    whoami\n    ready {}:8081\n}}\n", taken.ip(), taken.ip());
    let holder = std::net::UdpSocket::bind(taken).unwrap();
    reload(&mut agent, &(text + &block(5301) + &block(5302)), "Restart failed");
    std::net::UdpSocket::bind(free).expect("nobody holds it");
    std::net::TcpListener::bind(free).expect("nobody holds it");
    std::net::TcpListener::bind(SocketAddr::new(agent.ip(), 8081)).expect("nobody holds it");
    drop(holder);
    agent.ask_a("still.here.test.");
}

#[test]
fn a_health_port_in_other_hands_stops_neither_a_start_nor_a_reload_and_is_taken_when_free() {
    let plan = Agent::plan();
    let [health, ready] = [8080, 8181].map(|port| SocketAddr::new(plan.ip(), port));
    let holders = [health, ready].map(|address| std::net::TcpListener::bind(address).unwrap());
    let mut agent = plan.root(&format!("whoami\n    health {health}\n    ready {ready}")).start();
    for (address, page) in [(health, "/health"), (ready, "/ready")] {
        agent.wait_for_log(&format!("cannot listen on tcp {address}: the address is in use by"));
        agent.wait_for_log(&format!("DNS is served, and {page} there once it is free"));
    }
    agent.signal(Signal::SIGHUP);
    agent.wait_for_log("Reloading complete");
    agent.ask_a("still.here.test.");
    drop(holders);
    agent.wait_for_log(&format!("HTTP is served at {health}"));
    for (address, page) in [(health, "/health"), (ready, "/ready")] {
        time::until(page, || http_get(address, page).filter(|(status, _)| *status == 200));
    }
}

#[test]
fn no_query_is_lost_over_many_reloads() {
    let up = Upstream::start();
    let (agent, text) = cached(&up);
    agent.ask_a("ttl300.load.test.");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (server, done) = (agent.dns(), &done);
        let load = scope.spawn(move || {
            let query = crate::support::Query::new("ttl300.load.test.", A);
            let (mut asked, mut tcp) = (0, crate::support::client::Tcp::to(server));
            while !done.load(Ordering::Relaxed) {
                let client = crate::support::client::Udp::to(server);
                client.send(&query.bytes());
                assert!(client.receive(time::PATIENCE).is_some(), "query {asked} was lost");
                tcp.ask(&query);
                asked += 1;
            }
            asked
        });
        for number in 1..=10 {
            let changed = text.replace("cache 3600", &format!("cache {}", 3600 - number));
            agent.directory.write("Corefile", &changed);
            agent.signal(Signal::SIGHUP);
            time::until("the reload", || (agent.log().matches("Reloading complete").count() == number).then_some(()));
            assert_eq!(http_get((agent.ip(), 9253).into(), "/metrics").expect("metrics stay up").0, 200);
        }
        done.store(true, Ordering::Relaxed);
        assert!(load.join().expect("no query is lost") > 10);
    });
}

#[test]
fn the_reload_directive_follows_the_file_and_ignores_layout() {
    let up = Upstream::start();
    let plan = Agent::plan();
    let text = plan.block(".", &format!("reload 2s 1s\n    cache 3600\n    forward . {}", up.address()));
    let mut agent = plan.corefile(&text).start();
    let more = format!("corp.test:5300 {{\n    bind {}\n    whoami\n}}\n", agent.ip());
    // A comment and an empty line are no change; were they one, there would be two reloads in the log.
    agent.directory.write("Corefile", &format!("# comment\n\n{text}"));
    agent.directory.write("Corefile", &format!("# comment\n\n{text}{more}"));
    agent.wait_for_log("Reloading complete");
    assert_eq!(agent.log().matches("Reloading complete").count(), 1, "{}", agent.log());
    agent.directory.write("Corefile", &text.replace("cache", "cash"));
    agent.wait_for_log("[ERROR] plugin/reload: Corefile changed but reload failed: ");
    assert_eq!(agent.log().matches("[ERROR] Restart failed: ").count(), 1, "{}", agent.log());
}

#[test]
fn terminate_in_the_middle_of_reloads_exits_0() {
    let up = Upstream::start();
    let (mut agent, text) = cached(&up);
    for number in 0..20 {
        agent
            .directory
            .write("Corefile", &format!("{text}z{number}.test:5300 {{\n    bind {}\n    whoami\n}}\n", agent.ip()));
        agent.signal(Signal::SIGUSR1);
    }
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.wait().code(), Some(0), "{}", agent.log());
}

#[test]
fn an_edit_of_resolv_conf_moves_the_upstream_and_keeps_the_cache() {
    let (first, second) = (Upstream::start(), Upstream::start());
    let plan = Agent::plan();
    let path = plan.directory().write("resolv.conf", &format!("nameserver {}\n", first.address()));
    let mut agent = plan.root(&format!("cache 3600\n    forward . {}", path.display())).start();
    agent.ask_a("ttl300.before.test.");
    assert_eq!(first.count("ttl300.before.test."), 1);
    for refused in ["search corp.test\n".to_owned(), format!("nameserver {}\n", agent.dns())] {
        agent.directory.write("resolv.conf", &refused);
        agent.wait_for_log(if refused.starts_with("search") { "no nameservers found" } else { "itself listens" });
    }
    agent.ask_a("ttl300.during.test.");
    assert_eq!(first.count("ttl300.during.test."), 1, "a useless file leaves the old upstream in place");
    agent.directory.write("new", &format!("nameserver {}\n", second.address()));
    std::fs::rename(agent.directory.path().join("new"), &path).unwrap();
    agent.wait_for_log(&format!("{}", second.address()));
    agent.ask_a("ttl300.after.test.");
    assert_eq!((first.count("ttl300.after.test."), second.count("ttl300.after.test.")), (0, 1));
    agent.ask_a("ttl300.before.test.");
    assert_eq!(first.count("ttl300.before.test.") + second.count("ttl300.before.test."), 1, "the cache was kept");
}

/// Asks for a name at an upstream in trouble until its failure is remembered for seconds, then makes `change`: whoever is
/// asked since answers it at once.
#[track_caller]
fn is_answered_after(mut agent: Agent, change: impl FnOnce(&mut Agent)) {
    let query = crate::support::Query::new("ttl300.mended.test.", A).edns(1232);
    // Remembered for one second, for two, and then for four.
    let started = time::now();
    let mut reply = agent.ask(&query);
    while started.elapsed() < Duration::from_millis(3500) {
        time::pass(Duration::from_millis(50));
        reply = agent.ask(&query);
    }
    assert!(reply.rcode != NOERROR && reply.errors().contains(&13), "{reply:?}");
    let changed = time::now();
    change(&mut agent);
    time::until("an answer", || (agent.ask(&query).rcode == NOERROR).then_some(()));
    assert!(changed.elapsed() < Duration::from_secs(2), "answered after {:?}", changed.elapsed());
}

#[test]
fn a_name_that_failed_is_answered_as_soon_as_resolv_conf_is_mended() {
    for alive in [false, true] {
        let (first, second) = (Upstream::start(), Upstream::start());
        let plan = Agent::plan();
        let path = plan.directory().write("resolv.conf", &format!("nameserver {}\n", first.address()));
        let agent = plan.root(&format!("cache\n    forward . {} {{\n max_fails 0\n }}", path.display())).start();
        if alive {
            first.change_all(Some("servfail"));
        } else {
            first.close_ports();
        }
        is_answered_after(agent, |agent| {
            drop(agent.directory.write("resolv.conf", &format!("nameserver {}\n", second.address())));
        });
    }
}

#[test]
fn a_name_that_failed_is_answered_as_soon_as_a_reload_brings_another_upstream() {
    let (first, second) = (Upstream::start(), Upstream::start());
    let plan = Agent::plan();
    let text = plan.block(".", &format!("cache\n    forward . {} {{\n max_fails 0\n }}", first.address()));
    let agent = plan.corefile(&text).start();
    first.close_ports();
    is_answered_after(agent, |agent| {
        let text = text.replace(&first.address().to_string(), &second.address().to_string());
        reload(agent, &text, "Reloading complete");
    });
}

/// A ConfigMap volume as the kubelet makes it: files are links through `..data`, which is swapped by renaming.
fn config_map(directory: &Path, version: &str, files: &[(&str, &str)]) {
    std::fs::create_dir_all(directory.join(version)).unwrap();
    for (name, text) in files {
        std::fs::write(directory.join(version).join(name), text).unwrap();
        if !directory.join(name).is_symlink() {
            symlink(Path::new("..data").join(name), directory.join(name)).unwrap();
        }
    }
    symlink(version, directory.join("..data_tmp")).unwrap();
    std::fs::rename(directory.join("..data_tmp"), directory.join("..data")).unwrap();
}

/// A node-cache command line whose volumes are in the plan's directory.
fn templated(plan: Plan, base: &str, up: &Upstream) -> Plan {
    let directory = plan.directory().path().to_owned();
    config_map(&directory.join("base"), "..1", &[("Corefile.base", base)]);
    config_map(&directory.join("kube-dns"), "..1", &[]);
    let ip = plan.ip().to_string();
    let (base, map) = (directory.join("base/Corefile.base"), directory.join("kube-dns"));
    plan.environment("KUBE_DNS_UPSTREAM_SERVICE_HOST", &up.address().ip().to_string()).arguments(&[
        "-localip",
        &ip,
        "-basecorefile",
        &base.display().to_string(),
        "-kubednscm",
        &map.display().to_string(),
        "-upstreamsvc=kube-dns-upstream",
        "-dns.port=5300",
        "-setupinterface=false",
        "-setupiptables=false",
        "-metrics-listen-address",
        &format!("{ip}:9353"),
        "-prometheus-listen-address",
        &format!("{ip}:9253"),
    ])
}

const BASE: &str = ".:5300 {\n    errors\n    cache 30\n    bind __PILLAR__LOCAL__DNS__\n    \
                    forward . __PILLAR__CLUSTER__DNS__:5300\n    prometheus __PROMETHEUS__ENDPOINT__\n}\n";

#[test]
fn a_template_is_filled_written_and_followed() {
    let (up, other) = (Upstream::start(), Upstream::start());
    let mut agent = templated(Agent::plan(), BASE, &up).start();
    let written = std::fs::read_to_string(agent.directory.path().join("Corefile")).unwrap();
    assert!(written.contains(&format!("forward . {}", up.address())), "{written}");
    agent.ask_a("ttl300.corp.test.");
    assert_eq!(up.count("ttl300.corp.test."), 1);
    let stub = format!(r#"{{"corp.test": ["{}"]}}"#, other.address());
    config_map(&agent.directory.path().join("kube-dns"), "..2", &[("stubDomains", &stub)]);
    agent.wait_for_log("Reloading complete");
    agent.ask_a("ttl300.more.corp.test.");
    assert_eq!(other.count("ttl300.more.corp.test."), 1);
    let written = std::fs::read_to_string(agent.directory.path().join("Corefile")).unwrap();
    assert!(written.contains("corp.test:5300 {"), "{written}");
    assert_eq!(http_get((agent.ip(), 9353).into(), "/metrics").expect("node-cache's own endpoint").0, 200);
}

#[test]
fn an_invalid_config_map_is_counted_and_changes_nothing() {
    let up = Upstream::start();
    let mut agent = templated(Agent::plan(), BASE, &up).start();
    let map = agent.directory.path().join("kube-dns");
    config_map(&map, "..2", &[("stubDomains", r#"{"Corp!": ["192.0.2.1"]}"#)]);
    agent.wait_for_log("is ignored: stubDomains: \"Corp!\" is not a domain name");
    assert_eq!(agent.metric("coredns_nodecache_setup_errors_total", &[("errortype", "configmap")]), 1.0);
    assert!(!agent.log().contains("Reloading"), "{}", agent.log());
    config_map(&map, "..3", &[("stubDomains", r#"{"corp.test": ["192.0.2.1"]}"#)]);
    agent.wait_for_log("Reloading complete");
}

#[test]
fn a_swapped_template_is_applied_without_the_reload_directive() {
    let up = Upstream::start();
    let mut agent = templated(Agent::plan(), BASE, &up).start();
    let more = format!("{BASE}corp.test:5300 {{\n    bind __PILLAR__LOCAL__DNS__\n    whoami\n}}\n");
    config_map(&agent.directory.path().join("base"), "..2", &[("Corefile.base", &more)]);
    agent.wait_for_log("Reloading complete");
    let reply = agent.ask_a("me.corp.test.");
    assert_eq!((reply.additional.is_empty(), up.count("me.corp.test.")), (false, 0), "whoami answers by itself");
}

#[test]
fn weights_decide_which_address_comes_first_and_follow_their_file() {
    let up = Upstream::start();
    let plan = Agent::plan();
    let weights = |heavy: u8| format!("# comment\nTWO.lb.test\n192.0.2.{heavy} 255\n192.0.2.{} 1\n", 3 - heavy);
    let path = plan.directory().write("weights", &weights(2));
    let lines = format!("cache 3600\n    loadbalance weighted {}\n    forward . {}", path.display(), up.address());
    let mut agent = plan.root(&lines).start();
    let first = |agent: &Agent, heavy: u8| {
        let client = agent.udp();
        let query = crate::support::Query::new("two.lb.test.", A);
        (0..200).filter(|_| client.ask(&query).answers[0].data == [192, 0, 2, heavy]).count()
    };
    assert!(first(&agent, 2) > 150);
    agent.directory.write("weights", "two.lb.test\n192.0.2.1 256\n");
    agent.wait_for_log(&format!("{}:2: `256` is not a weight", path.display()));
    assert!(first(&agent, 2) > 150, "a faulty file leaves the old weights in place");
    agent.directory.write("weights", &weights(1));
    agent.wait_for_log("weights are now those of");
    assert!(first(&agent, 1) > 150);
    assert_eq!(up.count("two.lb.test."), 1, "hits are weighed too");
}
