//! Words as values: durations, networks, zones, HTTP addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::dns::Name;

/// Reads a duration as Go writes it (`300ms`, `1m30s`, `1.5h`, `-2s`, a bare `0`), in nanoseconds. `None`: not one, or
/// beyond what 64 bits hold.
pub fn duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let whole = take(&mut rest, |c| c.is_ascii_digit());
        let fraction = match rest.strip_prefix('.') {
            Some(after) => {
                rest = after;
                take(&mut rest, |c| c.is_ascii_digit())
            }
            None => "",
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let unit: i128 = match take(&mut rest, |c| c != '.' && !c.is_ascii_digit()) {
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total += i128::from(whole) * unit;
        // Digits beyond the fifteenth are below a nanosecond for every unit.
        let digits = &fraction[..fraction.len().min(15)];
        if !digits.is_empty() {
            total += digits.parse::<i128>().ok()? * unit / 10_i128.pow(digits.len() as u32);
        }
        if total > i128::from(i64::MAX) {
            return None;
        }
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

fn take<'a>(text: &mut &'a str, wanted: impl Fn(char) -> bool) -> &'a str {
    let end = text.find(|c| !wanted(c)).unwrap_or(text.len());
    let (head, tail) = text.split_at(end);
    *text = tail;
    head
}

/// An address block such as `10.0.0.0/8`; the bits behind the prefix are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    length: u8,
}

impl Network {
    /// Reads `address/length`; bits behind the prefix are ignored.
    pub fn parse(text: &str) -> Option<Network> {
        let (address, length) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let length: u8 = length.parse().ok()?;
        let network = match address {
            IpAddr::V4(v4) if length <= 32 => mask4(v4, length).into(),
            IpAddr::V6(v6) if length <= 128 => mask6(v6, length).into(),
            _ => return None,
        };
        Some(Network { address: network, length })
    }

    /// Whether the block holds this address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => mask4(address, self.length) == network,
            (IpAddr::V6(network), IpAddr::V6(address)) => mask6(address, self.length) == network,
            _ => false,
        }
    }

    /// The reverse zones that cover exactly this block: one if the prefix ends between labels, else all zones of the
    /// next boundary (10.0.0.0/9: 128 zones, an IPv6 /33: 8).
    fn reverse_zones(&self) -> Vec<String> {
        let (octets, bits, suffix) = match self.address {
            IpAddr::V4(v4) => (v4.octets().to_vec(), 8, "in-addr.arpa."),
            IpAddr::V6(v6) => (v6.octets().iter().flat_map(|o| [o >> 4, o & 15]).collect(), 4, "ip6.arpa."),
        };
        let labels = usize::from(self.length).div_ceil(bits);
        let open = labels * bits - usize::from(self.length);
        (0..1_u16 << open)
            .map(|low| {
                let mut zone = String::new();
                for (at, octet) in octets[..labels].iter().enumerate().rev() {
                    let value = u16::from(*octet) + if at + 1 == labels { low } else { 0 };
                    zone.push_str(&if bits == 8 { format!("{value}.") } else { format!("{value:x}.") });
                }
                zone + suffix
            })
            .collect()
    }
}

fn mask4(address: Ipv4Addr, length: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(address.to_bits() & u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0))
}

fn mask6(address: Ipv6Addr, length: u8) -> Ipv6Addr {
    Ipv6Addr::from_bits(address.to_bits() & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0))
}

/// `[scheme://]zone[:port]` taken apart. A zone in CIDR form stands for its reverse zones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// What stands before `://`, if it is one of the schemes a key may have.
    pub scheme: Option<&'static str>,
    /// One zone, or the reverse zones of a CIDR.
    pub zones: Vec<Name>,
    /// The port after the last colon; absent without one.
    pub port: Option<u16>,
}

const SCHEMES: [&str; 7] = ["dns", "tls", "quic", "grpc", "https", "https3", "unix"];

impl Key {
    /// Takes a key of a server block, or a zone argument of a directive, apart. The error says what is wrong.
    pub fn parse(text: &str) -> Result<Key, String> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => match SCHEMES.iter().find(|known| known.eq_ignore_ascii_case(scheme)) {
                Some(known) => (Some(*known), rest),
                None => return Err(format!("`{scheme}` is not a scheme")),
            },
            None => (None, text),
        };
        let (zone, port) = split_port(rest)?;
        Ok(Key { scheme, zones: zones(zone)?, port })
    }
}

/// What follows the last colon is a port if it is a number, and part of the zone if not.
fn split_port(text: &str) -> Result<(&str, Option<u16>), String> {
    let Some((zone, digits)) = text.rsplit_once(':') else { return Ok((text, None)) };
    if digits.is_empty() {
        return Err("a port must follow the last colon".into());
    }
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok((text, None));
    }
    let number = digits.trim_start_matches('0');
    match (if number.is_empty() { "0" } else { number }).parse() {
        Ok(port) => Ok((zone, Some(port))),
        Err(_) => Err(format!("{digits} is not a port number from 0 to 65535")),
    }
}

fn zones(text: &str) -> Result<Vec<Name>, String> {
    if text.is_empty() {
        return Err("the zone is empty; the root zone is written `.`".into());
    }
    if let Some(network) = Network::parse(text) {
        if text.contains(':') && text.starts_with([':', '0']) {
            return Err(format!("{text} is not an address block that names a reverse zone"));
        }
        return network.reverse_zones().iter().map(|zone| name(zone)).collect();
    }
    Ok(vec![name(text)?])
}

/// Reads a domain name; the error says what is wrong.
pub fn name(text: &str) -> Result<Name, String> {
    if text.len() > 255 {
        return Err(format!("this name has {} characters, more than 255", text.len()));
    }
    Name::parse(text).map_err(|error| format!("`{text}` is not a domain name: {error}"))
}

/// Where an HTTP endpoint listens: `host:port`, the host an IP address, `localhost`, or nothing for all addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HttpAddress {
    /// The address to listen on. With [`HttpAddress::any`] it is unspecified IPv6, and whoever binds it serves IPv4
    /// too.
    pub socket: SocketAddr,
    /// No host was written: all addresses of both families.
    pub any: bool,
}

impl HttpAddress {
    /// Reads `host:port`; the error says what is wrong.
    pub fn parse(text: &str) -> Result<HttpAddress, String> {
        let Some((host, digits)) = text.rsplit_once(':') else {
            return Err(format!("`{text}` has no port"));
        };
        let port: u16 = match digits.parse() {
            Ok(port) if digits.bytes().all(|byte| byte.is_ascii_digit()) => port,
            _ => return Err(format!("`{digits}` is not a port number from 0 to 65535")),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let ip: IpAddr = match (host, bare) {
            ("", _) => Ipv6Addr::UNSPECIFIED.into(),
            ("localhost", _) => Ipv4Addr::LOCALHOST.into(),
            (_, Some(inner)) => match inner.parse::<Ipv6Addr>() {
                Ok(v6) => v6.into(),
                Err(_) => return Err(format!("`{inner}` is not an IPv6 address")),
            },
            _ if host.contains(':') => return Err(format!("an IPv6 address needs brackets: `[{host}]:{digits}`")),
            _ => match host.parse::<Ipv4Addr>() {
                Ok(v4) => v4.into(),
                Err(_) => return Err(format!("`{host}` is not an IP address")),
            },
        };
        Ok(HttpAddress { socket: SocketAddr::new(ip, port), any: host.is_empty() })
    }

    /// All addresses at a port: what `:8080` means.
    pub const fn any(port: u16) -> HttpAddress {
        HttpAddress { socket: SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port), any: true }
    }

    /// 127.0.0.1 at a port: what `localhost:9153` means.
    pub const fn local(port: u16) -> HttpAddress {
        HttpAddress { socket: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port), any: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, nanoseconds) in [
            ("0", Some(0)),
            ("300ms", Some(300_000_000)),
            ("1m30s", Some(90_000_000_000)),
            ("1.5h", Some(5_400_000_000_000)),
            (".5s", Some(500_000_000)),
            ("1.s", Some(1_000_000_000)),
            ("+3us", Some(3_000)),
            ("3\u{b5}s", Some(3_000)),
            ("-2s", Some(-2_000_000_000)),
            ("0.0000000000000000001h", Some(0)),
            ("5", None),
            ("", None),
            ("-", None),
            (".s", None),
            ("1d", None),
            ("1 s", None),
            ("s", None),
            ("9999999h", None),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(duration(text), nanoseconds, "{text}");
        }
    }

    fn key(text: &str) -> String {
        match Key::parse(text) {
            Ok(Key { scheme, zones, port }) => {
                let zones: Vec<_> = zones.iter().map(ToString::to_string).collect();
                format!("{} {} {port:?}", scheme.unwrap_or("-"), zones.join(","))
            }
            Err(error) => error,
        }
    }

    #[test]
    fn keys() {
        for (text, expected) in [
            (".", "- . None"),
            (".:53", "- . Some(53)"),
            ("Example.ORG:0053", "- example.org. Some(53)"),
            ("example.org.", "- example.org. None"),
            ("dns://a:1", "dns a. Some(1)"),
            ("TLS://a", "tls a. None"),
            ("a:b", "- a:b. None"),
            ("10.0.0.1", "- 10.0.0.1. None"),
            ("10.1.2.3/16:5300", "- 1.10.in-addr.arpa. Some(5300)"),
            ("10.0.0.0/32", "- 0.0.0.10.in-addr.arpa. None"),
            ("0.0.0.0/0", "- in-addr.arpa. None"),
            ("192.168.1.0/23", "- 0.168.192.in-addr.arpa.,1.168.192.in-addr.arpa. None"),
            ("2001:db8::/32", "- 8.b.d.0.1.0.0.2.ip6.arpa. None"),
            ("a:", "a port must follow the last colon"),
            (":53", "the zone is empty; the root zone is written `.`"),
            ("a:65536", "65536 is not a port number from 0 to 65535"),
            ("http://a", "`http` is not a scheme"),
            ("::1/32", "::1/32 is not an address block that names a reverse zone"),
            ("064::/16", "064::/16 is not an address block that names a reverse zone"),
            ("10.0.0.0/33", "- 10.0.0.0/33. None"),
        ] {
            assert_eq!(key(text), expected, "{text}");
        }
        assert!(key("a..b").starts_with("`a..b` is not a domain name: "));
        assert_eq!(key(&"a.".repeat(128)), "this name has 256 characters, more than 255");
    }

    #[test]
    fn blocks_between_labels_become_all_zones_of_the_next_boundary() {
        let zones = |text| Key::parse(text).unwrap().zones;
        assert_eq!(zones("10.0.0.0/9").len(), 128);
        assert_eq!(zones("10.128.0.0/9")[0].to_string(), "128.10.in-addr.arpa.");
        assert_eq!(zones("10.128.0.0/9")[127].to_string(), "255.10.in-addr.arpa.");
        assert_eq!(zones("2001:db8:8000::/33").len(), 8);
        assert_eq!(zones("2001:db8:8000::/33")[7].to_string(), "f.8.b.d.0.1.0.0.2.ip6.arpa.");
    }

    #[test]
    fn networks() {
        let network = Network::parse("10.1.2.3/8").unwrap();
        assert!(network.contains("10.255.0.1".parse().unwrap()) && !network.contains("11.0.0.1".parse().unwrap()));
        assert!(Network::parse("0.0.0.0/0").unwrap().contains("1.2.3.4".parse().unwrap()));
        assert!(!Network::parse("::/0").unwrap().contains("1.2.3.4".parse().unwrap()));
        for bad in ["10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/+8", "x/8"] {
            assert_eq!(Network::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn http_addresses() {
        let shown = |text| match HttpAddress::parse(text) {
            Ok(address) => format!("{} {}", address.socket, address.any),
            Err(error) => error,
        };
        for (text, expected) in [
            (":8080", "[::]:8080 true"),
            ("0.0.0.0:1", "0.0.0.0:1 false"),
            ("localhost:9153", "127.0.0.1:9153 false"),
            ("[fd00::1]:80", "[fd00::1]:80 false"),
            ("8080", "`8080` has no port"),
            ("fd00::1:80", "an IPv6 address needs brackets: `[fd00::1]:80`"),
            ("a.example:80", "`a.example` is not an IP address"),
            ("[x]:80", "`x` is not an IPv6 address"),
            ("1.2.3.4:http", "`http` is not a port number from 0 to 65535"),
            ("1.2.3.4:+1", "`+1` is not a port number from 0 to 65535"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }
}
