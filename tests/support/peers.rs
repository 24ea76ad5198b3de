//! Real servers as upstreams: nsd in the part of CoreDNS, knot as the DNS outside the cluster.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use super::process::{Directory, Process};

const SOA: &str = "@ 3600 IN SOA ns host 1 3600 600 86400 10\n@ 3600 IN NS ns\n";

/// The zones of a cluster's DNS, each with the text of its file.
pub fn cluster_zones() -> [(&'static str, String); 3] {
    let six = format!("1.{}d.f 30 PTR six.shop.svc.cluster.local.\n", "0.".repeat(29));
    let services = "ns A 10.96.0.10\nkubernetes.default.svc 30 A 10.96.0.1\nweb.shop.svc 30 A 10.96.7.7\n";
    let zones = [
        ("cluster.local", services),
        ("in-addr.arpa", "ns A 10.96.0.10\n1.0.96.10 30 PTR kubernetes.default.svc.cluster.local.\n"),
        ("ip6.arpa", &six),
    ];
    zones.map(|(zone, records)| (zone, format!("$ORIGIN {zone}.\n$TTL 30\n{SOA}{records}")))
}

/// nsd with `cluster.local` and the reverse zones of a cluster.
pub fn cluster(server: SocketAddr) -> Process {
    cluster_nsd(&[server])
}

/// The same on several addresses.
pub fn cluster_nsd(servers: &[SocketAddr]) -> Process {
    nsd(servers, &cluster_zones())
}

/// nsd with these zones, each given with the text of its file, on several addresses, and without its limit on replies to
/// one client. It follows an alias from one of its zones into another.
pub fn nsd(servers: &[SocketAddr], zones: &[(&str, String)]) -> Process {
    let directory = Directory::new();
    let home = directory.path().display().to_string();
    let mut text = format!(
        "server:\n  username: \"\"\n  chroot: \"\"\n  zonesdir: \"{home}\"\n  database: \"\"\n  \
         pidfile: \"{home}/nsd.pid\"\n  xfrdfile: \"{home}/xfrd.state\"\n  xfrdir: \"{home}\"\n  zonelistfile: \"{home}/zone.list\"\n  \
         server-count: 1\n  rrl-ratelimit: 0\n  rrl-whitelist-ratelimit: 0\n"
    );
    for server in servers {
        text.push_str(&format!("  ip-address: {}@{}\n", server.ip(), server.port()));
    }
    text.push_str("remote-control:\n  control-enable: no\n");
    for (zone, records) in zones {
        directory.write(&format!("{zone}.zone"), records);
        text.push_str(&format!("zone:\n  name: {zone}\n  zonefile: {home}/{zone}.zone\n"));
    }
    let file = directory.write("nsd.conf", &text);
    let mut command = Command::new(find("nsd", "nsd"));
    command.arg("-d").arg("-c").arg(file);
    started("nsd", command, directory, servers)
}

/// knot with `example.org`, as everything outside.
pub fn outside(server: SocketAddr) -> Process {
    let mut zone =
        format!("$ORIGIN example.org.\n$TTL 300\n{SOA}ns A 192.0.2.53\nwww A 192.0.2.80\nwww AAAA 2001:db8::80\n");
    zone.push_str("alias CNAME www\nmail MX 10 www\n");
    (0..200).for_each(|number| zone.push_str(&format!("many A 198.51.100.{number}\n")));
    knot(&[server], &[("example.org", zone)])
}

/// knot with these zones, each given with the text of its file, on several addresses.
pub fn knot(servers: &[SocketAddr], zones: &[(&str, String)]) -> Process {
    let directory = Directory::new();
    let home = directory.path().display().to_string();
    let listen: Vec<String> = servers.iter().map(|server| format!("{}@{}", server.ip(), server.port())).collect();
    let mut text = format!(
        "server:\n  listen: [ {} ]\n  rundir: {home}\ndatabase:\n  storage: {home}\nlog:\n  - target: stderr\n    any: info\nzone:\n",
        listen.join(", ")
    );
    for (zone, records) in zones {
        directory.write(&format!("{zone}.zone"), records);
        text.push_str(&format!(
            "  - domain: {zone}\n    storage: {home}\n    file: {zone}.zone\n    journal-content: none\n"
        ));
    }
    let file = directory.write("knot.conf", &text);
    let mut command = Command::new(find("knotd", "knot"));
    command.arg("-c").arg(file);
    started("knotd", command, directory, servers)
}

fn started(name: &str, command: Command, directory: Arc<Directory>, servers: &[SocketAddr]) -> Process {
    let mut process = Process::start(name, command, directory);
    servers.iter().for_each(|server| process.wait_until_serving(*server));
    process
}

/// The path of a Debian daemon; they live outside an ordinary user's PATH.
fn find(program: &str, package: &str) -> String {
    let path = ["/usr/sbin", "/usr/bin", "/usr/local/sbin"].map(|directory| format!("{directory}/{program}"));
    let found = path.into_iter().find(|path| std::path::Path::new(path).exists());
    found.unwrap_or_else(|| panic!("{program} is missing: apt-get install {package}"))
}
