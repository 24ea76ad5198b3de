//! What the rules do to packets: a pod and a program of the node, a cluster DNS behind a kube-proxy, a host that drops
//! what it does not know.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::thread;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::super::super::PROBE_MARK;
use super::*;
use crate::node::namespace::Host;

const CACHE: [&str; 4] = ["169.254.20.10", "10.96.0.10", "fd69:254:20::10", "fd00:96::a"];

/// Who answered each of the addresses, over UDP and TCP.
type Answers = Vec<String>;

/// A node with a default-deny firewall, kube-proxy's rules for 10.96.0.10, a pod and a server of the cluster's DNS.
fn node(variant: &str) -> (Host, Host) {
    // A router looks for neighbours only when its own link-local address is known to be unique, which takes seconds.
    run("echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad");
    let pod = Host::new("pod", &["10.9.0.2/24", "fd09::2/64"]);
    let dns = Host::new("dns", &["10.9.1.2/24", "fd19::2/64"]);
    run("ip addr add 10.9.0.1/24 dev pod && ip addr add fd09::1/64 dev pod nodad");
    run("ip addr add 10.9.1.1/24 dev dns && ip addr add fd19::1/64 dev dns nodad");
    CACHE.iter().for_each(|address| {
        run(&format!("ip addr add {address} dev lo"));
    });
    pod.run("ip route add default via 10.9.0.1 && ip -6 route add default via fd09::1");
    // The server knows the way to the pods, and none to the addresses of the cache.
    dns.run("ip route add 10.9.0.0/24 via 10.9.1.1 && ip -6 route add fd09::/64 via fd19::1");
    run("echo 1 >/proc/sys/net/ipv4/ip_forward && echo 1 >/proc/sys/net/ipv6/conf/all/forwarding");
    for (family, service, server) in [("iptables", CACHE[1], "10.9.1.2"), ("ip6tables", CACHE[3], "fd19::2")] {
        for rule in [
            "-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT".to_owned(),
            "-A INPUT -i lo -j ACCEPT".to_owned(),
            "-A INPUT -p icmpv6 -j ACCEPT".to_owned(),
            "-A INPUT -j DROP".to_owned(),
            "-A OUTPUT -m conntrack --ctstate ESTABLISHED,RELATED,NEW -j ACCEPT".to_owned(),
            "-A OUTPUT -o lo -j ACCEPT".to_owned(),
            "-A OUTPUT -p icmpv6 -j ACCEPT".to_owned(),
            "-A OUTPUT -j DROP".to_owned(),
            format!("-t nat -A PREROUTING -d {service} -p udp --dport 53 -j DNAT --to-destination {server}"),
            format!("-t nat -A PREROUTING -d {service} -p tcp --dport 53 -j DNAT --to-destination {server}"),
            format!("-t nat -A OUTPUT -d {service} -p udp --dport 53 -j DNAT --to-destination {server}"),
            format!("-t nat -A OUTPUT -d {service} -p tcp --dport 53 -j DNAT --to-destination {server}"),
        ] {
            let rule = if family == "iptables" { rule.replace("icmpv6", "icmp") } else { rule };
            run(&format!("{family}{variant} {rule}"));
        }
    }
    (pod, dns)
}

/// Answers with its name on both transports of the address, until the set is dropped.
async fn serve(tasks: &mut JoinSet<()>, address: SocketAddr, name: &'static [u8]) {
    let udp = tokio::net::UdpSocket::bind(address).await.expect("the address is free");
    let tcp = tokio::net::TcpListener::bind(address).await.expect("the address is free");
    tasks.spawn(async move {
        let mut query = [0; 16];
        while let Ok((_, client)) = udp.recv_from(&mut query).await {
            let _ = udp.send_to(name, client).await;
        }
    });
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, name).await;
        }
    });
}

/// The cluster's DNS server, for as long as this process lives.
fn serve_cluster(dns: &Host) {
    let (ready, wait) = std::sync::mpsc::channel();
    dns.thread(move || {
        block_on(async {
            let mut tasks = JoinSet::new();
            for address in ["10.9.1.2:53", "[fd19::2]:53"] {
                serve(&mut tasks, address.parse().expect("an address"), b"cluster").await;
            }
            ready.send(()).expect("the test waits");
            while tasks.join_next().await.is_some() {}
        });
    });
    wait.recv().expect("it listens");
}

fn answered_by(domain: Domain, kind: Type, server: SocketAddr, mark: u32) -> std::io::Result<String> {
    let socket = Socket::new(domain, kind, None::<Protocol>)?;
    if mark != 0 {
        SockRef::from(&socket).set_mark(mark)?;
    }
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.connect_timeout(&server.into(), Duration::from_secs(2))?;
    let mut reply = [0; 16];
    let length = if kind == Type::STREAM {
        let mut stream = TcpStream::from(socket);
        stream.write_all(b"?")?;
        stream.read(&mut reply)?
    } else {
        let socket = UdpSocket::from(socket);
        socket.send(b"?")?;
        socket.recv(&mut reply)?
    };
    Ok(String::from_utf8_lossy(&reply[..length]).into_owned())
}

/// Asks every address over both transports; a refusal is an answer too.
fn ask(mark: u32) -> Answers {
    let servers = CACHE.iter().map(|address| SocketAddr::new(address.parse().expect("an address"), 53));
    servers
        .flat_map(|server| [Type::DGRAM, Type::STREAM].map(|kind| (server, kind)))
        .map(|(server, kind)| match answered_by(Domain::for_address(server), kind, server, mark) {
            Ok(name) => name,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => "refused".to_owned(),
            Err(error) => format!("{server} {kind:?}: {error}"),
        })
        .collect()
}

/// The answers a pod gets, or a program of the node.
async fn asked(pod: Option<&Host>, mark: u32) -> Answers {
    let (give, take) = oneshot::channel();
    let work = move || give.send(ask(mark)).expect("the test waits");
    match pod {
        Some(pod) => pod.thread(work),
        None => thread::spawn(work),
    };
    take.await.expect("the client ended well")
}

fn everywhere(name: &str) -> Answers {
    vec![name.to_owned(); 2 * CACHE.len()]
}

#[test]
fn packets_go_to_the_cache_while_it_listens_and_to_the_cluster_when_not() {
    private(|| block_on(packets("-nft")));
}

#[test]
fn packets_go_the_same_ways_with_legacy_iptables() {
    private(|| block_on(packets("-legacy")));
}

async fn packets(variant: &str) {
    let (pod, dns) = node(variant);
    serve_cluster(&dns);
    let base = base(&CACHE, &["10.9.1.2:53", "[fd19::2]:53"]);
    let mut iptables = Iptables::of(variant).await.expect("apt-get install iptables");

    // Nobody listens, nothing is intercepted; then somebody listens whose probes were not answered yet.
    iptables.base(&base).await.expect("a base");
    assert_eq!(asked(Some(&pod), 0).await, everywhere("cluster"));
    assert_eq!(asked(None, 0).await, everywhere("cluster"));
    let mut cache = JoinSet::new();
    for address in &base.addresses {
        serve(&mut cache, SocketAddr::new(*address, 53), b"cache").await;
    }
    assert_eq!(asked(Some(&pod), 0).await, everywhere("cluster"));
    assert_eq!(asked(None, PROBE_MARK).await, everywhere("cache"));

    // Intercepted, and no connection is tracked, although the host knows only tracked ones.
    iptables.intercept(&all(&base)).await.expect("an intercept");
    run("conntrack -F");
    assert_eq!(asked(Some(&pod), 0).await, everywhere("cache"));
    assert_eq!(asked(None, 0).await, everywhere("cache"));
    let tracked = ["udp", "tcp"].map(|protocol| {
        ["ipv4", "ipv6"].map(|family| run(&format!("conntrack -L -f {family} -p {protocol} --dport 53 2>/dev/null")))
    });
    assert_eq!(tracked.concat().concat(), "");

    // The cache dies and its rules stay: pods are back at the cluster's DNS.
    cache.shutdown().await;
    assert_eq!(asked(Some(&pod), 0).await, everywhere("cluster"));
    assert_eq!(asked(None, 0).await, everywhere("refused"));
    iptables.intercept(&BTreeSet::new()).await.expect("it goes");
    assert_eq!(asked(None, 0).await, everywhere("cluster"));
}
