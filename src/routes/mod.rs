//! The `routes` room: server blocks become the immutable table that queries are answered by.
//!
//! **In**: the blocks of a Corefile and [`Sources`] (what this node looks like). **Out**: [`Routes`], or every
//! [`Diagnostic`] at once.
//!
//! One example walked through: from
//!
//! ```text
//! example.org 10.0.0.0/9:5300 {
//!     bind lo
//!     cache
//!     forward . 192.0.2.53
//! }
//! ```
//!
//! comes one [`Route`] (one cache, one pool, shared by all zones, ports and addresses of its block) with 129 zones; on
//! a node whose `lo` has 127.0.0.1 and ::1 it is reached through four [`Listen`]s: both addresses at port 53 with the
//! zone `example.org.`, both at port 5300 with the reverse zones. A query that came in at a listen finds its route by
//! [`ZoneTable::find`].
//!
//! Each step is one file: `compile` (keys, grouping, duplicates), `listen` (addresses and interfaces), `loops`
//! (upstreams that are ourselves), `zones` (the table), `delta` (what a reload changes).
//!
//! Never: does I/O, changes after compile, knows how a route is answered.

mod compile;
mod delta;
mod fnv;
mod listen;
mod loops;
mod shadow;
mod sources;
mod zones;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::cache::settings::Settings as Cache;
use crate::corefile::{self, Diagnostic, Environment, Files, Parsed, Severity, SourceMap, render_all};
use crate::dns::{Name, Rcode};
use crate::plugins::front::aaaa::Aaaa;
use crate::plugins::front::loadbalance::Loadbalance;
use crate::plugins::front::log::LogRule;
use crate::plugins::policy::autopath::Autopath;
use crate::plugins::setting::errors::Errors;
use crate::plugins::setting::prometheus::Prometheus;
use crate::plugins::setting::ready::Ready;
use crate::plugins::setting::reload::Reload;
use crate::plugins::setting::timeouts::Timeouts;
use crate::plugins::value::HttpAddress;
use crate::upstream::spec::PoolSpec;

pub use compile::compile;
pub use delta::Delta;
pub use fnv::Fnv;
pub use sources::{Interface, Sources};
pub use zones::ZoneTable;

/// Everything a Corefile says, ready for use.
#[derive(Clone, Debug)]
pub struct Routes {
    /// One per server block, in the order of the file.
    pub routes: Vec<Route>,
    /// One per address and port.
    pub listens: Vec<Listen>,
    /// What concerns the process as a whole.
    pub process: ProcessSettings,
    /// What can be used but is probably not meant.
    pub warnings: Vec<Diagnostic>,
}

/// How queries arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Classic DNS over UDP and TCP.
    Dns,
}

/// An address queries arrive at, and who answers them.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Where to listen. Unspecified IPv6 if no `bind` names an address: whoever binds it serves IPv4 too, or takes
    /// unspecified IPv4 where there is no IPv6.
    pub address: SocketAddr,
    /// The address was named, or belongs to an interface that was.
    pub explicit: bool,
    /// How queries arrive.
    pub scheme: Scheme,
    /// Who answers which names.
    pub zones: ZoneTable,
    /// Limits of TCP connections.
    pub timeouts: Timeouts,
    /// Some route here forwards: queries of every class are let in.
    pub any_forward: bool,
}

/// One server block.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its zones, each once.
    pub zones: Vec<Name>,
    /// Equal for two versions of a block whose kept answers are interchangeable. Upstream addresses do not count.
    pub fingerprint: u64,
    /// Which AAAA questions are answered with no data.
    pub aaaa: Option<Aaaa>,
    /// The search list is walked here.
    pub autopath: Option<Autopath>,
    /// What is kept.
    pub cache: Option<Cache>,
    /// Whom to ask; the first that matches a name.
    pub forwards: Vec<Forward>,
    /// The largest UDP size clients and upstreams are offered.
    pub bufsize: Option<u16>,
    /// What no `forward` matches is answered with the client's address.
    pub whoami: bool,
    /// Addresses are reordered.
    pub loadbalance: Option<Loadbalance>,
    /// Queries are logged.
    pub log: Vec<LogRule>,
    /// Failures are logged.
    pub errors: Option<Errors>,
    /// Queries are counted.
    pub metrics: Option<Prometheus>,
    /// Loops are looked for.
    pub loop_check: bool,
    /// Debug lines are wanted.
    pub debug: bool,
    /// Some directive takes part in answering; without one, every query is refused.
    pub has_plugins: bool,
    /// The names of those directives, in the order in which they act.
    pub handlers: Vec<&'static str>,
}

/// One `forward` line.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Forward {
    /// Names under this zone,
    pub from: Name,
    /// but not under these.
    pub except: Vec<Name>,
    /// After these RCODEs the next `forward` is asked.
    pub next: Vec<Rcode>,
    /// The same after NODATA.
    pub next_on_nodata: bool,
    /// Whom to ask and how.
    pub spec: PoolSpec,
}

/// What concerns the process as a whole, from all blocks together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessSettings {
    /// Where `/health` is, each address once.
    pub health: Vec<HttpAddress>,
    /// How long to go on answering before a shutdown: the longest of all blocks.
    pub lameduck: std::time::Duration,
    /// Where `/ready` is, each address once.
    pub ready: Vec<Ready>,
    /// Where `/metrics` is, each address once.
    pub prometheus: Vec<HttpAddress>,
    /// How often to look for a changed Corefile; the last block that says so.
    pub reload: Option<Reload>,
    /// Debug lines are wanted somewhere.
    pub debug: bool,
}

impl Routes {
    /// An address a route is reached at; `None` if it listens nowhere.
    pub fn first_address(&self, route: usize) -> Option<SocketAddr> {
        let serves = |listen: &&Listen| listen.zones.entries().any(|(_, found)| found == route);
        self.listens.iter().find(serves).map(|listen| listen.address)
    }
}

impl Listen {
    /// The `server` label of metrics: `dns://10.0.0.10:53`, or `dns://:53` if no address was named.
    pub fn server(&self) -> String {
        let Scheme::Dns = self.scheme;
        if self.explicit { format!("dns://{}", self.address) } else { format!("dns://:{}", self.address.port()) }
    }
}

impl Route {
    /// The `zones` label of cache metrics: the zones the cache is for, joined by commas. `None` without a cache.
    pub fn cache_zones_label(&self) -> Option<String> {
        let zones = self.cache.as_ref()?.zones.as_ref().unwrap_or(&self.zones);
        Some(zones.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
    }
}

impl Forward {
    /// Whether a name (wire form, lower-case) is forwarded by this line.
    pub fn matches(&self, name: &[u8]) -> bool {
        let under = |zone: &Name| crate::dns::name::is_under(name, zone.as_wire());
        under(&self.from) && (name == self.from.as_wire() || !self.except.iter().any(under))
    }
}

/// What [`load`] made of a text.
#[derive(Debug)]
pub struct Loaded {
    /// The table; `None` if there are errors.
    pub routes: Option<Routes>,
    /// Errors and warnings, in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
    /// The texts that took part.
    pub sources: SourceMap,
    /// Paths and patterns of imports: what to watch besides the root file.
    pub watched: Vec<PathBuf>,
    /// SHA-512 of the words (see [`Parsed::digest`]), in hexadecimal.
    pub digest: String,
}

/// Served when a file has no server block at all, as CoreDNS does.
const EMPTY: &str = ". {\n    whoami\n    log\n}\n";

/// From text to table in one step: parse, compile, and collect what is to be said about both.
pub fn load(root: &Path, text: &str, files: &mut Files<'_>, env: &Environment<'_>, sources: &Sources) -> Loaded {
    let mut parsed = corefile::parse(root, text, files, env);
    if parsed.blocks.is_empty() && !parsed.has_errors() {
        let empty = corefile::parse(root, EMPTY, files, env);
        parsed = Parsed { diagnostics: parsed.diagnostics, watched: parsed.watched, ..empty };
    }
    let digest = parsed.digest();
    let compiled = compile(&parsed.blocks, sources);
    let failed = parsed.has_errors();
    let Parsed { mut diagnostics, sources, watched, .. } = parsed;
    let routes = match compiled {
        Ok(routes) => {
            diagnostics.extend(routes.warnings.iter().cloned());
            (!failed).then_some(routes)
        }
        Err(found) => {
            diagnostics.extend(found);
            None
        }
    };
    // Findings without a place concern the whole and come last.
    diagnostics.sort_by_key(|found| (found.span.is_none(), found.span));
    Loaded { routes, diagnostics, sources, watched, digest }
}

impl Loaded {
    /// Everything there is to say, for a person.
    pub fn render(&self, colour: bool) -> String {
        render_all(&self.diagnostics, &self.sources, colour)
    }

    /// The errors and warnings as lines for a log.
    pub fn lines(&self) -> impl Iterator<Item = (Severity, String)> {
        self.diagnostics.iter().map(|found| (found.severity, found.line(&self.sources)))
    }
}

/// The table for a text that stands alone: no imports, no environment, a node without interfaces, port 53. The error
/// is what a person would be shown.
pub fn check_text(name: &str, text: &str) -> Result<Routes, String> {
    let mut files = |_: &Path| Err("no files can be read here".to_owned());
    let mut loaded = load(Path::new(name), text, &mut files, &|_| None, &Sources::default());
    loaded.routes.take().ok_or_else(|| loaded.render(false))
}

#[cfg(test)]
mod tests;
