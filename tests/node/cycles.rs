//! Nothing grows: not the rules, over many starts and many looks at the node, and no process is started for either.

use std::process::Command;

use dnslet::node::{Action, Desired, Node, Rules};
use nix::sys::signal::Signal;

use super::lab::{self, KubeProxy, Lab, NODE, POD1, Start, Who, agent, dns, endpoints, host, kernel, listening};
use crate::support::process::Directory;
use crate::support::time;

const TEST: &str = "node::cycles";
const CYCLES: usize = 200;
const LOOKS: u32 = 10_000;

#[test]
fn two_hundred_starts_and_stops_leave_the_same_rules_and_start_no_process() {
    if !lab::entered(&format!("{TEST}::two_hundred_starts_and_stops_leave_the_same_rules_and_start_no_process")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Nftables);
    let (directory, mut running, mut left) = (Directory::new(), Vec::new(), Vec::new());
    let trace = directory.path().join("trace").display().to_string();
    let mut programs = Vec::new();
    for _ in 0..CYCLES {
        let strace = ["strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=execve,execveat", "-o", &trace];
        let mut agent = Start::new().under(&strace).launch();
        time::until("the rules", || {
            agent.check_alive();
            (kernel::intercepted().len() == listening().len()).then_some(())
        });
        running.push(kernel::rules());
        // The agent is the only child of strace.
        agent.strike(agent.server(), Signal::SIGTERM);
        assert!(agent.wait().success(), "{}", agent.log());
        left.push(kernel::rules());
        let text = std::fs::read_to_string(&trace).expect("what strace wrote");
        programs.push(text.lines().filter(|line| line.contains("exec") && line.ends_with("= 0")).count());
    }
    for counts in [&mut running, &mut left, &mut programs] {
        counts.dedup();
    }
    println!(
        "{CYCLES} starts and stops: {running:?} rules while running, {left:?} after, {programs:?} programs executed each"
    );
    assert_eq!((running.len(), left.len()), (1, 1), "the same each time");
    assert_eq!(programs, [2], "the keeper and the server, and nothing else");
    assert!(kernel::intercepts().is_empty());
    assert_eq!(agent::who_answers(POD1, dns(lab::LINK_LOCAL[0])), Some(Who::Cluster), "the fallback is what stays");
}

#[test]
fn ten_thousand_looks_at_the_node_change_nothing_and_start_no_process() {
    if !lab::entered(&format!("{TEST}::ten_thousand_looks_at_the_node_change_nothing_and_start_no_process")) {
        return;
    }
    NODE.make();
    let seen = faults_of_children();
    host::run(&mut Command::new("true"));
    assert!(faults_of_children() > seen, "a process that was started and has ended can be seen");

    let desired = Desired {
        link: Some("nodelocaldns".to_owned()),
        addresses: listening().map(|address| address.ip()).into(),
        rules: Rules::Nftables,
        dns_port: 53,
        health_port: 8080,
        fallback: endpoints().into(),
    };
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    NODE.run(move || {
        runtime().block_on(async {
            let mut node = Node::start(desired.clone()).await;
            node.intercept(desired.addresses.iter().copied().collect()).await;
            let (rules, done, seen) = (kernel::rules(), node.status().actions.clone(), faults_of_children());
            let start = time::now();
            for _ in 0..LOOKS {
                node.reconcile().await;
            }
            let each = start.elapsed() / LOOKS;
            assert_eq!(faults_of_children(), seen, "no process was started");
            println!("{LOOKS} looks, {each:?} each; {rules} rules before, {} after; {done:?}", kernel::rules());
            assert_eq!(kernel::rules(), rules);
            assert_eq!(node.status().actions, done);
            assert!(rules > 0 && done.get(&Action::Intercepted) == Some(&1), "{rules}, {done:?}");
        });
    });
}

/// Page faults of the processes that this one started and has waited for (proc(5), `cminflt`).
fn faults_of_children() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("a mounted /proc");
    let mut rest = stat.rsplit_once(')').expect("a name in brackets").1.split_whitespace();
    rest.nth(8).and_then(|word| word.parse().ok()).expect("a number")
}
