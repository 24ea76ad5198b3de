//! A small cluster on one machine, for the demo and for the test on a real kernel. The namespace of this process is the
//! node; two pods hang on it by veth pairs, as a network plugin leaves them, and behind its uplink is another node with
//! the two servers of the cluster's DNS. Their Service IP is translated by rules like kube-proxy's:
//!
//! ```text
//!   pod 10.244.1.2 --+                                        +-- 10.0.0.53
//!                    +-- node 10.0.0.1 ------ another node ---+
//!   pod 10.244.2.2 --+   10.96.0.10 -> 10.0.0.53 or .54       +-- 10.0.0.54
//! ```
//!
//! It takes root, or a user namespace of one's own, and the programs `ip` and `nft`.

pub mod agent;
pub mod dns;
pub mod host;
pub mod lookup;
pub mod netfilter;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};
use std::time::Duration;

use dns::ClusterDns;
use host::Host;
use lookup::{Transport, Who};

/// The cache's own address, as the Kubernetes documentation gives it.
pub const LINK_LOCAL: Ipv4Addr = Ipv4Addr::new(169, 254, 20, 10);
/// Its IPv6 twin.
pub const LINK_LOCAL_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0xa9fe, 0x140a);
/// The Service IP of the cluster's DNS.
pub const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// The servers behind the Service IP.
pub const CLUSTER_DNS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 53), Ipv4Addr::new(10, 0, 0, 54)];
/// Their IPv6 addresses.
pub const CLUSTER_DNS_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd10, 0, 0, 0, 0, 0, 0, 0x53), Ipv6Addr::new(0xfd10, 0, 0, 0, 0, 0, 0, 0x54)];
/// Every address a client may ask.
pub const ASKED: [IpAddr; 3] = [IpAddr::V4(LINK_LOCAL), IpAddr::V6(LINK_LOCAL_V6), IpAddr::V4(SERVICE)];

/// A name inside the cluster.
pub const NAME: &str = "web.shop.svc.cluster.local";

pub struct Cluster {
    pub pods: [Host; 2],
    pub dns: ClusterDns,
    /// Holds the namespace of the servers.
    _other_node: Host,
}

impl Cluster {
    /// Builds it around the namespace of this process, with the cluster's DNS this far away.
    pub fn build(distance: Duration) -> io::Result<Cluster> {
        run("ip", &["link", "set", "lo", "up"], "")?;
        for family in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/net/{family}"), "1")?;
        }
        let other_node = Host::new();
        wire(&other_node, "uplink", ["10.0.0.1/24", "fd10::1/64"], ["10.0.0.53/24", "fd10::53/64"])?;
        run("ip", &["route", "add", "default", "via", "10.0.0.53"], "")?;
        run("ip", &["route", "add", "default", "via", "fd10::53"], "")?;
        other_node.run(|| add_addresses("eth0", ["10.0.0.54/24", "fd10::54/64"]))?;
        let pods = [Host::new(), Host::new()];
        for (pod, n) in pods.iter().zip(1..) {
            let node = [format!("10.244.{n}.1/24"), format!("fd24:0:0:{n}::1/64")];
            let own = [format!("10.244.{n}.2/24"), format!("fd24:0:0:{n}::2/64")];
            wire(pod, &format!("pod{n}"), node.each_ref().map(String::as_str), own.each_ref().map(String::as_str))?;
        }
        let servers: Vec<IpAddr> =
            CLUSTER_DNS.map(IpAddr::from).into_iter().chain(CLUSTER_DNS_V6.map(IpAddr::from)).collect();
        let dns = ClusterDns::start(&other_node, &servers, distance);
        let cluster = Cluster { pods, dns, _other_node: other_node };
        cluster.translate_service()?;
        Ok(cluster)
    }

    /// Places the rules that stand for kube-proxy's.
    pub fn translate_service(&self) -> io::Result<()> {
        run("nft", &["-f", "-"], &kube_proxy()).map(drop)
    }

    /// What a client sees who asks the address.
    pub fn ask(&self, client: Client, server: IpAddr, transport: Transport) -> io::Result<Who> {
        match client {
            Client::Pod(number) => self.pods[number].run(move || lookup::ask(server, NAME, transport)),
            Client::Node => lookup::ask(server, NAME, transport),
        }
    }

    /// Who answers at the address: both pods and the node ask, over UDP and over TCP. An error if anything goes
    /// unanswered.
    pub fn who_answers(&self, server: IpAddr) -> io::Result<BTreeSet<Who>> {
        let mut heard = BTreeSet::new();
        for client in [Client::Pod(0), Client::Pod(1), Client::Node] {
            for transport in [Transport::Udp, Transport::Tcp] {
                let unanswered =
                    |error| io::Error::other(format!("{client:?} asks {server} over {transport:?}: {error}"));
                heard.insert(self.ask(client, server, transport).map_err(unanswered)?);
            }
        }
        Ok(heard)
    }

    /// Whether it is always this one who answers, at every address. An error if anything goes unanswered.
    pub fn answered_by(&self, wanted: Who) -> io::Result<bool> {
        for server in ASKED {
            if self.who_answers(server)? != BTreeSet::from([wanted]) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Where a question comes from.
#[derive(Clone, Copy, Debug)]
pub enum Client {
    Pod(usize),
    /// A process in the node's own namespace.
    Node,
}

/// Joins the host to the node by a veth pair, with a default route.
fn wire(host: &Host, link: &str, node: [&str; 2], own: [&str; 2]) -> io::Result<()> {
    let namespace = host.namespace().to_string();
    run("ip", &["link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", &namespace], "")?;
    add_addresses(link, node)?;
    let own = own.map(str::to_owned);
    let gateways = node.map(|address| address.split('/').next().expect("an address").to_owned());
    host.run(move || {
        run("ip", &["link", "set", "lo", "up"], "")?;
        add_addresses("eth0", own.each_ref().map(String::as_str))?;
        gateways.iter().try_for_each(|gateway| run("ip", &["route", "add", "default", "via", gateway], "").map(drop))
    })
}

/// Gives the link an IPv4 and an IPv6 address and brings it up.
fn add_addresses(link: &str, [v4, v6]: [&str; 2]) -> io::Result<()> {
    run("ip", &["address", "add", v4, "dev", link], "")?;
    run("ip", &["address", "add", v6, "dev", link, "nodad"], "")?;
    run("ip", &["link", "set", link, "up"], "").map(drop)
}

/// What kube-proxy does for the Service, for packets of pods and of the node's own processes.
fn kube_proxy() -> String {
    let [first, second] = CLUSTER_DNS;
    let rule = format!("dnat to numgen random mod 2 map {{ 0 : {first}, 1 : {second} }}");
    let chain = |name: &str, hook: &str| {
        format!(
            "  chain {name} {{\n    type nat hook {hook} priority -100;\n    ip daddr {SERVICE} udp dport 53 {rule}\n    \
             ip daddr {SERVICE} tcp dport 53 {rule}\n  }}\n"
        )
    };
    format!("table ip services {{\n{}{}}}\n", chain("incoming", "prerouting"), chain("own", "output"))
}

/// Runs a program with this on its standard input and returns what it prints. An error says what it complained about.
pub fn run(program: &str, arguments: &[&str], input: &str) -> io::Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let missing = |error| io::Error::other(format!("cannot run {program}: {error}"));
    let mut child = command.spawn().map_err(missing)?;
    child.stdin.take().expect("piped").write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{program} {}: {}", arguments.join(" "), complaint.trim())))
}
