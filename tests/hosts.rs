//! Host names as upstreams: resolved at start and at each reload, by the servers that `resolver` names.

use std::net::SocketAddr;

use nix::sys::signal::Signal;

use crate::support::process::kill;
use crate::support::wire::*;
use crate::support::{Agent, Upstream};

/// A name whose only address, at a scripted resolver, is this one.
fn host_of(up: &Upstream) -> String {
    format!("addr-{}.host.test", up.address().ip().to_string().replace('.', "-"))
}

/// `forward` to a host on the port of the scripted upstreams.
fn forward(host: &str, resolver: SocketAddr) -> String {
    format!("forward . {host}:5300 {{\n resolver {resolver}\n }}")
}

#[test]
fn a_host_name_is_resolved_at_start_and_again_at_a_reload() {
    let (resolver, first, second) = (Upstream::start(), Upstream::start(), Upstream::start());
    let plan = Agent::plan();
    let text = plan.block(".", &forward("up.host.test", resolver.address()));
    let label = |up: &Upstream| host_of(up).split('.').next().expect("a label").to_owned();
    resolver.change("up.host.test.", &label(&first));
    let mut agent = plan.corefile(&text).start();
    assert_eq!(agent.ask_a("ttl300.one.test.").rcode, NOERROR);
    assert_eq!((first.count("ttl300.one.test."), second.count("ttl300.one.test.")), (1, 0));
    assert_eq!(resolver.count("ttl300.one.test."), 0, "the resolver is asked for the host only");
    assert_eq!(resolver.count("up.host.test."), 2, "once for A, once for AAAA");

    resolver.change("up.host.test.", &label(&second));
    agent.signal(Signal::SIGHUP);
    agent.wait_for_log("Reloading complete");
    agent.ask_a("ttl300.two.test.");
    assert_eq!((first.count("ttl300.two.test."), second.count("ttl300.two.test.")), (0, 1));
}

#[test]
fn a_host_without_address_refuses_the_start() {
    let resolver = Upstream::start();
    for (label, reason) in [
        ("nx-60-10", "NXDOMAIN"),
        ("nodata-60-10", "it has no A or AAAA record"),
        ("servfail", "SERVFAIL"),
        ("silent", "i/o timeout"),
        ("addr-0-0-0-0", "it has no A or AAAA record"),
    ] {
        let mut agent = Agent::plan().root(&forward(&format!("{label}.host.test"), resolver.address())).launch();
        assert_eq!(agent.wait().code(), Some(1), "{}", agent.log());
        let log = agent.log();
        let told = format!("forward: cannot resolve {label}.host.test. (asked {}): ", resolver.address());
        assert!(
            log.split_once(&told).is_some_and(|(_, why)| why.contains(reason)),
            "{told}{reason} is missing in:\n{log}"
        );
    }
}

#[test]
fn a_host_with_too_many_addresses_refuses_the_start() {
    let resolver = Upstream::start();
    resolver.change("big.host.test.", "big-16");
    let mut agent = Agent::plan().root(&forward("big.host.test", resolver.address())).launch();
    assert_eq!(agent.wait().code(), Some(1), "{}", agent.log());
    let log = agent.log();
    assert!(log.contains("forward to big.host.test:5300: more than 15 TOs configured; big.host.test. is "), "{log}");
    assert!(log.contains(&format!("(says {})", resolver.address())), "{log}");
}

#[test]
fn a_host_that_is_this_agent_refuses_the_start() {
    let resolver = Upstream::start();
    let plan = Agent::plan();
    let host = format!("addr-{}.host.test", plan.ip().to_string().replace('.', "-"));
    let mut agent = plan.root(&forward(&host, resolver.address())).launch();
    assert_eq!(agent.wait().code(), Some(1), "{}", agent.log());
    assert!(agent.log().contains("where this agent itself listens"), "{}", agent.log());
}

#[test]
fn a_reload_to_a_host_that_cannot_be_resolved_changes_nothing() {
    let (resolver, up) = (Upstream::start(), Upstream::start());
    let plan = Agent::plan();
    let text = plan.block(".", &forward(&host_of(&up), resolver.address()));
    let mut agent = plan.corefile(&text).start();
    agent.directory.write("Corefile", &text.replace(&host_of(&up), "nx-60-10.host.test"));
    agent.signal(Signal::SIGHUP);
    agent.wait_for_log("Restart failed: forward: cannot resolve nx-60-10.host.test.");
    agent.ask_a("ttl300.still.test.");
    assert_eq!(up.count("ttl300.still.test."), 1);
}

#[test]
fn a_server_that_is_replaced_does_not_need_the_resolver() {
    let (resolver, up) = (Upstream::start(), Upstream::start());
    let agent = Agent::root(&forward(&host_of(&up), resolver.address()));
    drop(resolver);
    kill(agent.server(), Signal::SIGKILL);
    agent.ask_a("ttl300.still.test.");
    assert_eq!(up.count("ttl300.still.test."), 1);
    assert_eq!(agent.metric("dnslet_config_valid", &[]), 1.0);
}
