//! What the node should look like.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// What `life` wants of the node. Fixed by the command line, except for `fallback`, which follows the Corefile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// The interface that carries the addresses; `None` where placing them is not ours.
    pub link: Option<String>,
    /// The addresses of the cache, as `-localip` gives them.
    pub addresses: Vec<IpAddr>,
    /// How packets are kept out of connection tracking.
    pub rules: Rules,
    /// The port of DNS in the rules.
    pub dns_port: u16,
    /// The port of `/health` in the rules.
    pub health_port: u16,
    /// Where packets to a link-local address go while nobody answers there: the cluster's DNS servers.
    pub fallback: Vec<SocketAddr>,
}

/// The choice of `-rules`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rules {
    /// nf_tables where the kernel has what it takes and nothing speaks against it, else iptables.
    #[default]
    Auto,
    /// An nf_tables table that ends with the process.
    Nftables,
    /// Rules placed by `iptables-restore`.
    Iptables,
    /// No rules.
    None,
}
