//! What a probe in the pod is told on a node that is as it should be, and on one that is not; and that clients of the
//! Service address, who had answers before the agent came, have them all the while.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::process::Command;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::lab::agent::who_answers;
use super::lab::load::Sending;
use super::lab::{self, KubeProxy, LINK_LOCAL, Lab, Load, NODE, POD1, Running, SERVICE, Start, Who, dns, listening};
use crate::support::process::Directory;
use crate::support::time;

const TEST: &str = "node::ready";

/// `dnslet ready` with these words: whether it succeeds, and its line.
fn ready(words: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dnslet"));
    let output = NODE.run(|| command.arg("ready").args(words).output()).expect("the built binary");
    let line = String::from_utf8(output.stdout).expect("text");
    assert_eq!((line.matches('\n').count(), output.stderr.as_slice()), (1, &b""[..]), "{line}");
    (output.status.success(), line)
}

/// Waits until the line holds all of these, and returns whether that is success.
#[track_caller]
fn wait_for(agent: &mut Running, parts: &[&str]) -> bool {
    let told = time::until(&format!("{parts:?} from dnslet ready, in place of {:?}", ready(&[])), || {
        agent.check_alive();
        Some(ready(&[])).filter(|(_, line)| parts.iter().all(|part| line.contains(part)))
    });
    println!("{told:?}");
    told.0
}

/// Clients of the Service address, from before the agent is there.
fn clients() -> Sending {
    let service = dns(SERVICE[0]);
    assert_eq!(who_answers(POD1, service), Some(Who::Cluster));
    Load { rate: 500, ..Load::heavy(POD1, &[service]) }.start()
}

/// That each of their queries was answered, by the cluster's DNS; and that it is there after the agent.
#[track_caller]
fn were_left_alone(clients: Sending, mut agent: Running) {
    agent.signal(Signal::SIGTERM);
    assert!(agent.wait().success(), "{}", agent.log());
    let report = clients.stop();
    println!("clients of the Service address: {report}");
    assert!(report.lost().is_empty(), "{report}");
    assert_eq!(report.answers().into_keys().collect::<Vec<_>>(), [Who::Cluster], "{report}");
    assert_eq!(who_answers(POD1, dns(SERVICE[0])), Some(Who::Cluster));
}

#[test]
fn an_agent_says_when_it_is_ready_and_when_it_does_not_answer() {
    if !lab::entered(&format!("{TEST}::an_agent_says_when_it_is_ready_and_when_it_does_not_answer")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Nftables);
    assert_eq!(ready(&[]), (false, "not ready: no agent runs here\n".to_owned()));
    let mut agent = Start::new().flag("-pidfile", "pid").start();
    let all = "ready: 10.96.0.10, 169.254.20.10, fd00:10:96::10, fd69:254:20::10; rules nftables\n";
    assert!(wait_for(&mut agent, &[all]));
    let begun = time::now();
    for _ in 0..20 {
        ready(&[]);
    }
    println!("one `dnslet ready`: {:?} of a build that is not optimised", begun.elapsed() / 20);

    let server = agent.server();
    agent.strike(server, Signal::SIGSTOP);
    assert!(!wait_for(&mut agent, &["not ready: no answer over ", " (no answer in time)", "; nothing answers here"]));
    assert!(wait_for(&mut agent, &[all]), "another server has taken its place");

    let pidfile = fs::canonicalize(format!("/proc/{}/cwd/pid", agent.keeper())).expect("the agent serves");
    let pidfile = pidfile.to_str().expect("a path in letters");
    let mut second = Start::new().flag("-pidfile", "pid").launch();
    let both = [agent.keeper(), second.keeper()].map(|pid| format!("pid {pid}"));
    let (_, told) = time::until("the second agent", || Some(ready(&[])).filter(|(_, told)| told.contains("several")));
    assert!(both.iter().all(|pid| told.contains(pid)) && told.contains("say which with -pidfile"), "{told}");
    assert_eq!(ready(&["-pidfile", pidfile]), (true, all.to_owned()));
    agent.strike(agent.keeper(), Signal::SIGSTOP);
    let silent = (false, "not ready: the agent does not answer within 1s\n".to_owned());
    assert_eq!(ready(&["-pidfile", pidfile]), silent);
    assert_eq!(ready(&["-pidfile", pidfile, "-alive"]), silent);
    agent.strike(agent.keeper(), Signal::SIGKILL);
    agent.wait();
    assert!(wait_for(&mut second, &["ready: 10.96.0.10, 169.254.20.10"]), "the one that is left is found");
    assert!(ready(&["-pidfile", pidfile]).1.contains(&format!("names {}, and agents run as {}", both[0], both[1])));
}

#[test]
fn until_a_server_serves_the_line_says_so() {
    if !lab::entered(&format!("{TEST}::until_a_server_serves_the_line_says_so")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Nftables);
    let directory = Directory::new();
    // Whoever opens a pipe waits for the other end.
    let pipe = directory.path().join("imported");
    mkfifo(&pipe, Mode::S_IRWXU | Mode::S_IRGRP | Mode::S_IROTH).expect("a directory of our own");
    let mut agent = Start::new().edit(".:53 {", &format!("import {}\n.:53 {{", pipe.display())).launch();
    assert!(!wait_for(&mut agent, &["starting: no server serves yet\n"]));
    assert!(!ready(&["-started"]).0);
    assert_eq!(ready(&["-alive"]), (true, "starting: no server serves yet\n".to_owned()));
    agent.strike(agent.server(), Signal::SIGKILL);
    assert!(!wait_for(&mut agent, &["starting: no server serves yet; the last one ended (signal: 9 (SIGKILL))\n"]));
    fs::write(&pipe, "# empty\n").expect("the next server reads it");
    fs::remove_file(&pipe).expect("it was there");
    fs::write(&pipe, "# empty\n").expect("a directory of our own");
    assert!(wait_for(&mut agent, &["ready: 10.96.0.10"]));
    assert!(ready(&["-started"]).0);
}

#[test]
fn an_address_that_the_corefile_leaves_out_is_missed_and_one_that_the_node_cannot_have_is_not() {
    if !lab::entered(&format!(
        "{TEST}::an_address_that_the_corefile_leaves_out_is_missed_and_one_that_the_node_cannot_have_is_not"
    )) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Nftables);
    let mut agent = Start::new().edit(SERVICE[0], "").launch();
    let others = "; 169.254.20.10, fd00:10:96::10, fd69:254:20::10 answer; rules nftables\n";
    assert!(!wait_for(&mut agent, &[&format!("not ready: no server block listens at 10.96.0.10{others}")]));
    drop(agent);
    NODE.sysctl("net/ipv6/conf/all/disable_ipv6", "1");
    NODE.sysctl("net/ipv6/conf/default/disable_ipv6", "1");
    let mut agent = Start::new().launch();
    let left_out = "fd00:10:96::10, fd69:254:20::10 left out: this node has no IPv6; ";
    assert!(wait_for(&mut agent, &["ready: 10.96.0.10, 169.254.20.10; rules nftables; ", left_out]));
}

#[test]
fn a_port_in_other_hands_is_told_with_whose_they_are() {
    if !lab::entered(&format!("{TEST}::a_port_in_other_hands_is_told_with_whose_they_are")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Nftables);
    let clients = clients();
    NODE.ip(&format!("address add {} dev lo", SERVICE[0]));
    let squatter = NODE.run(|| UdpSocket::bind(dns(SERVICE[0])).expect("a free port"));
    let health = NODE.run(|| TcpListener::bind("0.0.0.0:8080").expect("a free port"));
    let mut agent = Start::new().launch();
    let held = format!("in use by {} (pid {})", program(), std::process::id());
    let others = "(bind, or the port); 169.254.20.10, fd00:10:96::10, fd69:254:20::10 answer; rules nftables";
    let parts = [
        "not ready: cannot listen on udp 10.96.0.10:53: the address is ",
        &held,
        "stop it, or listen elsewhere",
        others,
    ];
    assert!(!wait_for(&mut agent, &parts));
    assert!(agent.log().contains(&held), "{}", agent.log());
    assert!(ready(&["-started"]).0, "no reason to start it again");
    assert!(ready(&["-alive"]).0, "nor to end it");
    assert_eq!(who_answers(POD1, dns(SERVICE[1])), Some(Who::Agent));
    drop(squatter);
    let http = format!("cannot listen on tcp {}:8080: the address is {held}", LINK_LOCAL[0]);
    let parts = ["ready: 10.96.0.10, 169.254.20.10", &http];
    assert!(wait_for(&mut agent, &parts), "a second later it is served, and health is told and does not count");
    drop(health);
    time::until("health", || (!ready(&[]).1.contains("8080")).then_some(()));
    agent.signal(Signal::SIGTERM);
    assert!(agent.wait().success(), "{}", agent.log());
    let report = clients.stop();
    println!("clients of the Service address: {report}");
    assert!(report.lost().is_empty(), "{report}");
}

#[test]
fn without_net_admin_it_is_not_ready_unless_no_rules_are_wanted() {
    if !lab::entered(&format!("{TEST}::without_net_admin_it_is_not_ready_unless_no_rules_are_wanted")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Nftables);
    let drop_it = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"];
    let first = clients();
    let mut agent = Start::new().under(&drop_it).launch();
    let bare = [
        "not ready: no interface has 10.96.0.10, 169.254.20.10, fd00:10:96::10, fd69:254:20::10; ",
        "nothing answers here; ",
        "lacks CAP_NET_ADMIN: serving goes on",
    ];
    assert!(!wait_for(&mut agent, &bare), "a node that has no such address");
    were_left_alone(first, agent);

    // As after an agent that had the right.
    for (address, more) in LINK_LOCAL.into_iter().zip(["", " nodad"]) {
        NODE.ip(&format!("address add {address} dev lo{more}"));
    }
    let second = clients();
    let start =
        || Start::new().without("-localip").flag("-localip", &LINK_LOCAL.join(",")).edit(&SERVICE.join(" "), "");
    let mut agent = start().under(&drop_it).launch();
    let parts = [
        "not ready: no rules for 169.254.20.10, fd69:254:20::10; 169.254.20.10, fd69:254:20::10 answer; ",
        "No packet rules: ",
        "CAP_NET_ADMIN",
    ];
    assert!(!wait_for(&mut agent, &parts));
    assert_eq!(who_answers(POD1, dns(LINK_LOCAL[0])), Some(Who::Agent));
    were_left_alone(second, agent);

    let third = clients();
    let mut agent = start().under(&drop_it).flag("-rules", "none").launch();
    assert!(wait_for(&mut agent, &["ready: 169.254.20.10, fd69:254:20::10\n"]));
    were_left_alone(third, agent);
}

#[test]
fn without_nf_tables_it_is_not_ready_unless_no_rules_are_wanted() {
    if !lab::entered(&format!("{TEST}::without_nf_tables_it_is_not_ready_unless_no_rules_are_wanted")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Nftables);
    // As in an image that holds nothing but dnslet.
    let no_programs = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /usr/sbin && exec \"$@\"", "sh"];
    let bare = || Start::new().without_nf_tables().under(&no_programs);
    let first = clients();
    let mut agent = bare().launch();
    let parts = [
        "not ready: packets to 10.96.0.10, fd00:10:96::10 are led to another server; ",
        "no rules for 169.254.20.10, fd69:254:20::10; ",
        "No packet rules: nf_tables: ",
        "-rules none",
    ];
    assert!(!wait_for(&mut agent, &parts));
    agent.wait_for_log("No packet rules: nf_tables: ");
    time::until("rules that are missed", || agent.has_metric("dnslet_node_intercepted").then_some(()));
    assert_eq!(who_answers(POD1, dns(LINK_LOCAL[0])), Some(Who::Agent));
    were_left_alone(first, agent);

    let second = clients();
    let mut agent = bare().flag("-rules", "none").launch();
    assert!(!wait_for(
        &mut agent,
        &["packets to 10.96.0.10, fd00:10:96::10 are led to another server; 169.254.20.10, fd69:254:20::10 answer"]
    ));
    time::until("what was done to the node", || agent.has_metric("dnslet_node_actions_total").then_some(()));
    for unasked in ["dnslet_node_intercepted", "dnslet_node_fallback_endpoints", "dnslet_node_fail_open"] {
        assert!(!agent.has_metric(unasked), "{unasked}");
    }
    were_left_alone(second, agent);

    let third = clients();
    let mut agent = Start::new().without_nf_tables().launch();
    assert!(!wait_for(&mut agent, &["not ready: ", "the iptables rules that bring queries here could not be placed"]));
    were_left_alone(third, agent);
}

#[test]
fn a_service_that_is_missing_is_named_and_the_rest_is_served() {
    if !lab::entered(&format!("{TEST}::a_service_that_is_missing_is_named_and_the_rest_is_served")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Nftables);
    let clients = clients();
    let addresses = format!("{},$(KUBE_DNS_SERVICE_HOST)", LINK_LOCAL.join(","));
    let start = || Start::new().without("-localip").edit(&SERVICE.join(" "), "");
    let mut agent = start().flag("-localip", &addresses).launch();
    let parts = [
        "not ready: no address for $(KUBE_DNS_SERVICE_HOST): no Service kube-dns when this pod was started; ",
        "; 169.254.20.10, fd69:254:20::10 answer; rules nftables",
    ];
    assert!(!wait_for(&mut agent, &parts));
    let said =
        "[ERROR] -localip holds $(KUBE_DNS_SERVICE_HOST), which was not replaced: the other addresses are served";
    assert_eq!(agent.log().matches(said).count(), 1, "{}", agent.log());
    assert!(agent.log().contains("Create the Service"), "{}", agent.log());
    assert_eq!(who_answers(POD1, dns(LINK_LOCAL[0])), Some(Who::Agent));
    were_left_alone(clients, agent);

    let mut alone = start().flag("-localip", "$(KUBE_DNS_SERVICE_HOST)").launch();
    assert_eq!(alone.wait().code(), Some(1));
    let log = alone.log();
    assert!(log.contains("there is no address: -localip holds $(KUBE_DNS_SERVICE_HOST)"), "{log}");
}

#[test]
fn a_broken_corefile_ends_a_start_and_costs_nothing_later() {
    if !lab::entered(&format!("{TEST}::a_broken_corefile_ends_a_start_and_costs_nothing_later")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Nftables);
    let (right, wrong) = ("force_tcp", "force_tpc");
    let mut broken = Start::new().edit(right, wrong).launch();
    assert_eq!(broken.wait().code(), Some(1));
    let log = broken.log();
    println!("{log}");
    let tail: Vec<&str> = log.trim_end().lines().rev().take(30).collect();
    assert_eq!(tail[0], "3 errors, 0 warnings", "kubelet shows the last lines:\n{log}");
    assert!(tail.iter().any(|line| line.contains("/Corefile:11:13")), "and what is wrong where is among them:\n{log}");
    assert_eq!(who_answers(POD1, dns(SERVICE[0])), Some(Who::Cluster));

    let mut agent = Start::new().start();
    assert!(wait_for(&mut agent, &["ready: "]));
    let sending = Load::heavy(POD1, &listening()).start();
    agent.edit(right, wrong);
    agent.signal(Signal::SIGUSR1);
    assert!(wait_for(
        &mut agent,
        &["ready: 10.96.0.10", "; configuration refused: ", "Corefile:", "force_tpc", "; the one before serves on"]
    ));
    agent.edit(wrong, right);
    agent.signal(Signal::SIGUSR1);
    assert!(wait_for(&mut agent, &["fd69:254:20::10; rules nftables\n"]), "nothing is refused any more");
    let report = sending.stop();
    println!("clients beside a broken Corefile: {report}");
    assert!(report.lost().is_empty(), "{report}");
    assert_eq!(report.answers().into_keys().collect::<Vec<_>>(), [Who::Agent], "{report}");
}

/// The name of this program, as the kernel cuts it.
fn program() -> String {
    fs::read_to_string("/proc/self/comm").expect("a mounted /proc").trim().to_owned()
}
