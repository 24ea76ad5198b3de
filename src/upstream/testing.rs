//! Helpers for the tests of this room: messages, and an upstream on a loopback port that does as it is told.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

use super::spec::{PoolSpec, Target};
use super::{Address, Ask, Exchanged, Failure, Network, Pool, Transport, Upstreams};
use crate::dns::{Class, Protocol, Rcode, Type, header};
use crate::observe::Registry;
use crate::sys::clock;

/// A query for the address of `name`.
pub(crate) fn query(name: &str, id: u16) -> Vec<u8> {
    let mut wire = vec![0; header::LENGTH];
    header::set_id(&mut wire, id);
    wire[2] = header::RD;
    header::set_count(&mut wire, header::Count::Question, 1);
    for label in name.trim_end_matches('.').split('.') {
        wire.push(label.len() as u8);
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    wire.extend_from_slice(&Type::A.0.to_be_bytes());
    wire.extend_from_slice(&Class::IN.0.to_be_bytes());
    wire
}

/// A response to `query` without records.
pub(crate) fn answer(query: &[u8], rcode: Rcode) -> Vec<u8> {
    let mut wire = query.to_vec();
    wire[2] |= header::QR;
    wire[3] = header::RA | rcode.0 as u8;
    wire
}

/// A query that reached a [`Responder`].
pub(crate) struct Arrival<'a> {
    pub(crate) network: Network,
    /// How many came before it over UDP, or over any connection.
    pub(crate) number: usize,
    pub(crate) query: &'a [u8],
}

/// What a [`Responder`] does about it.
pub(crate) enum Act {
    Send(Vec<u8>),
    /// Sends over UDP from this address and another port.
    Stray(IpAddr, Vec<u8>),
    /// Sends octets over a connection as they are, without length.
    Raw(Vec<u8>),
    /// Does nothing for a while.
    Pause(Duration),
    /// Ends the connection.
    Close,
}

/// What has reached a [`Responder`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) datagrams: Vec<(SocketAddr, u16)>,
    /// Connection number and ID of each query.
    pub(crate) stream_queries: Vec<(usize, u16)>,
    pub(crate) connections: usize,
    pub(crate) open_connections: usize,
    pub(crate) most_connections: usize,
}

impl Seen {
    /// Whether no ID was twice on one connection. Holds for what is in flight when nothing is answered meanwhile.
    pub(crate) fn stream_ids_are_unique(&self) -> bool {
        let mut seen = HashSet::new();
        self.stream_queries.iter().all(|entry| seen.insert(*entry))
    }
}

type Handler = dyn Fn(Arrival<'_>) -> Vec<Act> + Send + Sync;

/// An upstream on a loopback port, over UDP and over TCP or TLS.
#[derive(Clone)]
pub(crate) struct Responder {
    pub(crate) socket: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    handler: Arc<Handler>,
    acceptor: Option<TlsAcceptor>,
    /// Connections end with RST.
    reset: bool,
}

impl Responder {
    /// Classic DNS.
    pub(crate) async fn start(handler: impl Fn(Arrival<'_>) -> Vec<Act> + Send + Sync + 'static) -> Responder {
        Responder::bind(None, false, handler).await
    }

    pub(crate) async fn bind(
        acceptor: Option<TlsAcceptor>,
        reset: bool,
        handler: impl Fn(Arrival<'_>) -> Vec<Act> + Send + Sync + 'static,
    ) -> Responder {
        let (listener, udp) = loop {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            // The UDP port of the same number may be in use.
            if let Ok(udp) = UdpSocket::bind(listener.local_addr().unwrap()).await {
                break (listener, udp);
            }
        };
        let socket = listener.local_addr().unwrap();
        let responder = Responder { socket, seen: Arc::default(), handler: Arc::new(handler), acceptor, reset };
        tokio::spawn(responder.clone().serve_datagrams(udp));
        tokio::spawn(responder.clone().accept(listener));
        responder
    }

    /// A series about this upstream that has a reason.
    pub(crate) fn series(&self, metric: &str, reason: &str) -> String {
        format!("{metric}{{to=\"{}\",reason=\"{reason}\"}}", self.socket)
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }

    async fn serve_datagrams(self, udp: UdpSocket) {
        let mut buffer = vec![0; 65535];
        loop {
            let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
            let query = &buffer[..length];
            let number = {
                let mut seen = self.seen.lock().unwrap();
                seen.datagrams.push((from, header::id(query)));
                seen.datagrams.len() - 1
            };
            for act in (self.handler)(Arrival { network: Network::Udp, number, query }) {
                // Whoever asked may be gone, so what became of a message is not looked at.
                match act {
                    Act::Send(message) => drop(udp.send_to(&message, from).await),
                    Act::Stray(address, message) => {
                        let stranger = UdpSocket::bind((address, 0)).await.unwrap();
                        drop(stranger.send_to(&message, from).await);
                    }
                    Act::Pause(time) => sleep(time).await,
                    Act::Raw(_) | Act::Close => {}
                }
            }
        }
    }

    async fn accept(self, listener: TcpListener) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if self.reset {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            }
            let connection = {
                let mut seen = self.seen.lock().unwrap();
                seen.connections += 1;
                seen.open_connections += 1;
                seen.most_connections = seen.most_connections.max(seen.open_connections);
                seen.connections - 1
            };
            let responder = self.clone();
            tokio::spawn(async move {
                match &responder.acceptor {
                    None => responder.serve_stream(stream, connection, Network::Tcp).await,
                    Some(acceptor) => {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            responder.serve_stream(stream, connection, Network::Tls).await;
                        }
                    }
                }
                responder.seen.lock().unwrap().open_connections -= 1;
            });
        }
    }

    async fn serve_stream(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin, connection: usize, network: Network) {
        loop {
            let Ok(length) = stream.read_u16().await else { return };
            let mut query = vec![0; usize::from(length)];
            if stream.read_exact(&mut query).await.is_err() {
                return;
            }
            let number = {
                let mut seen = self.seen.lock().unwrap();
                seen.stream_queries.push((connection, header::id(&query)));
                seen.stream_queries.len() - 1
            };
            for act in (self.handler)(Arrival { network, number, query: &query }) {
                let octets = match act {
                    Act::Send(message) => [&(message.len() as u16).to_be_bytes()[..], &message].concat(),
                    Act::Raw(octets) => octets,
                    Act::Pause(time) => {
                        sleep(time).await;
                        continue;
                    }
                    Act::Stray(..) | Act::Close => return,
                };
                if stream.write_all(&octets).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
            }
        }
    }
}

/// A handler that answers everything.
pub(crate) fn answering(arrival: Arrival<'_>) -> Vec<Act> {
    vec![Act::Send(answer(arrival.query, Rcode::NOERROR))]
}

/// A handler that answers nothing.
pub(crate) fn silent(_: Arrival<'_>) -> Vec<Act> {
    Vec::new()
}

/// A pool over these sockets, classic DNS.
pub(crate) fn pool(sockets: &[SocketAddr], upstreams: &Upstreams, change: impl FnOnce(&mut PoolSpec)) -> Arc<Pool> {
    pool_of(sockets.iter().map(|socket| Address::plain(*socket)).collect(), upstreams, change)
}

pub(crate) fn pool_of(addresses: Vec<Address>, upstreams: &Upstreams, change: impl FnOnce(&mut PoolSpec)) -> Arc<Pool> {
    let targets = addresses.iter().cloned().map(Target::Address).collect();
    let mut spec = PoolSpec { targets, ..PoolSpec::default() };
    change(&mut spec);
    Pool::new(&spec, &addresses, upstreams).unwrap()
}

pub(crate) fn tls_address(socket: SocketAddr, server_name: Option<&str>) -> Address {
    let server_name = server_name.map(str::to_owned);
    Address { socket, zone: None, transport: Transport::Tls, server_name }
}

/// Somebody waits.
pub(crate) static AWAITED: AtomicBool = AtomicBool::new(true);

/// An [`Ask`] that ends after `limit`.
pub(crate) fn asking(query: &[u8], client: Protocol, limit: Duration) -> Ask<'_> {
    let deadline = clock::now() + limit;
    Ask { query, client, budget: deadline, deadline, awaited: &AWAITED }
}

/// Asks for the address of `name`, as a UDP client, for at most `limit`.
pub(crate) async fn ask_for(pool: &Pool, name: &str, limit: Duration) -> Result<Exchanged, Failure> {
    let query = query(name, 4711);
    pool.exchange(asking(&query, Protocol::Udp, limit)).await
}

/// Asks for `www.example.org.` with time enough.
pub(crate) async fn ask(pool: &Pool) -> Result<Exchanged, Failure> {
    ask_for(pool, "www.example.org.", Duration::from_secs(20)).await
}

/// A port on which nobody listens, over UDP and TCP.
pub(crate) async fn closed_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// One series of a scrape, 0 where it is not there.
pub(crate) fn value(upstreams: &Upstreams, series: &str) -> u64 {
    let registry = Registry::new(1);
    let upstreams = upstreams.clone();
    registry.set_source("upstreams", move |into| upstreams.expose(into));
    let text = registry.render();
    let found = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    found.map_or(0, |value| value.parse().unwrap())
}
