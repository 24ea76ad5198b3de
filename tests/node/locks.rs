//! Somebody holds the lock of xtables for longer than anyone would wait.

use std::fs::File;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::lab::agent::who_answers;
use super::lab::{self, KubeProxy, Lab, POD1, Running, Start, Who, dns, kernel, listening};
use crate::support::process::Directory;
use crate::support::time;

const TEST: &str = "node::locks";
/// How soon the agent has to have stopped.
const STOP: Duration = Duration::from_secs(5);

#[test]
fn nftables_rules_do_not_wait_for_the_lock() {
    if !lab::entered(&format!("{TEST}::nftables_rules_do_not_wait_for_the_lock")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Iptables);
    let _held = hold();
    let agent = Start::new().start();
    println!("intercepted under the lock: {:?}", kernel::intercepted());
    stops_soon(agent);
}

#[test]
fn iptables_nft_rules_do_not_wait_for_the_lock() {
    if !lab::entered(&format!("{TEST}::iptables_nft_rules_do_not_wait_for_the_lock")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Iptables);
    let _held = hold();
    let agent = Start::new().flag("-rules", "iptables").start();
    stops_soon(agent);
}

#[test]
fn legacy_iptables_rules_come_when_the_lock_is_free() {
    if !lab::entered(&format!("{TEST}::legacy_iptables_rules_come_when_the_lock_is_free")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Nftables);
    let directory = Directory::new();
    for program in ["iptables", "ip6tables"] {
        for rest in ["", "-restore", "-save"] {
            let (legacy, name) = (format!("/usr/sbin/{program}-legacy{rest}"), format!("{program}{rest}"));
            std::os::unix::fs::symlink(legacy, directory.path().join(name)).expect("an empty directory");
        }
    }
    let path = format!("PATH={}:/usr/sbin:/usr/bin:/sbin:/bin", directory.path().display());
    let start = || Start::new().under(&["env", &path]).flag("-rules", "iptables").flag("-syncinterval", "1s");

    let held = hold();
    let mut agent = start().launch();
    agent.wait_for_log("lock");
    // Without rules the Service is translated as ever, and the agent serves whoever reaches it.
    assert_eq!(who_answers(POD1, dns(lab::SERVICE[0])), Some(Who::Cluster));
    assert_eq!(who_answers(POD1, dns(lab::LINK_LOCAL[0])), Some(Who::Agent));
    drop(held);
    agent.wait_until_intercepting(&listening());
    let _held = hold();
    stops_soon(agent);
}

/// Holds the lock until the value is dropped, as `flock /run/xtables.lock` would.
fn hold() -> File {
    let lock = File::create("/run/xtables.lock").expect("a private /run");
    lock.lock().expect("a lock that is free in the end");
    lock
}

fn stops_soon(mut agent: Running) {
    let told = time::now();
    agent.strike(agent.keeper(), Signal::SIGTERM);
    let status = agent.wait();
    println!("stopped under the lock after {:?}", told.elapsed());
    assert!(status.success() && told.elapsed() < STOP, "{status}, {:?}\n{}", told.elapsed(), agent.log());
    assert_eq!(who_answers(POD1, dns(lab::SERVICE[0])), Some(Who::Cluster));
}
