//! One `forward` line as typed values: what to ask, in which order, and with which limits.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::dns::{Name, Rcode};
use crate::upstream::{Address, Transport};

/// The most upstreams one pool may have; CoreDNS draws the line at the same place.
pub const MAX_UPSTREAMS: usize = 15;

/// Everything a pool is built from, with CoreDNS's defaults in [`PoolSpec::default`] (which has no targets).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolSpec {
    /// The upstreams in the order written.
    pub targets: Vec<Target>,
    /// Whom to ask for the addresses of the host names among them; none: the nameservers of this machine.
    pub resolvers: Vec<Address>,
    /// The order in which upstreams are tried.
    pub policy: Policy,
    /// Ask over TCP only.
    pub force_tcp: bool,
    /// Accepted for compatibility: UDP is always asked first unless `force_tcp` is set.
    pub prefer_udp: bool,
    /// A TCP or TLS connection without traffic for this long is closed.
    pub expire: Duration,
    /// A TCP or TLS connection takes no new queries after this long, or a little less; `None`: however old it is.
    pub max_age: Option<Duration>,
    /// An upstream is down after more than this many failed checks in a row; 0: never down and never checked.
    pub max_fails: u32,
    /// The most attempts for one query, below the built-in limit; `None` or `Some(0)` leaves that limit alone.
    pub max_connect_attempts: Option<u32>,
    /// Certificates for `tls://` upstreams.
    pub tls: TlsSpec,
    /// What a check asks and how often.
    pub health_check: HealthCheck,
    /// The most queries in progress at once; more are refused.
    pub max_concurrent: Option<usize>,
    /// Responses with one of these RCODEs move on to the next upstream.
    pub failover: Vec<Rcode>,
    /// With every upstream down: fail at once instead of trying one.
    pub failfast: bool,
    /// The most connections per upstream that stay open without traffic; the built-in limit of two is never exceeded.
    pub max_idle_conns: Option<usize>,
    /// An attempt without answer is given up after this long; `None`: when the whole exchange ends.
    pub read_timeout: Option<Duration>,
    /// The local address queries leave from.
    pub source_address: Option<IpAddr>,
}

impl Default for PoolSpec {
    fn default() -> PoolSpec {
        PoolSpec {
            targets: Vec::new(),
            resolvers: Vec::new(),
            policy: Policy::Random,
            force_tcp: false,
            prefer_udp: false,
            expire: Duration::from_secs(10),
            // CoreDNS keeps a busy connection for ever, and so to one of several servers behind an address.
            max_age: Some(Duration::from_secs(60)),
            max_fails: 2,
            max_connect_attempts: None,
            tls: TlsSpec::default(),
            health_check: HealthCheck::default(),
            max_concurrent: None,
            failover: Vec::new(),
            failfast: false,
            max_idle_conns: None,
            read_timeout: None,
            source_address: None,
        }
    }
}

/// One `TO` of a `forward` line.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// An upstream.
    Address(Address),
    /// A file in resolv.conf format whose `nameserver` lines are upstreams; whoever builds the pool reads it.
    File(PathBuf),
    /// A host all of whose addresses are upstreams; whoever builds the pool resolves it.
    Host {
        /// Its name.
        name: Name,
        /// The port at each of its addresses.
        port: u16,
        /// How it is spoken to.
        transport: Transport,
    },
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Address(address) => address.fmt(out),
            Target::File(path) => path.display().fmt(out),
            Target::Host { name, port, transport } => {
                let scheme = if *transport == Transport::Tls { "tls://" } else { "" };
                write!(out, "{scheme}{}:{port}", name.to_string().trim_end_matches('.'))
            }
        }
    }
}

/// The order in which the upstreams of a pool are tried for one query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Policy {
    /// A fresh shuffle for every query.
    #[default]
    Random,
    /// Each query starts at the one after the previous query's, then goes through the rest as written.
    RoundRobin,
    /// As written.
    Sequential,
}

/// Certificates of a pool's TLS upstreams.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct TlsSpec {
    /// Our certificate and key (PEM), for upstreams that want one.
    pub identity: Option<ClientIdentity>,
    /// Authorities (PEM) that vouch for the upstream; `None`: the public ones.
    pub ca: Option<PathBuf>,
    /// `tls_servername`: the name the certificate must carry when the address names none; without either it must
    /// carry the IP address.
    pub server_name: Option<String>,
}

/// Paths of a client certificate chain and its private key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientIdentity {
    /// The certificate, followed by the chain if there is one.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// What a check of an upstream asks. Any response is a success, whatever its RCODE.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HealthCheck {
    /// Pause after the first failed check; later pauses grow.
    pub interval: Duration,
    /// Ask with RD=0.
    pub no_rec: bool,
    /// The name whose NS records are asked for.
    pub domain: Name,
}

impl Default for HealthCheck {
    fn default() -> HealthCheck {
        HealthCheck { interval: Duration::from_millis(500), no_rec: false, domain: Name::root() }
    }
}
