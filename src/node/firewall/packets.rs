//! For tests: packets of a pod and of a program of the node, and who answers them.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::node::namespace::{Host, block_on, run};

/// The addresses of the cache: one of this node only and one of a Service, in each family.
pub(super) const CACHE: [&str; 4] = ["169.254.20.10", "10.96.0.10", "fd69:254:20::10", "fd00:96::a"];

/// Where the cluster's DNS listens.
pub(super) const CLUSTER: [&str; 4] = ["10.9.1.2:53", "10.9.1.3:53", "[fd19::2]:53", "[fd19::3]:53"];

/// Who answered each of the addresses, over UDP and TCP.
pub(super) type Answers = Vec<String>;

/// A node that forwards between a pod and a server of the cluster's DNS, and has the addresses of the cache.
pub(super) fn network() -> (Host, Host) {
    // A router looks for neighbours only when its own link-local address is known to be unique, which takes seconds.
    run("echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad");
    let pod = Host::new("pod", &["10.9.0.2/24", "fd09::2/64"]);
    let dns = Host::new("dns", &["10.9.1.2/24", "10.9.1.3/24", "fd19::2/64", "fd19::3/64"]);
    run("ip addr add 10.9.0.1/24 dev pod && ip addr add fd09::1/64 dev pod nodad");
    run("ip addr add 10.9.1.1/24 dev dns && ip addr add fd19::1/64 dev dns nodad");
    CACHE.iter().for_each(|address| {
        run(&format!("ip addr add {address} dev lo"));
    });
    pod.run("ip route add default via 10.9.0.1 && ip -6 route add default via fd09::1");
    // The server knows the way to the pods, and none to the addresses of the cache.
    dns.run("ip route add 10.9.0.0/24 via 10.9.1.1 && ip -6 route add fd09::/64 via fd19::1");
    run("echo 1 >/proc/sys/net/ipv4/ip_forward && echo 1 >/proc/sys/net/ipv6/conf/all/forwarding");
    (pod, dns)
}

/// Answers with its name on both transports of the address, until the set is dropped.
pub(super) async fn serve(tasks: &mut JoinSet<()>, address: SocketAddr, name: &'static [u8]) {
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
pub(super) fn serve_cluster(dns: &Host) {
    let (ready, wait) = std::sync::mpsc::channel();
    dns.thread(move || {
        block_on(async {
            let mut tasks = JoinSet::new();
            for address in CLUSTER {
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
pub(super) fn ask(port: u16, mark: u32) -> Answers {
    let servers = CACHE.iter().map(|address| SocketAddr::new(address.parse().expect("an address"), port));
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
pub(super) async fn asked(pod: Option<&Host>, mark: u32) -> Answers {
    asked_at(53, pod, mark).await
}

/// As [`asked`], at another port than that of DNS.
pub(super) async fn asked_at(port: u16, pod: Option<&Host>, mark: u32) -> Answers {
    let (give, take) = oneshot::channel();
    let work = move || give.send(ask(port, mark)).expect("the test waits");
    match pod {
        Some(pod) => pod.thread(work),
        None => thread::spawn(work),
    };
    take.await.expect("the client ended well")
}

pub(super) fn everywhere(name: &str) -> Answers {
    vec![name.to_owned(); 2 * CACHE.len()]
}
