//! `dnslet doctor`, as an operator sees it.

use nix::sys::signal::Signal;

use crate::support::address::DNS;
use crate::support::namespace::{add_address, entered};
use crate::support::program::{assert_has, dnslet};
use crate::support::{Agent, Upstream, time};

fn doctor(arguments: &[&str]) -> (Option<i32>, String) {
    let (code, report, complaint) = dnslet(&[&["doctor"], arguments].concat());
    assert_eq!(complaint, "", "{report}");
    (code, report)
}

#[test]
fn the_doctor_tells_what_is_there_and_what_is_missing() {
    if !entered("doctor::the_doctor_tells_what_is_there_and_what_is_missing") {
        return;
    }
    let (address, port) = ("169.254.20.10", DNS);
    let wanted = ["-localip", address, "-dns.port", "5300", "-setupiptables=false"];
    let (code, report) = doctor(&wanted);
    assert_eq!(code, Some(1), "{report}");
    assert_has(
        &report,
        &[
            &format!("problem  address {address} is on no interface"),
            &format!(
                "problem  nobody listens on port {port} of {address} over UDP and TCP\n         -> start the agent"
            ),
            &format!(
                "problem  a query to {address} fails over UDP: no interface has the address and over TCP: no interface has the address"
            ),
            "\n3 problems, ",
        ],
    );
    add_address(&format!("{address}/32"));
    let plan = Agent::plan();
    let text = plan.block(".", &format!("whoami\n    bind {address}"));
    let mut agent = plan.corefile(&text).start();
    let (code, report) = doctor(&wanted);
    assert_eq!(code, Some(0), "{report}");
    assert_has(
        &report,
        &[
            &format!("ok       address {address} is on lo"),
            &format!("ok       port {port} of {address} is held by dnslet (pid "),
            &format!("ok       a query to {address} is answered over UDP in "),
            "ok       connection tracking has no entry for the addresses",
            "\n0 problems, ",
        ],
    );
    agent.signal(Signal::SIGKILL);
    agent.wait();
    let (code, report) = doctor(&wanted);
    assert_eq!(code, Some(1), "{report}");
    assert_has(&report, &[&format!("problem  nobody listens on port {port} of {address} over UDP and TCP")]);
}

#[test]
fn the_doctor_tells_that_every_upstream_is_down() {
    if !entered("doctor::the_doctor_tells_that_every_upstream_is_down") {
        return;
    }
    let up = Upstream::start();
    let plan = Agent::plan();
    let address = plan.ip().to_string();
    let forward = format!("forward . {}", up.address());
    let agent = plan.root(&forward).start();
    let metrics = agent.metrics_address().to_string();
    let wanted =
        ["-localip", &address, "-dns.port", "5300", "-setupiptables=false", "-metrics-listen-address", &metrics];
    let (_, report) = doctor(&wanted);
    assert_has(&report, &[&format!("ok       none of the agent's upstreams is down: {}\n", up.address())]);
    up.change_all(Some("silent"));
    time::until("the upstream to be down", || {
        agent.ask_a("down.doctor.test.");
        (agent.metric("dnslet_upstream_up", &[]) == 0.0).then_some(())
    });
    let (code, report) = doctor(&wanted);
    assert_eq!(code, Some(1), "{report}");
    assert_has(&report, &[&format!("problem  every upstream of the agent is down: {}\n", up.address())]);
}

#[test]
fn the_doctor_needs_no_corefile_and_refuses_flags_that_do_not_exist() {
    let (code, _, complaint) = dnslet(&["doctor", "-localipp", "::1"]);
    assert_eq!(code, Some(1));
    assert_has(&complaint, &["-localipp"]);
    // The address of a documentation network is on no node.
    let (code, report) = doctor(&["-localip", "2001:db8::53"]);
    assert_eq!(code, Some(1), "{report}");
    assert_has(&report, &["problem  address 2001:db8::53 "]);
}
