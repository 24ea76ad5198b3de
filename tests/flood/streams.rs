//! Clients over TCP that make the server hold octets: messages without end, and large answers that nobody reads.

use std::io::{ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::support::upstream::framed;
use crate::support::wire::{A, NOERROR};
use crate::support::{Agent, Query, Upstream, time};

use super::load::Running;
use super::{Cgroup, MEMORY, Size, clients};

/// Connections that each attacker keeps open.
const CONNECTIONS: usize = 544;
/// An answer of some 60 KB.
const LARGE: &str = "big-3700.large.test.";

/// An agent inside the limit that has a large answer in its cache.
struct Lab {
    agent: Agent,
    _upstream: Upstream,
    group: Cgroup,
}

impl Lab {
    fn start() -> Lab {
        let (group, upstream) = (Cgroup::limited(MEMORY), Upstream::start());
        let plan = Agent::plan_inside(&group, Size::chosen().binary.as_deref());
        let agent = plan.root(&format!("cache\n forward . {}", upstream.address())).start();
        assert_eq!(agent.ask_tcp(&Query::new(LARGE, A)).answers.len(), 3700);
        Lab { agent, _upstream: upstream, group }
    }

    /// Clients that send this on every connection, and then neither read nor send; what the server closes is opened anew.
    fn attack(&self, from: &[IpAddr], sent: &[u8]) -> Running<usize> {
        let (server, from, sent) = (self.agent.dns(), from.to_vec(), sent.to_vec());
        Running::start(move |stop| {
            let mut opened = 0;
            let mut open = |which: usize| {
                opened += 1;
                connect(from[which % from.len()], server, 4096)
            };
            let mut streams: Vec<(TcpStream, usize)> =
                (0..CONNECTIONS * from.len()).map(|which| (open(which), 0)).collect();
            while !stop.load(Relaxed) {
                for (which, (stream, at)) in streams.iter_mut().enumerate() {
                    match stream.write(&sent[*at..]) {
                        Ok(n) => *at += n,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                        Err(_) => (*stream, *at) = (open(which), 0),
                    }
                    if *at == sent.len() && is_closed(stream) {
                        (*stream, *at) = (open(which), 0);
                    }
                }
                time::pass(Duration::from_millis(5));
            }
            opened
        })
    }

    /// Asks over one TCP connection, for the large answer by turns, while time passes.
    fn ask_for(&self, time: Duration) -> usize {
        let end = time::now() + time;
        let (mut asked, mut client) = (0, self.agent.tcp());
        while time::now() < end {
            for name in ["ttl300.small.test.", LARGE] {
                let reply = client.ask(&Query::new(name, A));
                assert!(reply.rcode == NOERROR && !reply.answers.is_empty(), "{name}");
                asked += 1;
            }
            time::pass(Duration::from_millis(20));
        }
        asked
    }

    fn has_stayed_inside(&self, what: &str) {
        let mib = |octets: u64| octets as f64 / f64::from(1 << 20);
        let (peak, sockets) = (self.group.peak(), self.group.peak_of_sockets());
        println!("{what}: peak {:.1} MiB, and {:.1} MiB of sockets", mib(peak), mib(sockets));
        for reason in ["slow", "unread", "memory", "pressure", "idle"] {
            let closed = self.agent.metric("dnslet_tcp_connections_closed_total", &[("reason", reason)]);
            println!("  closed, {reason}: {closed}");
        }
        assert_eq!(self.group.kills(), 0, "nothing is killed");
        assert!(peak + sockets < MEMORY, "{what}: {peak} octets and {sockets} of sockets");
    }
}

fn connect(from: IpAddr, server: SocketAddr, receive_buffer: usize) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(receive_buffer).expect("a smaller buffer");
    socket.bind(&SocketAddr::from((from, 0)).into()).expect("a loopback address");
    // Turned away at once, the next write tells.
    let connected = socket.connect(&server.into());
    let fine = connected.as_ref().err().is_none_or(|error| error.kind() == ErrorKind::ConnectionReset);
    assert!(fine, "the agent listens: {connected:?}");
    socket.set_nonblocking(true).expect("a socket");
    socket.into()
}

/// Whether the server has ended it; nothing is read of what it sent.
fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.peek(&mut [0]) {
        Ok(n) => n == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

#[test]
fn messages_without_end_cost_others_nothing() {
    let lab = Lab::start();
    let sent = [vec![0xff, 0xff], vec![0; 65_000]].concat();
    let attack = lab.attack(&clients(8, 2), &sent);
    println!("{} queries answered", lab.ask_for(Duration::from_secs(8)));
    println!("{} connections opened", attack.stop());
    lab.has_stayed_inside("halves of messages");
}

#[test]
fn answers_that_nobody_reads_cost_others_nothing() {
    let lab = Lab::start();
    let query = framed(&Query::new(LARGE, A).bytes());
    let attack = lab.attack(&clients(9, 1), &query.repeat(20));
    println!("{} queries answered", lab.ask_for(Duration::from_secs(8)));
    println!("{} connections opened", attack.stop());
    lab.has_stayed_inside("answers not read");
}
