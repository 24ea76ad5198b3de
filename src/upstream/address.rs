//! Where an upstream is: a socket address, how it is spoken to, and for TLS the name its certificate must carry.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// How an upstream is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// Classic DNS: UDP, and TCP on the same port.
    Plain,
    /// DNS over TLS (RFC 7858), strict profile (RFC 8310).
    Tls,
}

impl Transport {
    /// The port used when an address names none: 53, or 853 for TLS (RFC 7858 section 3.1).
    pub fn default_port(self) -> u16 {
        match self {
            Transport::Plain => 53,
            Transport::Tls => 853,
        }
    }
}

/// One upstream as written in a Corefile or in a resolv.conf.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// IP address and port; a numeric zone id is in its scope id.
    pub socket: SocketAddr,
    /// The interface of a link-local address when it was given by name (`fe80::1%eth0`). The name becomes a
    /// scope id when a socket is opened, so an interface may appear or be renumbered later.
    pub zone: Option<String>,
    /// How it is spoken to.
    pub transport: Transport,
    /// The name the certificate must carry (`tls://9.9.9.9%dns.quad9.net`); `None` with classic DNS or when not given.
    pub server_name: Option<String>,
}

impl Address {
    /// Classic DNS at this socket address.
    pub fn plain(socket: SocketAddr) -> Address {
        Address { socket, zone: None, transport: Transport::Plain, server_name: None }
    }

    /// Reads `IP`, `IP:port`, `[IPv6]`, `[IPv6]:port`, each with an optional zone id (`%eth0`, `%2`), after an
    /// optional `dns://` or `tls://`. With `tls://` what follows the `%` is the certificate's name; a link-local
    /// IPv6 address may have both, zone first (`tls://fe80::1%eth0%name`).
    pub fn parse(text: &str) -> Result<Address, AddressError> {
        let (transport, rest) = match text.split_once("://") {
            None => (Transport::Plain, text),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("dns") => (Transport::Plain, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("tls") => (Transport::Tls, rest),
            Some((scheme, _)) => return Err(AddressError::Scheme(scheme.to_owned())),
        };
        let parts = Parts::split(rest).ok_or_else(|| AddressError::NotAnAddress(text.to_owned()))?;
        let port = match parts.port {
            None => transport.default_port(),
            Some(digits) => parse_port(digits).ok_or_else(|| AddressError::Port(digits.to_owned()))?,
        };
        let ip: IpAddr = parts.host.parse().map_err(|_| AddressError::NotAnAddress(text.to_owned()))?;
        let (zone, server_name) = suffixes(ip, transport, &parts.suffixes)?;
        let mut address = Address { socket: SocketAddr::new(ip, port), zone: None, transport, server_name };
        if let (Some(zone), IpAddr::V6(ip)) = (zone, ip) {
            match zone.parse::<u32>() {
                Ok(scope) => address.socket = SocketAddrV6::new(ip, port, 0, scope).into(),
                Err(_) => address.zone = Some(zone),
            }
        }
        Ok(address)
    }

    /// The value of the `to` label of the `coredns_proxy_*` metrics: `10.0.0.10:53`, `[fe80::1%eth0]:53`.
    pub fn label(&self) -> String {
        match &self.zone {
            Some(zone) => format!("[{}%{zone}]:{}", self.socket.ip(), self.socket.port()),
            None => self.socket.to_string(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.transport, &self.server_name) {
            (Transport::Plain, _) => out.write_str(&self.label()),
            (Transport::Tls, None) => write!(out, "tls://{}", self.label()),
            (Transport::Tls, Some(name)) => write!(out, "tls://{} ({name})", self.label()),
        }
    }
}

/// Why a text is not an upstream address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// Neither an IP address nor one with a port.
    NotAnAddress(String),
    /// The port is not a number from 1 to 65535.
    Port(String),
    /// The scheme is not `dns` or `tls`.
    Scheme(String),
    /// The zone id belongs to no link-local IPv6 address.
    Zone(String),
    /// The certificate name after `%` is not a host name.
    ServerName(String),
}

impl fmt::Display for AddressError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AddressError::NotAnAddress(text) => write!(out, "not an IP address: {text:?}"),
            AddressError::Port(text) => write!(out, "not a port number from 1 to 65535: {text:?}"),
            AddressError::Scheme(text) => write!(out, "unknown scheme {text:?}: an upstream is dns:// or tls://"),
            AddressError::Zone(text) => write!(out, "zone id {text:?} on an address that is not link-local IPv6"),
            AddressError::ServerName(text) => write!(out, "not a host name to check a certificate against: {text:?}"),
        }
    }
}

impl std::error::Error for AddressError {}

/// An address cut at its brackets, colons and percent signs.
struct Parts<'a> {
    host: &'a str,
    suffixes: Vec<&'a str>,
    port: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn split(text: &'a str) -> Option<Parts<'a>> {
        let (inner, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (inner, after) = rest.split_once(']')?;
                match after.strip_prefix(':') {
                    Some(port) => (inner, Some(port)),
                    // `[v6]%name:port`: the name was written outside the brackets.
                    None if after.starts_with('%') => return Parts::after_brackets(inner, after),
                    None if after.is_empty() => (inner, None),
                    None => return None,
                }
            }
            None => match text.rsplit_once(':') {
                // More than one colon before any `%` is an IPv6 address without port.
                Some((inner, port)) if !inner.split('%').next().unwrap_or_default().contains(':') => {
                    (inner, Some(port))
                }
                _ => (text, None),
            },
        };
        let mut pieces = inner.split('%');
        Some(Parts { host: pieces.next()?, suffixes: pieces.collect(), port })
    }

    fn after_brackets(inner: &'a str, after: &'a str) -> Option<Parts<'a>> {
        let (names, port) = match after.rsplit_once(':') {
            Some((names, port)) => (names, Some(port)),
            None => (after, None),
        };
        let mut pieces = inner.split('%');
        let host = pieces.next()?;
        Some(Parts { host, suffixes: pieces.chain(names.split('%').skip(1)).collect(), port })
    }
}

/// What the parts after `%` mean: the zone id, then the certificate's name.
fn suffixes(
    ip: IpAddr,
    transport: Transport,
    parts: &[&str],
) -> Result<(Option<String>, Option<String>), AddressError> {
    let mut parts = parts.iter().copied();
    let link_local = matches!(ip, IpAddr::V6(v6) if is_link_local(v6));
    let zone = if link_local { parts.next() } else { None };
    let name = if transport == Transport::Tls { parts.next() } else { None };
    if let Some(extra) = parts.next() {
        return Err(AddressError::Zone(extra.to_owned()));
    }
    if let Some(zone) = zone.filter(|zone| zone.is_empty() || zone.contains('/')) {
        return Err(AddressError::Zone(zone.to_owned()));
    }
    match name {
        Some(name) if rustls_pki_types::ServerName::try_from(name).is_err() => {
            Err(AddressError::ServerName(name.to_owned()))
        }
        _ => Ok((zone.map(str::to_owned), name.map(str::to_owned))),
    }
}

fn is_link_local(ip: Ipv6Addr) -> bool {
    ip.segments()[0] & 0xffc0 == 0xfe80
}

/// Digits only: `u16::from_str` would take a plus sign.
fn parse_port(digits: &str) -> Option<u16> {
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match Address::parse(text) {
            Ok(address) => address.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn every_way_to_write_an_address() {
        for (text, expected) in [
            ("1.1.1.1", "1.1.1.1:53"),
            ("1.1.1.1:5353", "1.1.1.1:5353"),
            ("dns://1.1.1.1", "1.1.1.1:53"),
            ("dns://1.1.1.1:54", "1.1.1.1:54"),
            ("2001:db8::1", "[2001:db8::1]:53"),
            ("[2001:db8::1]", "[2001:db8::1]:53"),
            ("[2001:db8::1]:54", "[2001:db8::1]:54"),
            ("fe80::1%eth0", "[fe80::1%eth0]:53"),
            ("fe80::1%3", "[fe80::1%3]:53"),
            ("[fe80::1%eth0]:54", "[fe80::1%eth0]:54"),
            ("tls://9.9.9.9", "tls://9.9.9.9:853"),
            ("TLS://9.9.9.9:8853", "tls://9.9.9.9:8853"),
            ("tls://9.9.9.9%dns.quad9.net", "tls://9.9.9.9:853 (dns.quad9.net)"),
            ("tls://9.9.9.9%dns.quad9.net:8853", "tls://9.9.9.9:8853 (dns.quad9.net)"),
            ("tls://2620:fe::fe%dns.quad9.net", "tls://[2620:fe::fe]:853 (dns.quad9.net)"),
            ("tls://[2620:fe::fe]:853", "tls://[2620:fe::fe]:853"),
            ("tls://[2620:fe::fe%dns.quad9.net]:8853", "tls://[2620:fe::fe]:8853 (dns.quad9.net)"),
            ("tls://[2620:fe::fe]%dns.quad9.net:8853", "tls://[2620:fe::fe]:8853 (dns.quad9.net)"),
            ("tls://fe80::1%eth0%dns.local", "tls://[fe80::1%eth0]:853 (dns.local)"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn a_numeric_zone_is_the_scope_of_the_socket_and_a_named_one_is_kept() {
        let numeric = Address::parse("fe80::1%3").unwrap();
        assert!(matches!(numeric.socket, SocketAddr::V6(v6) if v6.scope_id() == 3));
        assert_eq!(numeric.zone, None);
        assert_eq!(Address::parse("fe80::1%eth0").unwrap().zone.as_deref(), Some("eth0"));
    }

    #[test]
    fn what_is_no_address_is_named() {
        for (text, expected) in [
            ("", "not an IP address: \"\""),
            ("dns.example.org", "not an IP address: \"dns.example.org\""),
            ("/etc/resolv.conf", "not an IP address: \"/etc/resolv.conf\""),
            ("1.2.3", "not an IP address: \"1.2.3\""),
            ("[1.2.3.4", "not an IP address: \"[1.2.3.4\""),
            ("[::1]x", "not an IP address: \"[::1]x\""),
            ("1.2.3.4:", "not a port number from 1 to 65535: \"\""),
            ("1.2.3.4:0", "not a port number from 1 to 65535: \"0\""),
            ("1.2.3.4:+53", "not a port number from 1 to 65535: \"+53\""),
            ("1.2.3.4:65536", "not a port number from 1 to 65535: \"65536\""),
            ("https://1.1.1.1", "unknown scheme \"https\": an upstream is dns:// or tls://"),
            ("1.2.3.4%eth0", "zone id \"eth0\" on an address that is not link-local IPv6"),
            ("2001:db8::1%eth0", "zone id \"eth0\" on an address that is not link-local IPv6"),
            ("tls://1.2.3.4%not a name", "not a host name to check a certificate against: \"not a name\""),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }
}
