//! A node and what is around it, in network namespaces of its own:
//!
//! ```text
//!   pod1 10.244.1.2 --+                    +-- dns1 10.9.1.2  nsd, the cluster's zones
//!                     +-- node ------------+-- dns2 10.9.2.2  knot, the same zones
//!   pod2 10.244.2.2 --+   kube-proxy, the  +-- out  10.9.3.2  knot, example.org
//!                         agent, the host client
//! ```
//!
//! Every address has an IPv6 twin. The node translates the Service addresses of kube-dns as kube-proxy does. The DNS
//! servers know no way back to a Service or link-local address, as on another machine: a client whose source is one must
//! be masqueraded.
//!
//! Who answered can be read from a reply: the agent is a resolver and sets RA, the servers have authority and set AA.

pub mod agent;
pub mod host;
pub mod kernel;
pub mod load;
pub mod proxy;
pub mod streams;

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::sync::{PoisonError, RwLock};

pub use agent::{Running, Start};
pub use host::Host;
pub use load::{Load, Who};
pub use proxy::KubeProxy;
pub use streams::Streams;

use crate::support::process::Process;
use crate::support::{namespace, peers};

pub const POD1: Host = Host("pod1");
pub const POD2: Host = Host("pod2");
/// The namespace of the agent; a client in it is a pod with the host's network.
pub const NODE: Host = Host("node");
pub const DNS1: Host = Host("dns1");
pub const DNS2: Host = Host("dns2");
const OUT: Host = Host("out");

/// The link-local address of the cache and its IPv6 twin.
pub const LINK_LOCAL: [&str; 2] = ["169.254.20.10", "fd69:254:20::10"];
/// The Service addresses of kube-dns.
pub const SERVICE: [&str; 2] = ["10.96.0.10", "fd00:10:96::10"];
/// The second Service of the same servers, which the agent asks.
pub const UPSTREAM_SERVICE: &str = "10.96.5.5";
/// A name of the cluster that all the servers know.
pub const NAME: &str = "web.shop.svc.cluster.local";

/// Held for reading by a test that runs beside others, for writing by one whose figures are times.
static TURN: RwLock<()> = RwLock::new(());

/// The node with everything around it but the agent.
pub struct Lab {
    pub dns1: Process,
    pub dns2: Process,
    _outside: Process,
}

/// Runs the test again in private namespaces, beside others that do not measure time. True inside.
#[track_caller]
pub fn entered(test: &str) -> bool {
    let _turn = TURN.read().unwrap_or_else(PoisonError::into_inner);
    furnished(namespace::entered_by(&[], test))
}

/// The same with the machine to itself: for a test whose figures are times. Where the user may ask for it, other work of
/// the machine gives way too.
#[track_caller]
pub fn entered_alone(test: &str) -> bool {
    let _turn = TURN.write().unwrap_or_else(PoisonError::into_inner);
    let first = ["chrt", "--rr", "1"];
    let may = Command::new(first[0]).args(&first[1..]).arg("true").status().is_ok_and(|status| status.success());
    furnished(namespace::entered_by(if may { &first } else { &[] }, test))
}

/// Readies the run inside for network namespaces by name; says on which side this is.
pub fn furnished(inside: bool) -> bool {
    if inside {
        // The names of namespaces and the lock of xtables live there.
        host::run(Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/run"]));
        std::fs::create_dir("/run/netns").expect("an empty /run");
    }
    inside
}

impl Lab {
    /// Lays the cables, translates the Service addresses in the given style and starts the servers.
    pub fn new(style: KubeProxy) -> Lab {
        NODE.make();
        for (pod, number) in [(POD1, 1), (POD2, 2)] {
            cable(pod, &format!("10.244.{number}"), &format!("fd00:244:{number}:"));
        }
        for (server, number) in [(DNS1, 1), (DNS2, 2), (OUT, 3)] {
            cable(server, &format!("10.9.{number}"), &format!("fd09:{number}:"));
            for range in ["10.96.0.0/16", "169.254.0.0/16", "fd00:10:96::/112", "fd69:254:20::/64"] {
                server.ip(&format!("route add unreachable {range}"));
            }
        }
        NODE.ip("route add default via 10.9.3.2");
        NODE.ip("route add default via fd09:3::2");
        NODE.sysctl("net/ipv4/ip_forward", "1");
        NODE.sysctl("net/ipv6/conf/all/forwarding", "1");
        style.place(NODE);
        Lab {
            dns1: DNS1.run(|| peers::cluster_nsd(&endpoints()[..2])),
            dns2: DNS2.run(|| peers::knot(&endpoints()[2..], &peers::cluster_zones())),
            _outside: OUT.run(|| peers::outside(([10, 9, 3, 2], 53).into())),
        }
    }
}

/// The cluster's DNS servers: of dns1, then of dns2, each in IPv4 and IPv6.
pub fn endpoints() -> [SocketAddr; 4] {
    ["10.9.1.2", "fd09:1::2", "10.9.2.2", "fd09:2::2"].map(dns)
}

/// Port 53 of the address.
pub fn dns(address: &str) -> SocketAddr {
    (address.parse::<IpAddr>().expect("an address"), 53).into()
}

/// Every address of the cache.
pub fn listening() -> [SocketAddr; 4] {
    [LINK_LOCAL[0], LINK_LOCAL[1], SERVICE[0], SERVICE[1]].map(dns)
}

/// Makes the host and joins it to the node: `.1` is the node's end, `.2` the host's.
fn cable(host: Host, four: &str, six: &str) {
    let (name, link) = (host.0, format!("to-{}", host.0));
    host.make();
    NODE.ip(&format!("link add {link} type veth peer name eth0 netns {name}"));
    NODE.ip(&format!("address add {four}.1/24 dev {link}"));
    NODE.ip(&format!("address add {six}:1/64 dev {link} nodad"));
    NODE.ip(&format!("link set {link} up"));
    host.ip(&format!("address add {four}.2/24 dev eth0"));
    host.ip(&format!("address add {six}:2/64 dev eth0 nodad"));
    host.ip("link set eth0 up");
    host.ip(&format!("route add default via {four}.1"));
    host.ip(&format!("route add default via {six}:1"));
}
