//! Server blocks into routes and listens, with everything that is wrong between blocks.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;

use super::fnv::Fnv;
use super::listen::{Place, places};
use super::loops;
use super::shadow;
use super::sources::Sources;
use super::zones::ZoneTable;
use super::{Forward, Listen, ProcessSettings, Route, Routes, Scheme};
use crate::corefile::{Diagnostic, ServerBlock, Severity, Span, Token};
use crate::dns::Name;
use crate::plugins::setting::timeouts::Timeouts;
use crate::plugins::value::Key;
use crate::plugins::{self, Settings};

/// The most zones of all blocks together, address blocks expanded.
const MAX_ZONES: usize = 100_000;
/// The most addresses and ports to listen at.
const MAX_LISTENS: usize = 1024;

/// Makes the table. All errors are found in one go; warnings are part of the table, or stand among the errors.
pub fn compile(blocks: &[ServerBlock], sources: &Sources) -> Result<Routes, Vec<Diagnostic>> {
    let mut compiler = Compiler { sources, found: Vec::new(), listens: Vec::new(), places: HashMap::new(), zones: 0 };
    let mut routes = Vec::new();
    let mut words = Vec::new();
    let mut process = ProcessSettings::default();
    for (index, block) in blocks.iter().enumerate() {
        let keys = compiler.keys(block);
        let settings = plugins::parse(block, &mut compiler.found);
        compiler.listen(index, &keys, &settings, block);
        merge(&mut process, &settings);
        words.push(settings.forward.iter().map(|forward| forward.words.clone()).collect());
        routes.push(route(&keys, settings));
    }
    compiler.whole(blocks);
    let Compiler { mut found, listens, .. } = compiler;
    let mut routes = Routes { routes, listens, process, warnings: Vec::new() };
    loops::check(&routes, &words, sources, &mut found);
    if found.iter().any(|finding| finding.severity == Severity::Error) {
        return Err(found);
    }
    routes.warnings = found;
    Ok(routes)
}

/// One zone of one key.
struct Served {
    zone: Name,
    port: u16,
    key: Span,
}

struct Compiler<'a> {
    sources: &'a Sources,
    found: Vec<Diagnostic>,
    listens: Vec<Listen>,
    /// Which listen an address is, and where its zones and itself stand in the text.
    places: HashMap<SocketAddr, (usize, Origins)>,
    zones: usize,
}

/// Where the zones of a listen stand, in the order of its table, and the word that names its address.
struct Origins {
    keys: Vec<Span>,
    word: Option<Span>,
}

impl Compiler<'_> {
    fn keys(&mut self, block: &ServerBlock) -> Vec<Served> {
        let mut served = Vec::new();
        for token in &block.keys {
            let key = match Key::parse(&token.text) {
                Ok(key) => key,
                Err(reason) => {
                    self.found.push(
                        Diagnostic::error(token.span, reason)
                            .label("this is not a zone")
                            .help("write `example.org`, `example.org:5353`, `.:53` or `10.0.0.0/8`"),
                    );
                    continue;
                }
            };
            if let Some(scheme @ ("tls" | "quic" | "grpc" | "https" | "https3" | "unix")) = key.scheme {
                self.found.push(
                    Diagnostic::error(token.span, format!("serving {} is not offered", service(scheme)))
                        .label("only classic DNS over UDP and TCP is served")
                        .help(format!("remove `{scheme}://`, or leave this block to another server")),
                );
                continue;
            }
            self.syntax(token, &key);
            self.zones += key.zones.len();
            if self.zones > MAX_ZONES {
                self.found.push(Diagnostic::error(token.span, format!("more than {MAX_ZONES} zones")));
                self.zones = 0;
                return served;
            }
            let port = key.port.unwrap_or(self.sources.default_port);
            served.extend(key.zones.into_iter().map(|zone| Served { zone, port, key: token.span }));
        }
        served
    }

    /// Names that are no host names, as CoreDNS says it, and words that look like a forgotten block.
    fn syntax(&mut self, token: &Token, key: &Key) {
        let Some(zone) = key.zones.first().filter(|_| key.zones.len() == 1) else { return };
        if plugins::names().any(|name| name == &*token.text) {
            self.found.push(
                Diagnostic::warning(token.span, format!("`{token}` is read as a zone here"))
                    .help("directives stand inside a block: `. {`, then the directive on its own line, then `}`"),
            );
        } else if !preferred(&zone.to_string()) {
            let message = format!("domain \"{zone}\" does not follow RFC1035 preferred syntax");
            let help = match token.text.parse::<std::net::IpAddr>() {
                Ok(ip) => {
                    let length = if ip.is_ipv4() { 32 } else { 128 };
                    Some(format!("for the reverse zone of this address write `{ip}/{length}`"))
                }
                Err(_) if token.text.contains('/') => Some("an address block is written `10.0.0.0/8`".to_owned()),
                Err(_) => None,
            };
            self.found.push(Diagnostic { help, ..Diagnostic::warning(token.span, message) });
        }
    }

    /// Puts a block's zones into the tables of its addresses.
    fn listen(&mut self, route: usize, keys: &[Served], settings: &Settings, block: &ServerBlock) {
        let before = self.found.len();
        let places = places(&settings.bind, self.sources, &mut self.found);
        if places.is_empty()
            && self.found.len() == before
            && settings.bind.iter().any(|bind| !bind.addresses.is_empty())
        {
            let line = block.directives.iter().find(|line| &*line.name.text == "bind");
            self.found.push(
                Diagnostic::warning(line.map(|line| line.span()), "this block listens nowhere")
                    .help("every address is excepted, or the interface has none"),
            );
        }
        for place in &places {
            for served in keys {
                self.serve(route, place, served, settings);
            }
        }
    }

    fn serve(&mut self, route: usize, place: &Place, served: &Served, settings: &Settings) {
        let address = place.at(served.port);
        let listens = &mut self.listens;
        let (index, origins) = self.places.entry(address).or_insert_with(|| {
            listens.push(Listen {
                address,
                explicit: place.word.is_some(),
                scheme: Scheme::Dns,
                zones: ZoneTable::default(),
                timeouts: Timeouts::default(),
                any_forward: false,
            });
            (listens.len() - 1, Origins { keys: Vec::new(), word: place.word.as_ref().map(|word| word.span) })
        });
        let listen = &mut self.listens[*index];
        if let Some(earlier) = listen.zones.insert(served.zone.clone(), route) {
            // At the first of several addresses it has been said.
            if self.found.last().is_some_and(|last| last.span == Some(served.key)) {
                return;
            }
            let at = if listen.explicit { format!(" on {}", listen.address) } else { format!(":{}", served.port) };
            self.found.push(
                Diagnostic::error(served.key, format!("{}{at} is already served", served.zone))
                    .label("served a second time")
                    .related(origins.keys[earlier], "first here")
                    .help("put both into one block, or give them different zones, ports or `bind` addresses"),
            );
            return;
        }
        origins.keys.push(served.key);
        listen.any_forward |= !settings.forward.is_empty();
        if let Some(timeouts) = settings.timeouts {
            listen.timeouts = listen.timeouts.or_later(timeouts);
        }
    }

    /// What can be said only when all blocks are known.
    fn whole(&mut self, blocks: &[ServerBlock]) {
        if self.listens.len() > MAX_LISTENS {
            let message = format!("more than {MAX_LISTENS} addresses and ports to listen at");
            return self.found.push(Diagnostic::error(None, message));
        }
        if self.listens.is_empty() && !blocks.is_empty() && !self.failed() {
            self.found.push(Diagnostic::error(None, "no block listens anywhere").help("see the `bind` lines"));
        }
        let mut findings: Vec<Diagnostic> = Vec::new();
        for wild in self.listens.iter().filter(|listen| !listen.explicit) {
            let twins = |listen: &&Listen| listen.explicit && listen.address.port() == wild.address.port();
            let overlaps: Vec<_> =
                self.listens.iter().filter(twins).flat_map(|named| self.overlap(wild, named)).collect();
            match self.listens.iter().find(twins) {
                Some(named) if overlaps.is_empty() => findings.push(self.beside(wild, named)),
                _ => findings.extend(overlaps),
            }
        }
        findings.dedup_by_key(|finding| finding.span);
        let key = |listen: &Listen, zone: usize| self.places[&listen.address].1.keys[zone];
        shadow::check(blocks, &self.listens, key, &mut findings);
        self.found.extend(findings);
    }

    fn failed(&self) -> bool {
        self.found.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// A block without `bind` and one with it at the same port: the same zone in both is an error.
    fn overlap(&self, wild: &Listen, named: &Listen) -> Vec<Diagnostic> {
        let (wild_at, named_at) = (&self.places[&wild.address].1, &self.places[&named.address].1);
        let mut findings = Vec::new();
        for (at, (zone, _)) in named.zones.entries().enumerate() {
            let twin = wild.zones.entries().position(|(other, _)| other == zone);
            if let Some(twin) = twin {
                let message = format!(
                    "{zone}:{} is served both on {} and on all addresses",
                    named.address.port(),
                    named.address.ip()
                );
                findings.push(
                    Diagnostic::error(named_at.keys[at], message)
                        .related(wild_at.keys[twin], "here without `bind`")
                        .help("use `bind` in both blocks, or in neither"),
                );
            }
        }
        findings
    }

    /// The same with different zones: each socket takes its own queries.
    fn beside(&self, wild: &Listen, named: &Listen) -> Diagnostic {
        let (wild_at, named_at) = (&self.places[&wild.address].1, &self.places[&named.address].1);
        let message = format!("{} is bound here, and another block takes all addresses", named.address);
        Diagnostic::warning(named_at.word, message)
            .related(wild_at.keys[0], "this block has no `bind`; its zones are not served at that address")
            .help("use `bind` in all blocks of a port, or in none")
    }
}

fn service(scheme: &str) -> &'static str {
    match scheme {
        "tls" => "DNS over TLS",
        "quic" => "DNS over QUIC",
        "grpc" => "DNS over gRPC",
        "unix" => "Unix sockets",
        _ => "DNS over HTTPS",
    }
}

/// RFC 1035 section 2.3.1; the root and reverse zones count as well.
fn preferred(zone: &str) -> bool {
    let label = |label: &str| {
        label.starts_with(|c: char| c.is_ascii_alphabetic())
            && label.ends_with(|c: char| c.is_ascii_alphanumeric())
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
    };
    let reverse = ["in-addr.arpa.", "ip6.arpa."].iter().any(|end| zone.ends_with(end));
    zone == "." || reverse || zone.trim_end_matches('.').split('.').all(label)
}

fn route(keys: &[Served], settings: Settings) -> Route {
    let mut zones: Vec<Name> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    zones.extend(keys.iter().map(|served| served.zone.clone()).filter(|zone| seen.insert(zone.clone())));
    let fingerprint = fingerprint(keys, &settings);
    let forwards = settings.forward.into_iter().map(|forward| Forward {
        from: forward.from,
        except: forward.except,
        next: forward.next,
        next_on_nodata: forward.next_on_nodata,
        spec: forward.spec,
    });
    Route {
        zones,
        fingerprint,
        aaaa: settings.aaaa,
        autopath: settings.autopath,
        cache: settings.cache,
        forwards: forwards.collect(),
        bufsize: settings.bufsize,
        whoami: settings.whoami,
        loadbalance: settings.loadbalance,
        log: settings.log,
        errors: settings.errors,
        metrics: settings.prometheus,
        loop_check: settings.loop_check,
        debug: settings.debug,
        has_plugins: !settings.handlers.is_empty(),
        handlers: settings.handlers,
    }
}

/// Two blocks at different addresses may serve one zone from different upstreams, so keys and addresses are part of
/// it; for an interface its name, so that a new address of the node keeps what is cached.
fn fingerprint(keys: &[Served], settings: &Settings) -> u64 {
    let mut hash = Fnv::default();
    for served in keys {
        (&served.zone, served.port).hash(&mut hash);
    }
    for bind in &settings.bind {
        bind.addresses.iter().for_each(|word| word.text.hash(&mut hash));
        0_u8.hash(&mut hash);
        bind.except.iter().for_each(|word| word.text.hash(&mut hash));
    }
    (&settings.cache, settings.bufsize, settings.whoami).hash(&mut hash);
    for forward in &settings.forward {
        (&forward.from, &forward.except, &forward.next, forward.next_on_nodata, &forward.spec.failover).hash(&mut hash);
    }
    hash.finish()
}

/// Adds what a block says about the process.
fn merge(process: &mut ProcessSettings, settings: &Settings) {
    if let Some(health) = settings.health {
        if !process.health.contains(&health.address) {
            process.health.push(health.address);
        }
        process.lameduck = process.lameduck.max(health.lameduck);
    }
    if let Some(ready) = settings.ready {
        process.ready.retain(|known| known.address != ready.address);
        process.ready.push(ready);
    }
    if let Some(prometheus) = settings.prometheus
        && !process.prometheus.contains(&prometheus.address)
    {
        process.prometheus.push(prometheus.address);
    }
    process.reload = settings.reload.or(process.reload);
    process.debug |= settings.debug;
}
