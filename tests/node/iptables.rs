//! Rules by iptables: pods are intercepted, and a death of the keeper leaves them to the cluster although its rules stay.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::lab::load::Sending;
use super::lab::{self, KubeProxy, Lab, Load, NODE, POD1, POD2, Start, Who, listening};
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
