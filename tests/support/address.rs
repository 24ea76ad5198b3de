//! Loopback addresses. Every agent and every upstream gets one of its own in 127.0.0.0/8, so ports can stay fixed and
//! tests run side by side, in one process and in several.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

/// The port that speaks DNS on a test address: unprivileged and outside the range of random source ports.
pub const DNS: u16 = 5300;
/// The port whose UDP socket marks an address as taken.
const MARK: u16 = 5299;

/// An address nobody else uses while this value lives.
pub struct Address {
    ip: Ipv4Addr,
    _mark: UdpSocket,
}

impl Address {
    pub fn fresh() -> Address {
        loop {
            let ip = Ipv4Addr::new(127, rand::random_range(64..=254), rand::random(), rand::random_range(1..=254));
            if let Ok(mark) = UdpSocket::bind((ip, MARK)) {
                return Address { ip, _mark: mark };
            }
        }
    }

    pub fn ip(&self) -> IpAddr {
        self.ip.into()
    }

    pub fn dns(&self) -> SocketAddr {
        self.port(DNS)
    }

    pub fn port(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(), port)
    }
}
