//! The image as a container on a node: runc runs it with the capabilities, mounts, arguments and limits of the DaemonSet,
//! between pods, kube-proxy and the cluster's DNS servers. Figures are printed: `-- --nocapture` shows them.

mod pod;
mod runtime;
mod seccomp;

use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::{Pid, geteuid};

use super::turn::turn;
use crate::lab::agent::{who_answers, who_answers_tcp, who_answers_within};
use crate::lab::streams::Asking;
use crate::lab::{self, KubeProxy, LINK_LOCAL, Lab, Load, NODE, POD1, POD2, SERVICE, Streams, Who, dns, kernel};
use crate::support::agent::{http_get, sum};
use crate::support::{namespace, time};
use pod::Pod;
use runtime::{Container, Node};

const TEST: &str = "deploy::container";
/// How long an answer takes that comes at all, where the next attempt is not far.
const AT_ONCE: Duration = Duration::from_millis(100);

/// Runs the test again in namespaces of its own, as the machine's own root: runc asks for it. True inside.
#[track_caller]
fn entered(test: &str) -> bool {
    let _turn = turn();
    assert!(geteuid().is_root(), "this test runs containers: run it as root");
    // A real-time class could not enter a control group.
    let first = ["nice", "-n", "-20"];
    lab::furnished(namespace::entered_with(&first, &[], test))
}

/// The addresses of the shipped manifest.
fn addresses() -> [SocketAddr; 2] {
    [LINK_LOCAL[0], SERVICE[0]].map(dns)
}

#[test]
fn the_shipped_container_serves_pods_and_the_node() {
    if !entered(&format!("{TEST}::the_shipped_container_serves_pods_and_the_node")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Iptables);
    let mut container = start(&Node::new(), &Pod::shipped(), "");
    for (from, address) in [POD1, POD2, NODE].into_iter().flat_map(|from| addresses().map(|address| (from, address))) {
        assert_eq!(who_answers(from, address), Some(Who::Agent), "{from:?} asks {address} over UDP");
        assert_eq!(who_answers_tcp(from, address), Some(Who::Agent), "{from:?} asks {address} over TCP");
    }
    for address in addresses() {
        assert!(kernel::intercepted().contains(&address.ip()), "rules for {address}");
    }
    check_rights(&mut container);
    check_memory(&container, &Pod::shipped());
    wait_until_ready(&container, &Pod::shipped());
    stop(&mut container);
    assert!(kernel::intercepts().is_empty(), "rules are left");
    for address in addresses() {
        assert_eq!(who_answers(POD1, address), Some(Who::Cluster), "a pod asks {address} when dnslet is gone");
    }
}

/// The keeper has what the manifest adds, the server nothing, and neither may gain any.
fn check_rights(container: &mut Container) {
    let (keeper, server) = (container.keeper(), container.server());
    // CAP_NET_BIND_SERVICE and CAP_NET_ADMIN are bits 10 and 12.
    for (process, capabilities) in [(keeper, "0000000000001400"), (server, "0000000000000000")] {
        for set in ["CapPrm", "CapEff"] {
            assert_eq!(status(process, set), capabilities, "{set} of {process}");
        }
        assert_eq!(status(process, "CapAmb"), "0000000000000000");
        assert_eq!(status(process, "NoNewPrivs"), "1");
        assert_eq!(status(process, "Seccomp"), "2");
    }
}

/// The cache takes a third of the pod's memory, and leaves the rest to what else there is.
fn check_memory(container: &Container, pod: &Pod) {
    let metrics =
        NODE.run(|| http_get(([127, 0, 0, 1], 9253).into(), "/metrics")).expect("the metrics endpoint is up").1;
    let (budget, limit) = (sum(&metrics, "dnslet_cache_budget_bytes", &[]), pod.memory_limit().expect("a limit"));
    println!("of {limit} bytes the cache may have {budget}, both processes use {}", container.memory());
    // In whole parts for each worker.
    assert!((0.3..=0.34).contains(&(budget / limit as f64)));
}

fn status(process: Pid, field: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).expect("the process is alive");
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.expect("a field of the kernel's").trim().to_owned()
}

#[test]
fn a_killed_container_leaves_clients_to_the_cluster() {
    if !entered(&format!("{TEST}::a_killed_container_leaves_clients_to_the_cluster")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Nftables);
    let mut container = start(&Node::new(), &Pod::shipped(), "");
    let keeper = container.keeper();
    let loads = [POD1, NODE].map(|from| Load { rate: 1500, ..Load::heavy(from, &addresses()) }.start());
    time::pass(Duration::from_millis(500));
    nix::sys::signal::kill(keeper, Signal::SIGKILL).expect("the container runs");
    let killed = time::now();
    container.wait();
    time::pass(Duration::from_secs(1));
    for (load, who) in loads.into_iter().zip(["pod", "host"]) {
        let report = load.stop();
        let open = addresses().map(|address| report.first_answer(address, Who::Cluster, killed));
        println!("{who}: {report}; the cluster answered {open:?} after the kill");
        assert!(open.iter().all(Option::is_some), "{who}: {report}");
        assert_eq!(report.lost_since(killed + Duration::from_millis(500)), 0, "{who}: {report}");
    }
}

#[test]
fn without_net_admin_pods_go_on_as_before() {
    if !entered(&format!("{TEST}::without_net_admin_pods_go_on_as_before")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Iptables);
    // Without the counters, which go on.
    let rules = || NODE.command("nft --stateless list ruleset");
    let before = rules();
    let mut container = Node::new().launch(&Pod::shipped().without_capability("NET_ADMIN"), "");
    container.wait_for_log("CAP_NET_ADMIN");
    for from in [POD1, NODE] {
        assert_eq!(who_answers(from, dns(SERVICE[0])), Some(Who::Cluster), "{from:?} asks over UDP");
        assert_eq!(who_answers_tcp(from, dns(SERVICE[0])), Some(Who::Cluster), "{from:?} asks over TCP");
    }
    let ready = container.exec(&["/dnslet", "ready"].map(str::to_owned));
    let said = String::from_utf8_lossy(&ready.stdout);
    println!("{}", said.trim());
    assert!(!ready.status.success() && said.contains("CAP_NET_ADMIN"), "{ready:?}");
    stop(&mut container);
    assert_eq!(rules(), before);
}

#[test]
fn a_surge_update_loses_nothing() {
    if !entered(&format!("{TEST}::a_surge_update_loses_nothing")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Iptables);
    let (node, pod) = (Node::new(), Pod::shipped());
    let mut old = start(&node, &pod, "");
    let datagrams = Load { rate: 10_000, clients: 12, from: POD1, servers: addresses().to_vec() }.start();
    let streams = |connections, each| Streams { from: POD1, servers: addresses().to_vec(), connections, each }.start();
    // Fifty that stay, and some that come and go.
    let streams = [streams(50, usize::MAX), streams(4, 1)];
    time::pass(Duration::from_secs(1));
    let mut new = node.launch(&pod, "");
    wait_until_ready(&new, &pod);
    stop(&mut old);
    time::pass(Duration::from_secs(1));
    let (report, answers) = (datagrams.stop(), streams.map(Asking::stop));
    println!("UDP: {report}");
    answers.iter().for_each(|answers| println!("{answers}"));
    new.check_alive();
    assert!(report.lost().is_empty() && report.refused.is_empty(), "{report}");
    assert!(!report.answers().contains_key(&Who::Cluster), "clients were never sent elsewhere: {report}");
    assert!(answers.iter().all(|answers| answers.lost.is_empty()), "{answers:?}");
    assert_eq!(kernel::intercepted().len(), addresses().len());
}

/// Waits as kubelet does: for the startup probe of the manifest, then for the readiness probe.
#[track_caller]
fn wait_until_ready(container: &Container, pod: &Pod) {
    let begun = time::now();
    for probe in pod.probes() {
        time::until(&format!("{probe:?} to succeed"), || container.exec(&probe).status.success().then_some(()));
        println!("{} {:?} after runc began", probe.join(" "), begun.elapsed());
    }
}

#[test]
fn the_flavour_with_iptables_places_rules_with_them() {
    if !entered(&format!("{TEST}::the_flavour_with_iptables_places_rules_with_them")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Iptables);
    let pod = Pod::shipped().with_arguments(&["-rules", "iptables"]);
    let mut container = start(&Node::new(), &pod, "iptables");
    let rules = NODE.command("iptables-save -t raw");
    for address in addresses() {
        assert_eq!(who_answers_tcp(POD1, address), Some(Who::Agent), "a pod asks {address} over TCP");
        assert!(rules.contains(&format!("-d {}/32", address.ip())), "{rules}");
    }
    stop(&mut container);
    for address in addresses() {
        assert_eq!(who_answers(POD1, address), Some(Who::Cluster), "a pod asks {address} when dnslet is gone");
    }
}

/// Starts the pod's container and waits until it answers a pod at every address.
#[track_caller]
fn start(node: &Node, pod: &Pod, flavour: &str) -> Container {
    let mut container = node.launch(pod, flavour);
    let begun = time::now();
    for address in addresses() {
        time::until(&format!("the container to answer at {address}"), || {
            container.check_alive();
            (who_answers_within(POD1, address, AT_ONCE) == Some(Who::Agent)).then_some(())
        });
    }
    println!("pods are answered {:?} after runc began", begun.elapsed());
    kernel::forget_flows();
    container
}

/// Ends it as kubelet does, without an error.
#[track_caller]
fn stop(container: &mut Container) {
    let keeper = container.keeper();
    nix::sys::signal::kill(keeper, Signal::SIGTERM).expect("the container runs");
    let begun = time::now();
    let status = container.wait();
    println!("ended {:?} after SIGTERM", begun.elapsed());
    assert_eq!(status.code(), Some(0), "{}", container.log());
}
