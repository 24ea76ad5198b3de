//! Pods, agents and servers in a private network: every address of 10.77.0.0/16 is on its loopback interface, and who asks
//! at one of them asks from that same address, so each pod has an agent's address of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use crate::support::process::{Directory, Process};
use crate::support::{Agent, namespace, peers};

use super::tree;

/// What the servers of the lab are asked at: the cluster's, and what is outside.
const SERVERS: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 77, 0, 10)), 53),
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 77, 0, 11)), 53),
];

/// Pods that one agent has an address for.
const PODS: u8 = 6;

/// The line that is in question; the host's domain is the last of every pod's list.
const PATH: &str = "autopath @query {\n search corp.example\n }";

/// The servers, and the files of /etc that stub resolvers read.
pub struct Lab {
    pub directory: Arc<Directory>,
    resolv: PathBuf,
    _servers: Vec<Process>,
}

/// What a pod's resolv.conf says besides the server.
#[derive(Clone, Copy, Debug)]
pub struct Pod {
    pub search: &'static str,
    pub ndots: u8,
}

/// An agent, and where its pods ask it: 10.77.NETWORK.POD.
pub struct Side {
    pub agent: Agent,
    network: u8,
}

/// How many queries an agent was asked, and how many it asked.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    pub client: f64,
    pub upstream: f64,
}

impl Lab {
    /// Builds it in the namespace of this process.
    #[track_caller]
    pub fn build(wildcard: bool) -> Lab {
        let (lab, zones) = (Lab::without_servers(), [tree::cluster(), tree::outside(wildcard)]);
        let servers = vec![peers::nsd(&SERVERS[..1], &zones), peers::knot(&SERVERS[1..], &zones[1..])];
        Lab { _servers: servers, ..lab }
    }

    /// The same for servers of the test's own.
    #[track_caller]
    pub fn without_servers() -> Lab {
        let route = Command::new("ip").args(["route", "add", "local", "10.77.0.0/16", "dev", "lo"]).status();
        assert!(route.expect("ip: apt-get install iproute2").success(), "a route to this machine");
        let directory = Directory::new();
        let resolv = directory.write("resolv.conf", "");
        namespace::mount_over(&resolv, "/etc/resolv.conf");
        namespace::mount_over(&directory.write("nsswitch.conf", "hosts: files dns\n"), "/etc/nsswitch.conf");
        namespace::mount_over(&directory.write("hosts", "127.0.0.1 localhost\n"), "/etc/hosts");
        Lab { directory, resolv, _servers: Vec::new() }
    }

    /// Makes this process, and what it starts, a pod that asks that agent.
    pub fn become_pod(&self, pod: Pod, number: u8, side: &Side) {
        let Pod { search, ndots } = pod;
        let server = side.server(number).ip();
        // Written in place: another file of that name would not be the one that is mounted.
        std::fs::write(&self.resolv, format!("nameserver {server}\nsearch {search}\noptions ndots:{ndots}\n"))
            .expect("a writable file");
    }
}

impl Side {
    /// Starts an agent that asks the lab's servers, with autopath or without.
    #[track_caller]
    pub fn start(network: u8, walks: bool) -> Side {
        Side::asking(network, walks, SERVERS)
    }

    /// The same with other servers for the cluster and for what is outside.
    #[track_caller]
    pub fn asking(network: u8, walks: bool, [cluster, outside]: [SocketAddr; 2]) -> Side {
        let plan = Agent::plan();
        let ip = plan.ip();
        let pods: Vec<String> = (1..=PODS).map(|pod| format!("10.77.{network}.{pod}")).collect();
        let common = format!("bind {}\n prometheus {ip}:9253", pods.join(" "));
        let [path, cut] = if walks { [PATH, "denial_cut cluster.local"] } else { [""; 2] };
        let corefile = format!(
            "cluster.local:53 {{\n {common}\n {path}\n cache 30 {{\n success 9984 30\n denial 9984 5\n {cut}\n }}\n \
             forward . {cluster}\n}}\n.:53 {{\n {common}\n cache 30\n forward . {outside}\n}}\n"
        );
        let mut agent = plan.corefile(&corefile).launch();
        agent.wait_until_serving(([10, 77, network, PODS], 53).into());
        Side { agent, network }
    }

    /// Where the pod of this number asks.
    pub fn server(&self, pod: u8) -> SocketAddr {
        ([10, 77, self.network, pod], 53).into()
    }

    /// What all lookups so far have cost.
    pub fn cost(&self) -> Cost {
        let metrics = self.agent.metrics();
        let sum = |name| crate::support::agent::sum(&metrics, name, &[]);
        Cost { client: sum("coredns_dns_requests_total"), upstream: sum("dnslet_upstream_queries_total") }
    }
}

impl std::ops::Sub for Cost {
    type Output = Cost;

    fn sub(self, before: Cost) -> Cost {
        Cost { client: self.client - before.client, upstream: self.upstream - before.upstream }
    }
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, more: Cost) {
        self.client += more.client;
        self.upstream += more.upstream;
    }
}
