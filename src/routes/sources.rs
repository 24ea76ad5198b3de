//! What a Corefile means depends on the node; this is what has to be known of it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// What `life` reads before compiling.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The interfaces of this node with all their addresses.
    pub interfaces: Vec<Interface>,
    /// The port of keys that name none.
    pub default_port: u16,
}

/// One network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name, such as `eth0`.
    pub name: String,
    /// Its number, the scope of its link-local addresses.
    pub index: u32,
    /// Its addresses, IPv4 and IPv6.
    pub addresses: Vec<IpAddr>,
}

impl Default for Sources {
    fn default() -> Sources {
        Sources { interfaces: Vec::new(), default_port: 53 }
    }
}

impl Sources {
    /// Whether this node would take a packet to this address for its own.
    pub(super) fn is_local(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let own = |interface: &Interface| interface.addresses.contains(&address);
        address.is_loopback() || address.is_unspecified() || self.interfaces.iter().any(own)
    }
}

impl Interface {
    /// One of its addresses with a port; link-local ones get the scope.
    pub(super) fn socket(&self, address: IpAddr, port: u16) -> SocketAddr {
        match address {
            IpAddr::V6(v6) if is_link_local(v6) => SocketAddrV6::new(v6, port, 0, self.index).into(),
            _ => SocketAddr::new(address, port),
        }
    }
}

fn is_link_local(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}
