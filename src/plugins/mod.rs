//! The `plugins` room: directives become typed values.
//!
//! **In**: a server block as the `corefile` room left it. **Out**: [`Settings`], one field per directive, and a
//! [`Diagnostic`] for everything that is wrong. Later code cannot meet a setting that makes no sense.
//!
//! Example: `cache 30 { prefetch 5 }` becomes `Settings::cache = Some(..)` with both maxima at 30 seconds and a
//! prefetch after five hits; `prefetch -5` gives an error at `-5`, and the rest of the block is read all the same.
//!
//! Directives are of three kinds. A **setting** sets something up ([`setting`]). A **front** plugin sees the client and
//! runs on hits too ([`front`]); what it needs at that time is here as plain functions on bytes. A **policy** shapes
//! answers behind the cache ([`policy`]). The order in which plugins act is that of the table in this file, whatever
//! the order in the Corefile. How often a directive may stand in a block is in the table, too.
//!
//! Never: opens a socket or a file, looks up an interface, reads a clock.

pub mod front;
pub mod policy;
mod report;
pub mod setting;
pub mod value;

use crate::cache::settings::Settings as Cache;
use crate::corefile::{Diagnostic, Directive, ServerBlock, nearest};
use front::{aaaa, loadbalance, log};
use policy::{autopath, whoami};
use report::Report;
use setting::{
    bind, bufsize, cache, debug, errors, forward, health, loop_check, pprof, prometheus, ready, reload, timeouts,
};

/// What the directives of one server block say.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Which AAAA questions are answered with no data.
    pub aaaa: Option<aaaa::Aaaa>,
    /// The search list is walked here.
    pub autopath: Option<autopath::Autopath>,
    /// Where to listen; empty: everywhere.
    pub bind: Vec<bind::Bind>,
    /// The largest UDP size clients and upstreams are offered.
    pub bufsize: Option<u16>,
    /// What is kept and for how long.
    pub cache: Option<Cache>,
    /// Debug lines are wanted.
    pub debug: bool,
    /// Failures are logged.
    pub errors: Option<errors::Errors>,
    /// Whom to ask, first match first.
    pub forward: Vec<forward::Forward>,
    /// The liveness endpoint.
    pub health: Option<health::Health>,
    /// Addresses are reordered.
    pub loadbalance: Option<loadbalance::Loadbalance>,
    /// Queries are logged.
    pub log: Vec<log::LogRule>,
    /// Loops are looked for.
    pub loop_check: bool,
    /// The metrics endpoint, and counting for the zones of the block.
    pub prometheus: Option<prometheus::Prometheus>,
    /// The readiness endpoint.
    pub ready: Option<ready::Ready>,
    /// The Corefile is watched.
    pub reload: Option<reload::Reload>,
    /// Limits of TCP connections.
    pub timeouts: Option<timeouts::Timeouts>,
    /// Clients are told who they are.
    pub whoami: bool,
    /// The directives that take part in answering a query, in the order in which they act.
    pub handlers: Vec<&'static str>,
}

/// The directives there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plugin {
    Timeouts,
    Reload,
    Bufsize,
    Bind,
    Debug,
    Ready,
    Health,
    Pprof,
    Prometheus,
    Errors,
    Log,
    Loadbalance,
    Aaaa,
    Autopath,
    Cache,
    Loop,
    Forward,
    Whoami,
}

/// How often a directive may stand in one block.
#[derive(Clone, Copy, PartialEq)]
enum Repeats {
    /// Once; a second time is an error.
    Once,
    /// Any number of times: lines add up, or the later one wins.
    All,
    /// Any number of times, but only the first line counts.
    First,
}

/// Whether a directive takes part in answering queries.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Handler,
    Setting,
}

/// Every directive in the order in which they act.
const TABLE: [(Plugin, &str, Repeats, Part); 18] = [
    (Plugin::Timeouts, "timeouts", Repeats::All, Part::Setting),
    (Plugin::Reload, "reload", Repeats::First, Part::Setting),
    (Plugin::Bufsize, "bufsize", Repeats::First, Part::Handler),
    (Plugin::Bind, "bind", Repeats::All, Part::Setting),
    (Plugin::Debug, "debug", Repeats::All, Part::Setting),
    (Plugin::Ready, "ready", Repeats::Once, Part::Setting),
    (Plugin::Health, "health", Repeats::All, Part::Setting),
    (Plugin::Pprof, "pprof", Repeats::Once, Part::Setting),
    (Plugin::Prometheus, "prometheus", Repeats::Once, Part::Handler),
    (Plugin::Errors, "errors", Repeats::Once, Part::Handler),
    (Plugin::Log, "log", Repeats::All, Part::Handler),
    (Plugin::Loadbalance, "loadbalance", Repeats::All, Part::Handler),
    (Plugin::Aaaa, "aaaa", Repeats::Once, Part::Handler),
    (Plugin::Autopath, "autopath", Repeats::Once, Part::Handler),
    (Plugin::Cache, "cache", Repeats::Once, Part::Handler),
    (Plugin::Loop, "loop", Repeats::Once, Part::Handler),
    (Plugin::Forward, "forward", Repeats::All, Part::Handler),
    (Plugin::Whoami, "whoami", Repeats::First, Part::Handler),
];

/// What CoreDNS has and this program does not.
const ELSEWHERE: [&str; 39] = [
    "root",
    "metadata",
    "geoip",
    "cancel",
    "tls",
    "quic",
    "multisocket",
    "nsid",
    "trace",
    "shed",
    "dnstap",
    "local",
    "dns64",
    "acl",
    "any",
    "chaos",
    "tsig",
    "rewrite",
    "header",
    "dnssec",
    "minimal",
    "template",
    "transfer",
    "hosts",
    "route53",
    "azure",
    "clouddns",
    "k8s_external",
    "kubernetes",
    "file",
    "auto",
    "secondary",
    "etcd",
    "grpc",
    "erratic",
    "on",
    "sign",
    "view",
    "nomad",
];

/// The names of all directives, in the order in which they act.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(_, name, ..)| *name)
}

/// Reads the directives of one block.
pub fn parse(block: &ServerBlock, found: &mut Vec<Diagnostic>) -> Settings {
    let mut settings = Settings::default();
    let keys = block.keys.iter().filter_map(|key| value::Key::parse(&key.text).ok());
    let mut report = Report { found, zones: keys.flat_map(|key| key.zones).collect() };
    let known = |line: &&Directive| TABLE.iter().any(|(_, name, ..)| *name == &*line.name.text);
    for line in block.directives.iter().filter(|line| !known(line)) {
        unknown(line, &mut report);
    }
    for (plugin, name, repeats, part) in TABLE {
        let lines: Vec<_> = block.directives.iter().filter(|line| &*line.name.text == name).collect();
        let Some((first, more)) = lines.split_first() else { continue };
        if part == Part::Handler {
            settings.handlers.push(name);
        }
        plugin.read(first, &mut settings, &mut report);
        for line in more {
            match repeats {
                Repeats::All => plugin.read(line, &mut settings, &mut report),
                Repeats::First => report.add(
                    Diagnostic::warning(line.span(), format!("only the first `{name}` of a block counts"))
                        .label("ignored")
                        .related(first.name.span, "this one counts")
                        .help("remove one of them"),
                ),
                Repeats::Once => report.add(
                    Diagnostic::error(line.name.span, format!("`{name}` can be used only once in a block"))
                        .label("used again")
                        .related(first.name.span, "first used here")
                        .help("put all of it into one"),
                ),
            }
        }
    }
    if let Some(autopath) = &settings.autopath {
        autopath::check(block, autopath, settings.cache.as_ref(), &mut report);
    }
    settings
}

impl Plugin {
    fn read(self, line: &Directive, settings: &mut Settings, report: &mut Report<'_>) {
        match self {
            Plugin::Timeouts => {
                let before = settings.timeouts.unwrap_or_default();
                settings.timeouts = Some(before.or_later(timeouts::parse(line, report)));
            }
            Plugin::Reload => settings.reload = Some(reload::parse(line, report)),
            Plugin::Bufsize => settings.bufsize = bufsize::parse(line, report),
            Plugin::Bind => settings.bind.push(bind::parse(line, report)),
            Plugin::Debug => {
                debug::parse(line, report);
                settings.debug = true;
            }
            Plugin::Ready => settings.ready = Some(ready::parse(line, report)),
            Plugin::Health => settings.health = Some(health::parse(line, report)),
            Plugin::Pprof => pprof::parse(line, report),
            Plugin::Prometheus => settings.prometheus = Some(prometheus::parse(line, report)),
            Plugin::Errors => settings.errors = Some(errors::parse(line, report)),
            Plugin::Log => settings.log.extend(log::parse(line, report)),
            Plugin::Loadbalance => settings.loadbalance = Some(loadbalance::parse(line, report)),
            Plugin::Aaaa => settings.aaaa = aaaa::parse(line, report),
            Plugin::Autopath => settings.autopath = autopath::parse(line, report),
            Plugin::Cache => settings.cache = Some(cache::parse(line, report)),
            Plugin::Loop => {
                loop_check::parse(line, report);
                settings.loop_check = true;
            }
            Plugin::Forward => settings.forward.extend(forward::parse(line, report)),
            Plugin::Whoami => {
                whoami::parse(line, report);
                settings.whoami = true;
            }
        }
    }
}

fn unknown(line: &Directive, report: &mut Report<'_>) {
    let name = &*line.name.text;
    let have = || format!("dnslet has {}", names().collect::<Vec<_>>().join(", "));
    let (message, help) = if ELSEWHERE.contains(&name) {
        (format!("`{name}` is a CoreDNS plugin that dnslet does not have"), format!("remove it; {}", have()))
    } else if let Some(near) = nearest(name, names()) {
        (format!("unknown directive `{name}`"), format!("did you mean `{near}`?"))
    } else if line.block.is_some() && name.contains(['.', ':']) {
        let help = "this looks like the start of another block; is the `}` before it missing?";
        (format!("unknown directive `{name}`"), help.to_owned())
    } else {
        (format!("unknown directive `{name}`"), have())
    };
    report.add(Diagnostic::error(line.name.span, message).help(help));
}

#[cfg(test)]
mod tests;
