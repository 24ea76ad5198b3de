//! The serve room through its sockets: a worker, a resolver, and clients that behave in every way clients do.

mod datagrams;
mod lifecycle;
mod memory;
mod streams;
mod upstream;

use self::upstream::Upstream;
use dnslet::cache::Cache;
use dnslet::dns::{Rcode, header};
use dnslet::observe::Registry;
use dnslet::resolve::{Bounds, ClientPolicy, Failures, Flights, Parts, Resolver};
use dnslet::routes;
use dnslet::serve::{Limits, Listener, Places, Setup, Worker};
use dnslet::sys::clock;
use dnslet::sys::sockopt::{self, Options};
use dnslet::upstream::{Address, Pool, Upstreams};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

/// In no zone, so refused at once.
const NOW: &str = "now";

/// Longer than any test waits for something that happens.
const PATIENCE: Duration = Duration::from_secs(20);

const IN_FLIGHT: (&str, &str) = ("dnslet_misses_in_flight", "");
const CLOSED: &str = "dnslet_tcp_connections_closed_total";
const SHED: (&str, &str) = ("dnslet_misses_shed_total", "waiting");

/// A name whose reply waits for the upstream, one for each ID.
fn held(id: u16) -> String {
    format!("h{id}.test")
}

/// A worker that forwards `test` and refuses everything else.
struct Lab {
    setup: Setup,
    worker: Option<Worker>,
    address: SocketAddr,
    upstream: Upstream,
}

/// The Corefile of a lab, with more lines in its block and more blocks.
fn resolver(address: SocketAddr, upstream: &Upstream, lines: &str, blocks: &str, registry: &Arc<Registry>) -> Resolver {
    let bind = match address.ip() {
        IpAddr::V6(ip) if ip.is_unspecified() => String::new(),
        ip => format!("bind {ip}"),
    };
    let port = address.port();
    let to = upstream.address();
    let text = format!("test:{port} {{\n {bind}\n forward . {to}\n {lines}\n}}\n{blocks}\n");
    let text = text.replace("BIND", &bind).replace("PORT", &port.to_string());
    let routes = Arc::new(routes::check_text("Corefile", &text).unwrap());
    let upstreams = Upstreams::new();
    let pool = |forward: &routes::Forward| {
        Pool::new(&forward.spec, &[Address::parse(&to.to_string()).unwrap()], &upstreams).unwrap()
    };
    let pools = routes.routes.iter().map(|route| route.forwards.iter().map(pool).collect()).collect();
    Resolver::new(Parts {
        routes,
        pools,
        cache: Cache::new(1 << 20),
        flights: Flights::new(Bounds::sharing(40_000, 20_000)),
        failures: Failures::new(1 << 16),
        walks: Arc::default(),
        registry: registry.clone(),
        clients: ClientPolicy::default(),
        query_log: None,
    })
}

/// Sockets on a port that nobody else has: the TCP one does not share, so no two labs get the same.
fn sockets(address: &str) -> Listener {
    loop {
        let tcp = TcpListener::bind(address).unwrap();
        let local = tcp.local_addr().unwrap();
        match sockopt::udp(local, &Options::default()) {
            Ok(udp) => return Listener { listen: 0, local, udp: Some(udp.socket), tcp: Some(tcp) },
            Err(e) => assert_eq!(e.errno(), Some(libc::EADDRINUSE), "{e}"),
        }
    }
}

impl Lab {
    fn start() -> Lab {
        Lab::with("127.0.0.1:0", Limits::default())
    }

    fn with(address: &str, limits: Limits) -> Lab {
        Lab::configured(address, limits, "")
    }

    fn configured(address: &str, limits: Limits, lines: &str) -> Lab {
        let (listener, upstream, registry) = (sockets(address), Upstream::start(), Registry::new(1));
        let address = listener.local;
        let resolver = resolver(address, &upstream, lines, "", &registry);
        let setup = Setup {
            resolver: Arc::new(arc_swap::ArcSwap::from_pointee(resolver)),
            places: Places::new(&limits),
            registry,
            limits,
        };
        let worker = Worker::start(0, &setup).unwrap();
        wait(worker.add(vec![listener])).unwrap();
        Lab { setup, worker: Some(worker), address, upstream }
    }

    /// Puts a configuration with these further blocks in force.
    fn reconfigure(&self, address: SocketAddr, blocks: &str) {
        let resolver = resolver(address, &self.upstream, "", blocks, &self.setup.registry);
        self.setup.resolver.store(Arc::new(resolver));
    }

    fn worker(&self) -> &Worker {
        self.worker.as_ref().unwrap()
    }

    /// Lets so many held questions go on.
    fn release(&self, n: usize) {
        self.upstream.release(n);
    }

    fn udp(&self) -> UdpSocket {
        self.udp_to(self.address.ip())
    }

    fn udp_to(&self, ip: impl Into<IpAddr>) -> UdpSocket {
        let to = SocketAddr::new(ip.into(), self.address.port());
        let from = SocketAddr::new(if to.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { to.ip() }, 0);
        let socket = UdpSocket::bind(from).unwrap();
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// The metric of this name whose labels have `label` as a value.
    fn metric(&self, (name, label): (&str, &str)) -> u64 {
        let text = self.setup.registry.render();
        let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
        let mut lines = text.lines().filter(of_name).filter(|line| line.contains(label));
        lines.next().map_or(0, |line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64)
    }

    /// Waits for a metric to become what it should be.
    fn await_metric(&self, which: (&str, &str), value: u64) {
        let end = clock::now() + PATIENCE;
        while self.metric(which) != value {
            assert!(clock::now() < end, "{which:?} is {}, not {value}", self.metric(which));
            std::thread::yield_now();
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.stop();
            worker.join().unwrap();
        }
    }
}

/// Waits for what only needs a runtime.
fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A query for `name.` A IN with this ID.
fn query(id: u16, name: &str) -> Vec<u8> {
    let mut message = vec![0; header::LENGTH];
    header::set_id(&mut message, id);
    header::set_count(&mut message, header::Count::Question, 1);
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    message
}

/// The same with EDNS and so much padding (RFC 7830) that it has `length` octets.
fn padded(id: u16, name: &str, length: usize) -> Vec<u8> {
    let mut message = query(id, name);
    header::set_count(&mut message, header::Count::Additional, 1);
    message.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0]);
    let data = (length - message.len() - 2) as u16;
    message.extend_from_slice(&data.to_be_bytes());
    message.extend_from_slice(&[0, 12]);
    message.extend_from_slice(&(data - 4).to_be_bytes());
    message.resize(length, 0);
    message
}

/// The message with its length in front.
fn framed(message: &[u8]) -> Vec<u8> {
    let mut bytes = (message.len() as u16).to_be_bytes().to_vec();
    bytes.extend_from_slice(message);
    bytes
}

/// Asks over TCP without waiting.
fn send(stream: &mut TcpStream, id: u16, name: &str) {
    stream.write_all(&framed(&query(id, name))).unwrap();
}

/// The next message of a connection; `None` at its end.
fn next(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    match stream.read(&mut length[..1]).unwrap() {
        0 => return None,
        _ => stream.read_exact(&mut length[1..]).unwrap(),
    }
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).unwrap();
    Some(message)
}

fn next_id(stream: &mut TcpStream) -> Option<u16> {
    next(stream).map(|message| header::id(&message))
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65_535];
    let length = socket.recv(&mut buffer).unwrap();
    buffer.truncate(length);
    buffer
}

fn receive_id(socket: &UdpSocket) -> u16 {
    header::id(&receive(socket))
}

/// Whether the peer has closed or reset the connection, rather than answered.
fn is_over(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0]) {
        Ok(n) => n == 0,
        Err(e) => e.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

/// A connection from an address of the test's choice.
fn tcp_from(last: u8, lab: &Lab) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, last], 0)).into()).unwrap();
    socket.connect(&lab.address.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}
