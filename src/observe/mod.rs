//! Facts come in from every room; metrics, readiness and log lines leave.
//!
//! **Numbers.** What changes per query is counted in a [`Slab`]: one per worker and label set, one writer, a load and a
//! store per fact, no string, no hash. What changes rarely is a handle from [`Registry::counter`] or
//! [`Registry::gauge`]. What another room keeps anyway (entries of the cache, health of an upstream) is asked for at
//! scrape: [`Registry::set_source`]. [`counters`] is the one table of names.
//!
//! Example: a worker answers `A www.example.org` from memory for a client on UDP.
//!
//! ```
//! use dnslet::dns::{Protocol, Rcode, Type};
//! use dnslet::observe::{Class, MeterKey, Plugin, Registry, Request, Response};
//! use std::time::Duration;
//!
//! let registry = Registry::new(1);
//! let meter = registry.meter(&MeterKey {
//!     server: "dns://169.254.20.10:53".into(),
//!     zone: Some(".".into()),
//!     zones: Some(".".into()),
//!     view: String::new(),
//! });
//! let slab = meter.worker(0);
//! slab.request(Request { proto: Protocol::Udp, ipv6: false, qtype: Type::A, size: 44, dnssec_ok: false });
//! slab.cache_hit(Class::Success);
//! let elapsed = Duration::from_micros(3);
//! slab.response(Response { rcode: Rcode::NOERROR, plugin: Plugin::Cache, size: 60, proto: Protocol::Udp, elapsed });
//!
//! let series = r#"coredns_cache_hits_total{server="dns://169.254.20.10:53",type="success",zones=".",view=""} 1"#;
//! assert!(registry.render().contains(series));
//! ```
//!
//! **Health.** [`probe::ask`] asks one of the agent's own sockets; [`Sockets`] keeps what they answered, and
//! [`Readiness`] what other rooms say of themselves. [`http`] shows both, and the numbers, on bound sockets it is given.
//!
//! **Lines.** [`log::Log`] takes tracing events (`info!`, `warn!`, `plugin = "forward"`), limits each call site, and
//! hands the text to a thread of its own; [`log::QueryLog`] takes one line per query. [`errors_log`] is the `errors`
//! plugin.
//!
//! The room never makes a query wait and is not global state: who counts was handed what it counts in.

pub mod counters;
pub mod errors_log;
mod events;
mod exposition;
mod histogram;
pub mod http;
mod limit;
mod line;
pub mod log;
pub mod probe;
mod readiness;
mod registry;
mod sink;
mod slab;
mod sockets;

pub use counters::Metric;
pub use events::{Event, Level, Worker};
pub use exposition::Exposition;
pub use histogram::{Bounds, HEALTH, SIZES, SharedHistogram, Snapshot, TIMES};
pub use readiness::{Readiness, Verdict};
pub use registry::Registry;
pub use slab::{Class, Meter, MeterKey, Plugin, Request, Response, Slab};
pub use sockets::Sockets;
