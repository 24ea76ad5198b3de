//! A resolver in this process whose cache holds the answers to given queries, for what counts allocations and
//! nanoseconds. No socket of its own: queries are handed to `Resolver::answer` directly.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use dnslet::cache::Cache;
use dnslet::dns::{Protocol, Type};
use dnslet::observe::Registry;
use dnslet::resolve::{Bounds, Client, ClientPolicy, Failures, Flights, Parts, Resolver, Verdict};
use dnslet::routes;
use dnslet::sys::clock;
use dnslet::upstream::spec::Target;
use dnslet::upstream::{Pool, Upstreams};

pub(crate) struct Warm {
    resolver: Arc<Resolver>,
    client: Client,
}

impl Warm {
    /// Compiles `corefile`, in which `{up}` stands for the address of an upstream, and asks each of `queries` once.
    /// The upstream answers by the first label: `missing…` does not exist, `many…` has forty addresses, `alias…` is one.
    /// What has `com` in it and ends in `local` does not exist either, as external names with a suffix of a search list do not;
    /// only A records exist.
    pub(crate) fn new(corefile: &str, queries: &[Vec<u8>]) -> Warm {
        let upstream = start_upstream().expect("an upstream on loopback");
        let routes = routes::check_text("Corefile", &corefile.replace("{up}", &upstream.to_string()))
            .expect("a Corefile without errors");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(Default::default())
            .expect("a runtime");
        let upstreams = Upstreams::new();
        let warm = runtime.block_on(async {
            let listen = routes.listens[0].address;
            let client = Client { peer: client_address(), protocol: Protocol::Udp, listen: 0, local: listen };
            let warm = Warm { resolver: Arc::new(resolver(routes, &upstreams)), client };
            for query in queries {
                warm.fill(query).await;
            }
            warm
        });
        // The answers are in; nothing is left that would need the runtime.
        drop(runtime);
        warm
    }

    /// The reply to `query` from the cache: its length in `out`. Anything else than a reply at once is a panic.
    pub(crate) fn answer(&self, protocol: Protocol, now: Instant, query: &[u8], out: &mut [u8]) -> usize {
        let client = Client { protocol, ..self.client };
        match self.resolver.answer(0, now, query, &client, out) {
            Verdict::Reply(length) => length,
            _ => panic!("not answered from the cache"),
        }
    }

    async fn fill(&self, query: &[u8]) {
        let mut out = vec![0; 4096];
        // Another spelling or reply size of a query may have filled the same entry already.
        match self.resolver.answer(0, clock::now(), query, &self.client, &mut out) {
            Verdict::Miss(miss) => miss.resolve(&mut out).await,
            Verdict::Walk(walk) => walk.resolve(&mut out).await,
            _ => {}
        }
    }
}

/// A query with RD set. `edns` is the size offered and the DO bit.
pub(crate) fn query(name: &str, qtype: Type, edns: Option<(u16, bool)>) -> Vec<u8> {
    let mut wire = vec![0x2b, 0x1d, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())];
    for label in name.split('.') {
        wire.push(label.len() as u8);
        wire.extend(label.as_bytes());
    }
    wire.push(0);
    wire.extend(qtype.0.to_be_bytes());
    wire.extend([0, 1]);
    if let Some((size, dnssec_ok)) = edns {
        wire.extend([0, 0, 41]);
        wire.extend(size.to_be_bytes());
        wire.extend([0, 0, u8::from(dnssec_ok) << 7, 0, 0, 0]);
    }
    wire
}

fn client_address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 40_000).into()
}

fn resolver(routes: routes::Routes, upstreams: &Upstreams) -> Resolver {
    let pool = |forward: &routes::Forward| {
        let addresses: Vec<_> = forward
            .spec
            .targets
            .iter()
            .map(|target| match target {
                Target::Address(address) => address.clone(),
                other => panic!("{other} is no address"),
            })
            .collect();
        Pool::new(&forward.spec, &addresses, upstreams).expect("a pool")
    };
    let pools = routes.routes.iter().map(|route| route.forwards.iter().map(pool).collect()).collect();
    Resolver::new(Parts {
        routes: Arc::new(routes),
        pools,
        cache: Cache::new(64 << 20),
        flights: Flights::new(Bounds::sharing(4096, 2048)),
        failures: Failures::new(1 << 16),
        walks: Arc::default(),
        registry: Registry::new(1),
        clients: ClientPolicy::default(),
        query_log: None,
    })
}

/// Starts the upstream; its thread ends with the process.
fn start_upstream() -> io::Result<SocketAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = socket.local_addr()?;
    thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut query) {
            // A client that is gone needs no answer.
            let _ = socket.send_to(&response(&query[..length]), peer);
        }
    });
    Ok(address)
}

fn response(query: &[u8]) -> Vec<u8> {
    let end = 12 + query[12..].iter().position(|&octet| octet == 0).expect("a name ends") + 5;
    let name = &query[13..];
    let mut out = query[..end].to_vec();
    out[2] |= 0x80;
    out[3] = 0x80;
    out[6..12].fill(0);
    let suffixed = query[..end - 4].ends_with(b"\x05local\0") && query.windows(4).any(|label| label == b"\x03com");
    let missing = suffixed || name.starts_with(b"missing");
    if missing || query[end - 4..end - 2] != [0, 1] {
        out[3] |= if missing { 3 } else { 0 };
        out[9] = 1;
        // An SOA of the root whose names are the root.
        out.extend(b"\x00\x00\x06\x00\x01\x00\x00\x07\x08\x00\x16\x00\x00");
        out.extend([0; 16]);
        out.extend(1800_u32.to_be_bytes());
        return out;
    }
    let mut owner = b"\xc0\x0c".to_vec();
    if name.starts_with(b"alias") {
        out.extend(b"\xc0\x0c\x00\x05\x00\x01\x00\x00\x0e\x10\x00\x07\x04edge\xc0\x0c");
        owner = vec![0xc0, end as u8 + 12];
        out[7] += 1;
    }
    for host in 1..=if name.starts_with(b"many") { 40 } else { 2 } {
        out.extend(&owner);
        out.extend([0, 1, 0, 1, 0, 0, 0x0e, 0x10, 0, 4, 192, 0, 2, host]);
        out[7] += 1;
    }
    out
}
