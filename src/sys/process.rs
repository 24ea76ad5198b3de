//! What the kernel knows about this process, and about who sits on a port. Everything is read from `/proc`.
#![allow(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The figures of this process at one moment. A field is `None` where `/proc` did not tell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Processor time used in user and kernel mode, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// The soft limit of open file descriptors; `None` also where there is no limit.
    pub max_fds: Option<u64>,
    /// Resident memory in bytes.
    pub resident_bytes: Option<u64>,
    /// Address space in bytes.
    pub virtual_bytes: Option<u64>,
    /// The limit of the address space in bytes; `None` also where there is no limit.
    pub virtual_max_bytes: Option<u64>,
    /// When the process started, in seconds since 1970.
    pub start_seconds: Option<f64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Bytes that IP received in this network namespace.
    pub network_received: Option<u64>,
    /// Bytes that IP sent in this network namespace.
    pub network_sent: Option<u64>,
}

/// The number of this process's pid namespace: another container with the same network has another one.
pub fn pid_namespace() -> io::Result<u64> {
    fs::metadata("/proc/self/ns/pid").map(|namespace| namespace.ino())
}

/// The transport a port is looked for in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortOf {
    /// UDP sockets that are bound.
    Udp,
    /// TCP sockets that listen.
    Tcp,
}

/// Reads the figures of this process.
pub fn figures() -> Figures {
    figures_from(&|path| fs::read_to_string(path).ok(), clock_ticks(), open_fds())
}

/// Who holds `address`, as far as this process may look: `name (pid 7)`; `another process (uid 101)` where the socket
/// is seen but not its owner (another user's, or outside our process namespace); `None` where nobody holds it.
///
/// A socket on the unspecified address holds every address of its family, and `[::]` the IPv4 ones too.
pub fn holder_of(address: SocketAddr, transport: PortOf) -> Option<String> {
    name_of_first(&sockets_at(address, transport))
}

/// As [`holder_of`], but sockets of this process do not count.
pub fn other_holder_of(address: SocketAddr, transport: PortOf) -> Option<String> {
    let mut sockets = sockets_at(address, transport);
    sockets.retain(|socket| !has_open(Path::new("/proc/self"), socket.inode));
    name_of_first(&sockets)
}

/// As [`other_holder_of`], but only sockets that are bound to this very address.
pub fn other_at(address: SocketAddr, transport: PortOf) -> Option<String> {
    name_of_first(&others_at(&tables_of(transport), address, transport, |_| true))
}

/// How many sockets of other processes, bound to this very address, are given packets from anybody: TCP sockets that listen,
/// and UDP sockets that are not connected. That is seen even where the processes are not.
pub fn sharers_of(address: SocketAddr, transport: PortOf) -> usize {
    let from_anybody = |line: &str| line.split_whitespace().nth(2).is_some_and(|remote| remote.ends_with(":0000"));
    others_at(&tables_of(transport), address, transport, from_anybody).len()
}

fn others_at(tables: &[String], address: SocketAddr, transport: PortOf, counts: impl Fn(&str) -> bool) -> Vec<Socket> {
    let lines = tables.iter().flat_map(|text| text.lines().skip(1)).filter(|line| counts(line));
    let exact = lines.filter_map(|line| bound(line, transport)).filter(|(local, _)| *local == address);
    exact.map(|(_, socket)| socket).filter(|socket| !has_open(Path::new("/proc/self"), socket.inode)).collect()
}

/// A socket that others can reach, and who has it open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listener {
    /// Where it is bound.
    pub address: SocketAddr,
    /// As what.
    pub transport: PortOf,
    /// In the words of [`holder_of`].
    pub holder: String,
}

/// Everybody who holds `port`, on whatever address, each once per address and transport; of a crowd only a part.
pub fn listeners(port: u16) -> Vec<Listener> {
    /// Processes are searched once for each socket.
    const MOST: usize = 128;
    let mut found = BTreeSet::new();
    for transport in [PortOf::Udp, PortOf::Tcp] {
        let tables = tables_of(transport);
        let bound = tables.iter().flat_map(|text| text.lines().skip(1)).filter_map(|line| bound(line, transport));
        for (address, socket) in bound.filter(|(address, _)| address.port() == port).take(MOST) {
            let holder = name_of_first(&[socket]).unwrap_or_default();
            found.insert(Listener { address, transport, holder });
        }
    }
    found.into_iter().collect()
}

/// Who has the netlink socket of this protocol (`libc::NETLINK_NETFILTER`) that the kernel knows under this number;
/// `None` where it is not seen or its owner is not.
pub fn netlink_holder(protocol: libc::c_int, number: u32) -> Option<String> {
    let table = fs::read_to_string("/proc/net/netlink").ok()?;
    owner(netlink_inode(&table, protocol, number)?)
}

fn netlink_inode(table: &str, protocol: libc::c_int, number: u32) -> Option<u64> {
    let wanted = [protocol.to_string(), number.to_string()];
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields.get(1..3)? == wanted).then(|| fields.last()?.parse().ok())?
    })
}

fn sockets_at(address: SocketAddr, transport: PortOf) -> Vec<Socket> {
    tables_of(transport).iter().flat_map(|text| holders(text, address, transport)).collect()
}

fn tables_of(transport: PortOf) -> [String; 2] {
    let tables = match transport {
        PortOf::Udp => ["/proc/net/udp", "/proc/net/udp6"],
        PortOf::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
    };
    tables.map(|path| fs::read_to_string(path).unwrap_or_default())
}

fn name_of_first(sockets: &[Socket]) -> Option<String> {
    let named = sockets.iter().find_map(|socket| owner(socket.inode));
    named.or_else(|| sockets.first().map(|socket| format!("another process (uid {})", socket.uid)))
}

fn figures_from(read: &dyn Fn(&str) -> Option<String>, ticks: f64, open_fds: Option<u64>) -> Figures {
    let stat = read("/proc/self/stat").unwrap_or_default();
    // The second field is the program's name in parentheses and may itself hold spaces and parentheses.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok());
    let status = read("/proc/self/status").unwrap_or_default();
    let limits = read("/proc/self/limits").unwrap_or_default();
    let boot = read("/proc/stat").and_then(|text| after(&text, "btime ")?.parse::<f64>().ok());
    let network = read("/proc/self/net/netstat").unwrap_or_default();
    Figures {
        cpu_seconds: field(14).zip(field(15)).map(|(user, system)| (user + system) as f64 / ticks),
        open_fds,
        max_fds: after(&limits, "Max open files").and_then(|text| text.parse().ok()),
        resident_bytes: kibibytes(&status, "VmRSS:"),
        virtual_bytes: field(23),
        virtual_max_bytes: after(&limits, "Max address space").and_then(|text| text.parse().ok()),
        start_seconds: field(22).zip(boot).map(|(start, boot)| boot + start as f64 / ticks),
        threads: field(20),
        network_received: ip_octets(&network, "InOctets"),
        network_sent: ip_octets(&network, "OutOctets"),
    }
}

/// The first word behind `label` on the line that starts with it.
fn after<'a>(text: &'a str, label: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(label))?.split_whitespace().next()
}

fn kibibytes(status: &str, label: &str) -> Option<u64> {
    after(status, label)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// A figure of the two `IpExt:` lines: names in the first, numbers in the second.
fn ip_octets(netstat: &str, name: &str) -> Option<u64> {
    let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("IpExt:"));
    let at = lines.next()?.split_whitespace().position(|column| column == name)?;
    lines.next()?.split_whitespace().nth(at)?.parse().ok()
}

fn open_fds() -> Option<u64> {
    // The descriptor that reads the directory is listed too, and is gone when the answer is used.
    fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1) as u64)
}

fn clock_ticks() -> f64 {
    // SAFETY: sysconf takes a number and returns one; it touches no memory of ours.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    if ticks > 0 { ticks as f64 } else { 100.0 }
}

#[derive(Debug, PartialEq)]
struct Socket {
    inode: u64,
    uid: u32,
}

/// The sockets of a `/proc/net` table that stand in the way of binding `address`, exact ones first.
fn holders(table: &str, address: SocketAddr, transport: PortOf) -> Vec<Socket> {
    let mut found: Vec<(bool, Socket)> = table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let (local, socket) = bound(line, transport)?;
            let blocks = local.port() == address.port() && overlap(local.ip(), address.ip());
            blocks.then_some((local != address, socket))
        })
        .collect();
    found.sort_by_key(|(inexact, _)| *inexact);
    found.into_iter().map(|(_, socket)| socket).collect()
}

/// A line of such a table, if its socket takes packets from anybody.
fn bound(line: &str, transport: PortOf) -> Option<(SocketAddr, Socket)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let listening = transport == PortOf::Udp || *fields.get(3)? == "0A";
    let (uid, inode) = (fields.get(7)?.parse().ok()?, fields.get(9)?.parse().ok()?);
    listening.then_some((local_address(fields.get(1)?)?, Socket { inode, uid }))
}

fn overlap(one: IpAddr, other: IpAddr) -> bool {
    let (one, other) = (one.to_canonical(), other.to_canonical());
    let everything = |ip: IpAddr| ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    one == other
        || everything(one)
        || everything(other)
        || (one.is_ipv4() == other.is_ipv4() && (one.is_unspecified() || other.is_unspecified()))
}

/// Reads `0100007F:0035`: each 32-bit word of the address in the machine's byte order, the port as a number.
fn local_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| u32::from_str_radix(address.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut octets = [0; 16];
            for (part, octets) in octets.chunks_exact_mut(4).enumerate() {
                octets.copy_from_slice(&word(part * 8)?);
            }
            IpAddr::V6(Ipv6Addr::from(octets))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// The process that has the socket open, among those whose descriptors we may read.
fn owner(inode: u64) -> Option<String> {
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) else { continue };
        if has_open(&process.path(), inode) {
            let program = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", program.trim()));
        }
    }
    None
}

/// Whether the process with this directory in /proc has the socket open; false if its descriptors cannot be read.
fn has_open(process: &Path, inode: u64) -> bool {
    let wanted = format!("socket:[{inode}]");
    let is_wanted = |path| fs::read_link(path).is_ok_and(|link| link.as_os_str() == wanted.as_str());
    fs::read_dir(process.join("fd")).is_ok_and(|entries| entries.flatten().any(|entry| is_wanted(entry.path())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn own_figures_are_plausible() {
        let figures = figures();
        assert!(figures.cpu_seconds.unwrap() >= 0.0);
        assert!(figures.open_fds.unwrap() >= 3);
        assert!(figures.resident_bytes.unwrap() > 100_000);
        assert!(figures.virtual_bytes >= figures.resident_bytes);
        assert!(figures.threads.unwrap() >= 1);
        assert!(figures.start_seconds.unwrap() > 1_500_000_000.0);
    }

    #[test]
    fn a_program_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 0 9 9 9 9 250 50 0 0 20 0 4 0 1000 8192 3 0";
        let read = |path: &str| match path {
            "/proc/self/stat" => Some(stat.to_owned()),
            "/proc/self/status" => Some("Name:\tx\nVmRSS:\t   12 kB\n".to_owned()),
            "/proc/self/limits" => Some("Max open files            1024     4096    files\n".to_owned()),
            "/proc/stat" => Some("cpu 1\nbtime 5000\n".to_owned()),
            "/proc/self/net/netstat" => {
                Some("TcpExt: A\nTcpExt: 1\nIpExt: InOctets OutOctets\nIpExt: 8 9\n".to_owned())
            }
            _ => None,
        };
        let figures = figures_from(&read, 100.0, Some(3));
        assert_eq!(figures.cpu_seconds, Some(3.0));
        assert_eq!(figures.threads, Some(4));
        assert_eq!(figures.start_seconds, Some(5010.0));
        assert_eq!(figures.virtual_bytes, Some(8192));
        assert_eq!(figures.resident_bytes, Some(12 * 1024));
        assert_eq!(figures.max_fds, Some(1024));
        assert_eq!(figures.virtual_max_bytes, None);
        assert_eq!((figures.network_received, figures.network_sent), (Some(8), Some(9)));
    }

    #[test]
    fn the_holder_of_a_port_is_named() {
        let me = format!("(pid {})", std::process::id());
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(holder_of(udp.local_addr().unwrap(), PortOf::Udp).unwrap().ends_with(&me));
        let tcp = TcpListener::bind("[::]:0").or_else(|_| TcpListener::bind("0.0.0.0:0")).unwrap();
        let port = tcp.local_addr().unwrap().port();
        assert!(holder_of(SocketAddr::from(([127, 0, 0, 1], port)), PortOf::Tcp).unwrap().ends_with(&me));
    }

    #[test]
    fn everybody_on_a_port_is_listed_once_with_the_address() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = udp.local_addr().unwrap();
        let tcp = TcpListener::bind(("127.0.0.2", address.port())).unwrap();
        let found = listeners(address.port());
        let me = format!("(pid {})", std::process::id());
        for (address, transport) in [(address, PortOf::Udp), (tcp.local_addr().unwrap(), PortOf::Tcp)] {
            let mine: Vec<_> =
                found.iter().filter(|one| (one.address, one.transport) == (address, transport)).collect();
            assert!(mine.len() == 1 && mine[0].holder.ends_with(&me), "{found:?}");
        }
    }

    #[test]
    fn the_holder_of_a_netlink_socket_is_named() {
        let mut socket = netlink_sys::Socket::new(libc::NETLINK_NETFILTER as isize).unwrap();
        let number = socket.bind_auto().unwrap().port_number();
        let holder = netlink_holder(libc::NETLINK_NETFILTER, number).unwrap();
        assert!(holder.ends_with(&format!("(pid {})", std::process::id())), "{holder}");
        assert_eq!(netlink_holder(libc::NETLINK_ROUTE, number), None);
    }

    #[test]
    fn only_sockets_in_the_way_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                     0: 00000000:0035 00000000:0000 0A 0:0 00:0 0 101 0 11 1 0\n\
                     1: 0100007F:0035 00000000:0000 0A 0:0 00:0 0 0 0 22 1 0\n\
                     2: 0100007F:0035 0100007F:9999 01 0:0 00:0 0 0 0 33 1 0\n\
                     3: 0200007F:0035 00000000:0000 0A 0:0 00:0 0 0 0 44 1 0\n";
        let found = holders(table, "127.0.0.1:53".parse().unwrap(), PortOf::Tcp);
        assert_eq!(found, [Socket { inode: 22, uid: 0 }, Socket { inode: 11, uid: 101 }]);
        assert!(holders(table, "127.0.0.1:54".parse().unwrap(), PortOf::Tcp).is_empty());
    }

    #[test]
    fn the_any_address_of_ipv6_is_in_the_way_of_both_families() {
        let any: IpAddr = "::".parse().unwrap();
        assert!(overlap(any, "10.0.0.1".parse().unwrap()));
        assert!(!overlap("0.0.0.0".parse().unwrap(), "fe80::1".parse().unwrap()));
        assert_eq!(
            local_address("00000000000000000000000001000000:0035").unwrap(),
            "[::1]:53".parse::<SocketAddr>().unwrap()
        );
    }
}
