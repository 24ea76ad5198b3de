//! resolv.conf as a list of upstreams: text in, addresses or the reason why it cannot be used out.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::upstream::Address;

/// The servers that systemd-resolved asks.
pub const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
/// The servers that NetworkManager knows, whoever writes `/etc/resolv.conf`.
pub const NETWORK_MANAGER: &str = "/run/NetworkManager/resolv.conf";
/// The same where NetworkManager has a DNS server of its own, or systemd-resolved, named in that file instead.
pub const NO_STUB: &str = "/run/NetworkManager/no-stub-resolv.conf";
/// Every file that [`behind`] may lead to.
pub const BEHIND: [&str; 3] = [RESOLVED, NETWORK_MANAGER, NO_STUB];
/// How a line begins that says which of them is followed.
pub const FOLLOWS: &str = "# dnslet forwards to the servers in ";
/// What `dnslet host enable` tells systemd-resolved.
pub const DROP_IN: &str = "/etc/systemd/resolved.conf.d/dnslet.conf";
/// How the line there begins that lends it the servers of the links, for when dnslet is away.
pub const LENDS: &str = "# Of the links, for when dnslet is away:\nDNS=";
/// Where systemd-resolved listens.
const STUBS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54))];

/// Why a file gives no upstreams.
#[derive(Debug)]
pub struct ResolvConfError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: Reason,
}

/// What is wrong with a resolv.conf.
#[derive(Debug)]
pub enum Reason {
    /// It cannot be read.
    Unreadable(io::Error),
    /// It has no usable `nameserver` line.
    NoServers,
    /// It names nobody but this agent itself, at this address: queries would go in circles.
    Ourselves(SocketAddr),
    /// It names the stub of systemd-resolved, which asks this agent, and the file with the servers behind that cannot be read.
    Stub(io::Error),
}

impl fmt::Display for ResolvConfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.reason {
            Reason::Unreadable(error) => write!(f, "cannot read {path}: {error}"),
            Reason::NoServers => write!(
                f,
                "no nameservers found in {path}: forward needs at least one line `nameserver ADDRESS` there, or an \
                 address of its own"
            ),
            Reason::Ourselves(address) => write!(
                f,
                "{path} names {address}, where this agent itself listens, and nobody else: queries would go in circles. \
                 Let forward use a file with the real upstreams, or their addresses"
            ),
            Reason::Stub(error) => write!(
                f,
                "{path} names the stub of systemd-resolved, which asks this agent by {DROP_IN}, and its servers cannot be \
                 read: {RESOLVED}: {error}. Start systemd-resolved, or let forward use the addresses of the real upstreams"
            ),
        }
    }
}

impl std::error::Error for ResolvConfError {}

/// Reads `path` and returns the servers to forward to, duplicates removed, in order. `own` says which addresses are ours.
///
/// A file may be written for the programs of this machine and not for a forwarder: then the servers are those that its
/// manager keeps elsewhere ([`behind`]), and ourselves are left out where others are named too.
pub fn read(path: &Path, own: &Own) -> Result<Vec<Address>, ResolvConfError> {
    read_below(Path::new("/"), path, own)
}

/// The same where the files of managers are below `root`.
fn read_below(root: &Path, path: &Path, own: &Own) -> Result<Vec<Address>, ResolvConfError> {
    let fail = |path: &Path, reason| ResolvConfError { path: path.to_owned(), reason };
    let managed = |file: &str| text(&root.join(file.trim_start_matches('/')));
    let (mut path, mut listed) = (path, text(path).map_err(|error| fail(path, Reason::Unreadable(error)))?);
    if let Some(file) = behind(&listed) {
        match managed(file) {
            Ok(others) => (path, listed) = (Path::new(file), others),
            // It asks us in turn.
            Err(error) if file == RESOLVED && managed(DROP_IN).is_ok() => return Err(fail(path, Reason::Stub(error))),
            // The stub itself, as in a pod with the node's network, or the servers of another day: better than none.
            Err(_) => {}
        }
    }
    let mut servers = nameservers(&listed);
    if path == Path::new(RESOLVED) {
        servers = without_lent(servers, &managed(DROP_IN).unwrap_or_default(), own);
    }
    if servers.is_empty() {
        return Err(fail(path, Reason::NoServers));
    }
    let (ours, others): (Vec<_>, Vec<_>) = servers.into_iter().partition(|server| own.holds(server.socket));
    match ours.first() {
        Some(server) if others.is_empty() => Err(fail(path, Reason::Ourselves(server.socket))),
        _ => Ok(others),
    }
}

fn text(path: &Path) -> io::Result<String> {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Without the servers that systemd-resolved has from us: those of the network in which this machine was when they were
/// lent, listed before those of the network in which it is. They stay where our file names everybody: a server that a
/// link has too is listed once.
fn without_lent(servers: Vec<Address>, drop_in: &str, own: &Own) -> Vec<Address> {
    let told: Vec<Address> = drop_in.lines().filter_map(|line| line.strip_prefix("DNS=")).flat_map(addresses).collect();
    if servers.iter().all(|server| told.contains(server) || own.holds(server.socket)) {
        return servers;
    }
    let after = drop_in.split_once(LENDS).map_or("", |(_, after)| after);
    let lent: Vec<Address> = after.lines().take(1).flat_map(addresses).collect();
    servers.into_iter().filter(|server| !lent.contains(server)).collect()
}

fn addresses(line: &str) -> impl Iterator<Item = Address> {
    line.split_whitespace().filter_map(|word| Address::parse(word).ok())
}

/// The file with the real servers, where this text is for programs: systemd-resolved's, if its stub is named, which may
/// ask us in turn; or the one that `dnslet host enable` has written down.
pub fn behind(text: &str) -> Option<&'static str> {
    let stub = |server: &Address| STUBS.contains(&server.socket.ip());
    if nameservers(text).iter().any(stub) {
        return Some(RESOLVED);
    }
    let said = |file: &str| text.lines().any(|line| line.strip_prefix(FOLLOWS) == Some(file));
    BEHIND.into_iter().find(|file| said(file))
}

/// The addresses of `nameserver` lines. Everything else, lines that do not parse included, is passed over, as the C
/// library does.
pub fn nameservers(text: &str) -> Vec<Address> {
    let mut servers: Vec<Address> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let Some(Ok(address)) = words.next().map(|word| Address::parse(&to_loopback(word))) else { continue };
        if !servers.contains(&address) {
            servers.push(address);
        }
    }
    servers
}

/// `0.0.0.0` and `::` mean this host (resolv.conf(5) of some C libraries); sending there reaches the loopback.
fn to_loopback(word: &str) -> String {
    match word.parse() {
        Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => Ipv4Addr::LOCALHOST.to_string(),
        Ok(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => Ipv6Addr::LOCALHOST.to_string(),
        _ => word.to_owned(),
    }
}

/// Where this agent listens.
#[derive(Debug, Clone, Default)]
pub struct Own {
    listens: Vec<SocketAddr>,
    interfaces: Vec<IpAddr>,
}

impl Own {
    /// `listens` are the listen addresses, `interfaces` every address of this host; the second decides what a wildcard
    /// among the first covers.
    pub fn new(listens: Vec<SocketAddr>, interfaces: Vec<IpAddr>) -> Own {
        Own { listens, interfaces }
    }

    /// True if a query sent to `address` would come back to us.
    pub(super) fn holds(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        self.listens.iter().filter(|listen| listen.port() == address.port()).any(|listen| {
            let here = listen.ip().to_canonical();
            // A wildcard IPv6 socket takes IPv4 queries as well.
            let wildcard = here.is_unspecified() && (here.is_ipv6() || ip.is_ipv4());
            here == ip || (wildcard && (ip.is_loopback() || self.interfaces.contains(&ip)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        nameservers(text).iter().map(|address| address.socket.to_string()).collect()
    }

    #[test]
    fn only_nameserver_lines_count() {
        let text = "# comment\n; nameserver 9.9.9.9\nsearch corp.example\noptions ndots:5\nnameserver 10.0.0.1\r\n\
                    \tnameserver\t2001:db8::1 trailing\nnameserver\nnameserver resolver.example\nnameserver 10.0.0.1\n";
        assert_eq!(shown(text), ["10.0.0.1:53", "[2001:db8::1]:53"]);
        assert_eq!(shown("nameserver 0.0.0.0\n"), ["127.0.0.1:53"]);
        assert!(shown("").is_empty());
    }

    fn own(listens: &[&str]) -> Own {
        let interfaces = vec!["127.0.0.1".parse().unwrap(), "10.1.1.1".parse().unwrap()];
        Own::new(listens.iter().map(|text| text.parse().unwrap()).collect(), interfaces)
    }

    #[test]
    fn a_file_for_programs_leads_to_the_one_behind_it() {
        for (text, file) in [
            ("nameserver 127.0.0.53\noptions edns0\n", Some(RESOLVED)),
            ("nameserver 127.0.0.1\nnameserver 192.0.2.1\n", None),
            (
                "# dnslet forwards to the servers in /run/NetworkManager/resolv.conf\nnameserver 127.0.0.1\n",
                Some(NETWORK_MANAGER),
            ),
            ("# dnslet forwards to the servers in /etc/passwd\nnameserver 127.0.0.1\n", None),
        ] {
            assert_eq!(behind(text), file, "{text}");
        }
    }

    /// What is read of `/etc/resolv.conf` by dnslet at 127.0.0.1 on a machine with these files.
    fn read_on(name: &str, files: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let root = std::env::temp_dir().join(format!("dnslet-resolvconf-{name}-{}", std::process::id()));
        for (file, text) in files {
            let path = root.join(file.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let read = read_below(&root, &root.join("etc/resolv.conf"), &own(&["127.0.0.1:53"]));
        std::fs::remove_dir_all(&root).unwrap();
        let shown = |servers: Vec<Address>| servers.iter().map(|address| address.socket.ip().to_string()).collect();
        read.map(shown).map_err(|error| error.to_string())
    }

    #[test]
    fn servers_that_we_lent_to_systemd_resolved_are_asked_only_where_the_links_have_none() {
        let stub = ("/etc/resolv.conf", "nameserver 127.0.0.53\n");
        let told = format!("[Resolve]\nDNS=\nDNS=127.0.0.1 9.9.9.9\n{LENDS}192.0.2.1 192.0.2.2\nDomains=~.\n");
        let of_ours = "nameserver 127.0.0.1\nnameserver 9.9.9.9\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n";
        let moved = of_ours.to_owned() + "nameserver 198.51.100.1\n";
        let read = |listed: &str| read_on("lent", &[stub, (RESOLVED, listed), (DROP_IN, &told)]).unwrap();
        assert_eq!(read(&moved), ["9.9.9.9", "198.51.100.1"]);
        assert_eq!(read(of_ours), ["9.9.9.9", "192.0.2.1", "192.0.2.2"]);
        assert_eq!(
            read_on("own", &[stub, (RESOLVED, &moved)]).unwrap().len(),
            4,
            "without our file nobody is left out"
        );
    }

    #[test]
    fn a_stub_that_asks_us_is_not_asked_for_the_servers_behind_it() {
        for text in ["nameserver 127.0.0.53\n", "nameserver 127.0.0.1\nnameserver 127.0.0.53\nnameserver 192.0.2.1\n"] {
            let file = ("/etc/resolv.conf", text);
            let in_a_pod = read_on("pod", &[file]).unwrap();
            assert!(in_a_pod.contains(&"127.0.0.53".to_owned()), "{in_a_pod:?}");
            let error = read_on("stub", &[file, (DROP_IN, "[Resolve]\nDNS=127.0.0.1\n")]).unwrap_err();
            assert!(error.contains("its servers cannot be read: /run/systemd/resolve/resolv.conf: No such"), "{error}");
        }
        let follows = format!("{FOLLOWS}{NO_STUB}\nnameserver 127.0.0.1\nnameserver 192.0.2.1\n");
        let file = ("/etc/resolv.conf", follows.as_str());
        assert_eq!(read_on("gone", &[file]).unwrap(), ["192.0.2.1"]);
        assert_eq!(read_on("there", &[file, (NO_STUB, "nameserver 192.0.2.2\n")]).unwrap(), ["192.0.2.2"]);
    }

    #[test]
    fn our_own_listener_is_recognised() {
        for (listens, server, ours) in [
            (&["169.254.20.10:53"][..], "169.254.20.10:53", true),
            (&["127.0.0.1:1053"], "127.0.0.1:53", false),
            (&["127.0.0.1:53"], "127.0.0.53:53", false),
            (&["0.0.0.0:53"], "127.0.0.53:53", true),
            (&["[::]:53"], "10.1.1.1:53", true),
            (&["[::]:53"], "10.2.2.2:53", false),
            (&["0.0.0.0:53"], "[::1]:53", false),
            (&["[::]:53"], "[::1]:53", true),
            (&["[::]:5353"], "127.0.0.1:53", false),
        ] {
            assert_eq!(own(listens).holds(server.parse().unwrap()), ours, "{listens:?} {server}");
        }
    }

    #[test]
    fn a_refused_file_says_why_and_what_to_do() {
        let path = std::env::temp_dir().join(format!("dnslet-resolvconf-{}", std::process::id()));
        let missing = read(&path, &own(&[])).unwrap_err().to_string();
        assert!(missing.starts_with("cannot read "), "{missing}");
        std::fs::write(&path, "search corp.example\n").unwrap();
        let empty = read(&path, &own(&[])).unwrap_err().to_string();
        assert!(empty.starts_with("no nameservers found in "), "{empty}");
        std::fs::write(&path, "nameserver 127.0.0.1\n").unwrap();
        let circle = read(&path, &own(&["127.0.0.1:53"])).unwrap_err().to_string();
        assert!(circle.contains("names 127.0.0.1:53, where this agent itself listens"), "{circle}");
        assert_eq!(read(&path, &own(&["127.0.0.1:1053"])).unwrap().len(), 1);
        std::fs::write(&path, "nameserver 127.0.0.1\nnameserver 192.0.2.1\n").unwrap();
        let others: Vec<SocketAddr> =
            read(&path, &own(&["127.0.0.1:53"])).unwrap().iter().map(|address| address.socket).collect();
        assert_eq!(others, ["192.0.2.1:53".parse().unwrap()], "ourselves are left out");
        std::fs::remove_file(&path).unwrap();
    }
}
