//! Rules by iptables: pods are intercepted, and a death of the keeper leaves them to the cluster although its rules stay.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::lab::agent::who_answers;
use super::lab::load::Sending;
use super::lab::{self, KubeProxy, Lab, Load, NODE, POD1, POD2, Start, Who, dns, kernel, listening};
use crate::support::time;

const TEST: &str = "node::iptables";

#[test]
fn pods_of_a_dead_agent_are_answered_by_the_cluster() {
    if !lab::entered_alone(&format!("{TEST}::pods_of_a_dead_agent_are_answered_by_the_cluster")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Iptables);
    let mut agent = Start::new().flag("-rules", "iptables").start();
    let loads = [Load::pinned(POD1, &listening()), Load::pinned(POD2, &listening())].map(Load::start);
    time::pass(Duration::from_millis(300));
    agent.signal(Signal::SIGKILL);
    let killed = time::now();
    agent.wait();
    let left = NODE.command("iptables-save -t raw");
    assert!(left.contains("--nowildcard"), "the rules are still there: {left}");
    time::pass(Duration::from_millis(500));
    let started = time::now();
    let mut agent = Start::new().flag("-rules", "iptables").launch();
    agent.wait_until_intercepting(&listening());
    time::pass(Duration::from_millis(300));
    for report in loads.map(Sending::stop) {
        println!("{report}; lost after the next start {}", report.lost_since(started));
        for server in listening() {
            let open = report.first_answer(server, Who::Cluster, killed);
            let open = open.unwrap_or_else(|| panic!("the cluster never answered at {server}: {report}"));
            println!("the cluster answered at {server} {open:?} after the kill");
            assert!(open <= Duration::from_millis(50), "{server}: {open:?}");
        }
        assert_eq!(report.lost_since(killed + Duration::from_millis(50)), 0, "{report}");
    }
    let after = NODE.command("iptables-save -t raw");
    assert_eq!(
        after.lines().filter(|line| line.contains("--dport 53")).count(),
        left.lines().filter(|line| line.contains("--dport 53")).count(),
        "no rule twice: {after}"
    );
}

#[test]
fn rules_that_others_removed_come_back_at_the_next_check() {
    if !lab::entered(&format!("{TEST}::rules_that_others_removed_come_back_at_the_next_check")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Iptables);
    let mut agent = Start::new().flag("-rules", "iptables").flag("-syncinterval", "500ms").start();
    let saved = || ["iptables-save", "ip6tables-save"].map(|save| NODE.command(&format!("{save} -t raw")));
    let rules = || saved().iter().flat_map(|text| text.lines()).filter(|line| line.starts_with("-A")).count();
    let before = rules();
    for program in ["iptables", "ip6tables"] {
        NODE.command(&format!("{program} -t raw -F"));
    }
    // Some may be back before the last ones are gone, so their number says too little.
    agent.wait_for_log("Added back rules");
    time::until("all rules", || (rules() == before).then_some(()));
    println!("{before} rules of the raw tables were removed and came back");
    for server in listening() {
        assert_eq!(who_answers(POD1, server), Some(Who::Agent), "{server}");
    }
}

/// Untracked packets are in no state that such a host lets in, so only rules that accept them help.
#[test]
fn a_host_that_denies_by_default_is_served_with_iptables_rules() {
    if !lab::entered(&format!("{TEST}::a_host_that_denies_by_default_is_served_with_iptables_rules")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Iptables);
    for (program, icmp) in [("iptables", "icmp"), ("ip6tables", "ipv6-icmp")] {
        NODE.command(&format!("{program} -A INPUT -i lo -j ACCEPT"));
        NODE.command(&format!("{program} -A INPUT -p {icmp} -j ACCEPT"));
        NODE.command(&format!("{program} -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"));
        NODE.command(&format!("{program} -P INPUT DROP"));
    }
    let mut agent = Start::new().flag("-rules", "nftables").launch();
    time::until("the intercept", || (kernel::intercepted().len() == listening().len()).then_some(()));
    assert_eq!(who_answers(POD1, dns(lab::SERVICE[0])), None, "the host drops what is not tracked");
    agent.signal(Signal::SIGKILL);
    agent.wait();
    let _agent = Start::new().flag("-rules", "iptables").start();
    for server in listening() {
        for from in [POD1, NODE] {
            assert_eq!(who_answers(from, server), Some(Who::Agent), "{from:?} asks {server}");
        }
    }
}

#[test]
fn a_node_with_links_of_calico_gets_iptables_rules() {
    if !lab::entered(&format!("{TEST}::a_node_with_links_of_calico_gets_iptables_rules")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Iptables);
    NODE.ip("link add cali0a1b2c3d4e5 type bridge");
    let mut agent = Start::new().start();
    assert!(kernel::intercepted().is_empty() && NODE.command("iptables-save -t raw").contains("169.254.20.10"));
    agent.wait_for_log("cali");
    println!("{:#?}", agent.log().lines().filter(|line| line.contains("iptables")).collect::<Vec<_>>());
}
