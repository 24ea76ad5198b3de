//! Values of flags: text in, typed value or a sentence saying what would be right out.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::life::options::{LogFormat, Unset};
use crate::node::Rules;
use crate::plugins::value::{HttpAddress, Network, duration};
use crate::sys::privileges;

/// A list of addresses; its own type so that clap takes it as one value.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    /// At least one.
    pub(crate) ips: Vec<IpAddr>,
    /// What stands in place of others.
    pub(crate) unset: Vec<Unset>,
}

/// A list of networks, one value.
#[derive(Debug, Clone)]
pub(crate) struct Networks(pub(crate) Vec<Network>);

/// A listen address in Go's notation, kept as typed: it is text of the Corefile.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint(pub(crate) String);

/// A listen address or none.
#[derive(Debug, Clone)]
pub(crate) struct OptionalEndpoint(pub(crate) Option<SocketAddr>);

/// Servers with their ports.
#[derive(Debug, Clone)]
pub(crate) struct Servers(pub(crate) Vec<SocketAddr>);

/// A user and a group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct User(pub(crate) (u32, u32));

/// The words Go's flag package takes.
pub(crate) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

pub(crate) fn addresses(text: &str) -> Result<Addresses, String> {
    let (mut ips, mut unset) = (Vec::new(), Vec::new());
    for item in text.split(',').map(str::trim) {
        match (item.parse(), variable(item)) {
            (Ok(ip), _) => ips.push(ip),
            (_, Some(name)) => unset.push(Unset(name.to_owned())),
            _ if item.is_empty() => {
                return Err("\"\" is not an IP address: a comma too many, or a variable without a value".to_owned());
            }
            _ => return Err(format!("{item:?} is not an IP address")),
        }
    }
    match unset.first() {
        Some(none) if ips.is_empty() => Err(format!("there is no address: {none}")),
        _ => Ok(Addresses { ips, unset }),
    }
}

/// The name in `$(NAME)`, which Kubernetes leaves as it is where it knows no variable of that name.
fn variable(item: &str) -> Option<&str> {
    let name = item.strip_prefix("$(")?.strip_suffix(')')?;
    let is_name = |text: &str| text.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-.".contains(letter));
    (!name.is_empty() && is_name(name)).then_some(name)
}

/// Addresses with port 53 where they name none; IPv6 with a port in brackets.
pub(crate) fn servers(text: &str) -> Result<Servers, String> {
    let parse = |item: &str| {
        let bare = item.trim_start_matches('[').trim_end_matches(']').parse().map(|ip: IpAddr| (ip, 53).into());
        bare.or_else(|_| item.parse())
            .map_err(|_| format!("{item:?} is not an address such as 10.244.0.5 or [fd00::5]:53"))
    };
    text.split(',').map(|item| parse(item.trim())).collect::<Result<Vec<_>, _>>().map(Servers)
}

pub(crate) fn rules(text: &str) -> Result<Rules, String> {
    match text {
        "auto" => Ok(Rules::Auto),
        "nftables" => Ok(Rules::Nftables),
        "iptables" => Ok(Rules::Iptables),
        "none" => Ok(Rules::None),
        _ => Err("expected auto, nftables, iptables or none".to_owned()),
    }
}

pub(crate) fn user(text: &str) -> Result<User, String> {
    privileges::user(text).map(User)
}

pub(crate) fn networks(text: &str) -> Result<Networks, String> {
    text.split(',').map(|item| network(item.trim())).collect::<Result<Vec<_>, _>>().map(Networks)
}

pub(crate) fn endpoint(text: &str) -> Result<Endpoint, String> {
    listen_address(text).map(|_| Endpoint(text.to_owned()))
}

pub(crate) fn optional_endpoint(text: &str) -> Result<OptionalEndpoint, String> {
    if text.is_empty() { Ok(OptionalEndpoint(None)) } else { listen_address(text).map(|at| OptionalEndpoint(Some(at))) }
}

pub(crate) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let parsed = HttpAddress::parse(text).map(|address| address.socket);
    parsed.map_err(|reason| format!("{reason}; expected ADDRESS:PORT or :PORT, for example 127.0.0.1:9353"))
}

/// A bare address is a network of one.
fn network(text: &str) -> Result<Network, String> {
    let whole = match text.parse() {
        Ok(IpAddr::V4(_)) => format!("{text}/32"),
        Ok(IpAddr::V6(_)) => format!("{text}/128"),
        Err(_) => text.to_owned(),
    };
    Network::parse(&whole).ok_or_else(|| format!("{text:?} is not a network such as 10.0.0.0/8"))
}

pub(crate) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("expected text or json".to_owned()),
    }
}

/// Kubernetes quantities of memory: plain bytes, `Ki Mi Gi` (1024) and `k M G` (1000).
pub(crate) fn bytes(text: &str) -> Result<usize, String> {
    let expected = || "expected a number of bytes, for example 67108864, 64Mi or 64M".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit: usize = match &text[digits..] {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return Err(expected()),
    };
    let number: usize = text[..digits].parse().map_err(|_| expected())?;
    number.checked_mul(unit).filter(|bytes| *bytes > 0).ok_or_else(expected)
}

/// A number of seconds, bare or in nanoseconds (node-cache multiplies its flag by a second, so only `60ns` ever gave a
/// minute there), or any other Go duration as itself.
pub(crate) fn sync_interval(text: &str) -> Result<Duration, String> {
    let seconds = text.strip_suffix("ns").unwrap_or(text).parse().ok().map(Duration::from_secs);
    let other = || duration(text).and_then(|nanos| u64::try_from(nanos).ok()).map(Duration::from_nanos);
    match seconds.or_else(other) {
        Some(interval) if !interval.is_zero() => Ok(interval),
        _ => Err("expected a duration, for example 60, 60s or 1m".to_owned()),
    }
}

/// Seconds, or any other Go duration; at least a tenth of a second, so that looking costs little.
pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().map(Duration::from_secs);
    let other = || duration(text).and_then(|nanos| u64::try_from(nanos).ok()).map(Duration::from_nanos);
    match seconds.or_else(other) {
        Some(interval) if interval >= Duration::from_millis(100) => Ok(interval),
        _ => Err("expected a duration of at least 100ms, for example 2s".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_written_in_three_ways() {
        for text in ["60", "60s", "60ns", "1m", "0.5m30s"] {
            assert_eq!(sync_interval(text), Ok(Duration::from_secs(60)), "{text}");
        }
        assert_eq!(sync_interval("1500ms"), Ok(Duration::from_millis(1500)));
        for text in ["", "0", "-60s", "60 s", "s", "1d", "9999999999999999h"] {
            assert!(sync_interval(text).is_err(), "{text}");
        }
    }

    #[test]
    fn networks_are_ranges_or_single_addresses() {
        let Networks(nets) = networks("10.0.0.0/8, ::1").unwrap();
        let holds = |text: &str| nets.iter().any(|net| net.contains(text.parse().unwrap()));
        assert!(holds("10.9.9.9") && holds("::1") && !holds("11.0.0.1") && !holds("::2"));
        assert!(networks("10.0.0.0/33").is_err() && networks("pods").is_err());
    }

    #[test]
    fn a_variable_that_was_not_replaced_is_no_address_and_no_fault_beside_one() {
        let list = addresses("169.254.20.10, $(KUBE_DNS_SERVICE_HOST)").unwrap();
        assert_eq!(list.ips, ["169.254.20.10".parse::<IpAddr>().unwrap()]);
        assert_eq!(list.unset, [Unset("KUBE_DNS_SERVICE_HOST".to_owned())]);
        for (text, part) in [
            ("$(KUBE_DNS_SERVICE_HOST)", "there is no address: -localip holds $(KUBE_DNS_SERVICE_HOST)"),
            ("169.254.20.10,", "a comma too many"),
            ("169.254.20.10,$()", "\"$()\" is not an IP address"),
            ("169.254.20.10,$(A B)", "is not an IP address"),
        ] {
            let error = addresses(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn memory_is_written_as_in_a_manifest() {
        assert_eq!(bytes("64Mi"), Ok(64 << 20));
        assert_eq!(bytes("1500"), Ok(1500));
        assert_eq!(bytes("2G"), Ok(2_000_000_000));
        for text in ["", "Mi", "0", "64mb", "99999999999Gi", "-1"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn listen_addresses_may_leave_out_the_host() {
        assert_eq!(listen_address(":9353"), Ok("[::]:9353".parse().unwrap()));
        assert_eq!(listen_address("0.0.0.0:9353"), Ok("0.0.0.0:9353".parse().unwrap()));
        assert!(listen_address("9353").is_err());
        assert!(optional_endpoint("").unwrap().0.is_none());
    }
}
