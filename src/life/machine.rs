//! What is to be known of this machine before a configuration is compiled.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;

use crate::routes::Interface;

/// The interfaces with their addresses; none if the kernel does not tell.
pub(super) fn interfaces() -> Vec<Interface> {
    let mut interfaces: Vec<Interface> = Vec::new();
    for entry in getifaddrs().into_iter().flatten() {
        let Some(address) = entry.address.and_then(|address| {
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        }) else {
            continue;
        };
        let name = entry.interface_name;
        match interfaces.iter_mut().find(|interface| interface.name == name) {
            Some(interface) => interface.addresses.push(address),
            None => {
                let index = if_nametoindex(name.as_str()).unwrap_or(0);
                interfaces.push(Interface { name, index, addresses: vec![address] });
            }
        }
    }
    interfaces
}

/// Whether an interface has the address.
pub(super) fn has(ip: IpAddr) -> bool {
    interfaces().iter().any(|interface| interface.addresses.contains(&ip))
}

/// The address to bind for this one: a host without IPv6 still has every IPv4 address to listen on.
pub(super) fn bindable(address: SocketAddr) -> SocketAddr {
    let every_v6 = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    if every_v6 && UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_err() {
        return (Ipv4Addr::UNSPECIFIED, address.port()).into();
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_there_with_its_number() {
        let interfaces = interfaces();
        let lo = interfaces.iter().find(|interface| interface.name == "lo").expect("every test machine has lo");
        assert!(lo.index > 0 && lo.addresses.contains(&IpAddr::from([127, 0, 0, 1])), "{lo:?}");
    }
}
