//! `forward FROM TO... { ... }`: which names are asked upstream, where, and how.

mod target;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::corefile::{Diagnostic, Directive, Span, Token, nearest};
use crate::dns::{Name, Rcode};
use crate::plugins::report::{Report, options};
use crate::upstream::spec::{ClientIdentity, MAX_UPSTREAMS, Policy, PoolSpec, Target, TlsSpec};
use crate::upstream::{Address, Transport};

use self::target::target;

/// One `forward` line.
#[derive(Clone, Debug)]
pub struct Forward {
    /// Names under this zone,
    pub from: Name,
    /// but not under these; a name equal to `from` is forwarded all the same.
    pub except: Vec<Name>,
    /// After a response with one of these RCODEs the next `forward` of the block is asked, if there is one.
    pub next: Vec<Rcode>,
    /// The same after NODATA.
    pub next_on_nodata: bool,
    /// Whom to ask and how.
    pub spec: PoolSpec,
    /// Where the line stands.
    pub line: Span,
    /// Where the targets of `spec` stand, in the same order.
    pub words: Vec<Span>,
}

const KNOWN: [&str; 21] = [
    "except",
    "force_tcp",
    "prefer_udp",
    "expire",
    "max_fails",
    "max_connect_attempts",
    "tls",
    "tls_servername",
    "policy",
    "health_check",
    "max_concurrent",
    "next",
    "failover",
    "failfast_all_unhealthy_upstreams",
    "max_idle_conns",
    "max_age",
    "next_on_nodata",
    "read_timeout",
    "source_address",
    "resolver",
    "doh_method",
];
const ANY: RangeInclusive<Duration> = Duration::ZERO..=Duration::MAX;

pub(crate) fn parse(line: &Directive, report: &mut Report<'_>) -> Option<Forward> {
    let words = report.args(line, 2..=usize::MAX, "forward FROM TO...");
    let (from, to) = words.split_first()?;
    let zones = report.zones(std::slice::from_ref(from));
    if zones.len() > 1 {
        report.add(
            Diagnostic::warning(from.span, format!("`{from}` stands for {} zones", zones.len()))
                .label(format!("only {} is forwarded", zones[0]))
                .help("name the zones in the key of the block, and write `forward .`"),
        );
    }
    let mut forward = Forward {
        from: zones.into_iter().next()?,
        except: Vec::new(),
        next: Vec::new(),
        next_on_nodata: false,
        spec: PoolSpec::default(),
        line: line.span(),
        words: Vec::new(),
    };
    // One more than there may be is enough to say so.
    for word in to {
        if forward.words.len() > MAX_UPSTREAMS {
            break;
        }
        if let Some(target) = target(word, report) {
            if forward.spec.targets.contains(&target) {
                report.add(Diagnostic::warning(word.span, "this upstream is named twice").label("asked once"));
                continue;
            }
            forward.spec.targets.push(target);
            forward.words.push(word.span);
        }
    }
    if let Some(extra) = forward.words.get(MAX_UPSTREAMS) {
        report.add(
            Diagnostic::error(*extra, format!("more than {MAX_UPSTREAMS} upstreams"))
                .label("one too many")
                .help(format!("name at most {MAX_UPSTREAMS}")),
        );
    }
    for option in options(line) {
        report.no_block(option);
        if !parse_routing(option, &mut forward, report) && !parse_pool(option, &mut forward.spec, report) {
            unknown(option, report);
        }
    }
    if !options(line).iter().any(|option| &*option.name.text == "max_age") {
        let spec = &mut forward.spec;
        spec.max_age = spec.max_age.map(|age| age.max(spec.expire));
    }
    check(line, &forward.spec, report);
    Some(forward)
}

/// The options that decide which names go here. False: it is none of them.
fn parse_routing(option: &Directive, forward: &mut Forward, report: &mut Report<'_>) -> bool {
    match &*option.name.text {
        "except" => {
            let words = report.args(option, 1..=usize::MAX, "except NAMES...");
            forward.except.extend(report.zones(words));
        }
        "next" => forward.next.extend(rcodes(option, report)),
        "next_on_nodata" => {
            report.args(option, 0..=0, "next_on_nodata");
            forward.next_on_nodata = true;
        }
        _ => return false,
    }
    true
}

/// The options of the pool. False: it is none of them.
fn parse_pool(option: &Directive, spec: &mut PoolSpec, report: &mut Report<'_>) -> bool {
    match &*option.name.text {
        "force_tcp" => spec.force_tcp = flag(option, report),
        "prefer_udp" => spec.prefer_udp = flag(option, report),
        "failfast_all_unhealthy_upstreams" => spec.failfast = flag(option, report),
        "expire" => spec.expire = time(option, ANY, report).unwrap_or(spec.expire),
        "max_age" => spec.max_age = time(option, ANY, report).filter(|age| !age.is_zero()),
        "read_timeout" => {
            spec.read_timeout = time(option, Duration::from_nanos(1)..=Duration::MAX, report);
        }
        "max_fails" => spec.max_fails = number(option, report).unwrap_or(spec.max_fails),
        "max_connect_attempts" => spec.max_connect_attempts = number(option, report),
        "max_concurrent" => spec.max_concurrent = count(option, report),
        "max_idle_conns" => spec.max_idle_conns = count(option, report),
        "failover" => {
            let codes = rcodes(option, report);
            if codes.contains(&Rcode::NOERROR) {
                report.add(
                    Diagnostic::error(option.span(), "`failover NOERROR` would refuse every good response")
                        .help("name error codes, such as `SERVFAIL` or `REFUSED`"),
                );
            }
            spec.failover.extend(codes);
        }
        "policy" => {
            let choices =
                [("random", Policy::Random), ("round_robin", Policy::RoundRobin), ("sequential", Policy::Sequential)];
            let word = report.one(option, "policy random|round_robin|sequential");
            spec.policy = word.and_then(|word| report.choice(word, &choices)).unwrap_or(spec.policy);
        }
        "health_check" => health_check(option, spec, report),
        "resolver" => resolvers(option, spec, report),
        "tls" => tls(option, &mut spec.tls, report),
        "tls_servername" => {
            if let Some(word) = report.one(option, "tls_servername NAME")
                && report.name(word).is_some()
            {
                spec.tls.server_name = Some(word.text.to_string());
            }
        }
        "source_address" => {
            if let Some(word) = report.one(option, "source_address IP") {
                let parsed = word.text.parse::<IpAddr>().map_err(|_| format!("`{word}` is not an IP address"));
                spec.source_address = report.take(word, parsed, "write an address of this node");
            }
        }
        _ => return false,
    }
    true
}

fn unknown(option: &Directive, report: &mut Report<'_>) {
    if &*option.name.text != "doh_method" {
        return report.unknown_option("forward", option, &KNOWN);
    }
    report.add(
        Diagnostic::error(option.span(), "DNS over HTTPS upstreams are not offered yet")
            .help("use `tls://IP`, remove `doh_method`"),
    );
}

fn flag(option: &Directive, report: &mut Report<'_>) -> bool {
    report.args(option, 0..=0, &option.name.text);
    true
}

fn time(option: &Directive, range: RangeInclusive<Duration>, report: &mut Report<'_>) -> Option<Duration> {
    let word = report.one(option, &format!("{} DURATION", option.name))?;
    report.duration(word, range)
}

fn number(option: &Directive, report: &mut Report<'_>) -> Option<u32> {
    let word = report.one(option, &format!("{} N", option.name))?;
    report.integer(word, 0..=i64::from(u32::MAX)).and_then(|number| u32::try_from(number).ok())
}

/// A number of which 0 means "no limit".
fn count(option: &Directive, report: &mut Report<'_>) -> Option<usize> {
    number(option, report).filter(|number| *number > 0).map(|number| number as usize)
}

fn rcodes(option: &Directive, report: &mut Report<'_>) -> Vec<Rcode> {
    let words = report.args(option, 1..=usize::MAX, &format!("{} RCODE...", option.name));
    let mut codes = Vec::new();
    for word in words {
        match Rcode::from_name(&word.text) {
            Some(code) => codes.push(code),
            None => {
                let names: Vec<_> = Rcode::NAMED.iter().map(|(name, _)| name.to_lowercase()).collect();
                let help = match nearest(&word.text, names.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean `{}`?", near.to_uppercase()),
                    None => "write a name such as `SERVFAIL`, `REFUSED` or `NXDOMAIN`".to_owned(),
                };
                report.add(Diagnostic::error(word.span, format!("`{word}` is not an RCODE")).help(help));
            }
        }
    }
    codes
}

fn health_check(option: &Directive, spec: &mut PoolSpec, report: &mut Report<'_>) {
    let syntax = "health_check DURATION [no_rec] [domain NAME]";
    let Some((interval, rest)) = report.args(option, 1..=4, syntax).split_first() else { return };
    if let Some(interval) = report.duration(interval, ANY) {
        spec.health_check.interval = interval;
    }
    let mut rest = rest.iter();
    while let Some(word) = rest.next() {
        match &*word.text {
            "no_rec" => spec.health_check.no_rec = true,
            "domain" => match rest.next() {
                Some(name) => {
                    if let Some(name) = report.name(name) {
                        spec.health_check.domain = name;
                    }
                }
                None => report.add(Diagnostic::error(word.span, "`domain` needs a name").help(syntax)),
            },
            _ => report.add(
                Diagnostic::error(word.span, format!("`health_check` has no option `{word}`"))
                    .help(format!("write `{syntax}`")),
            ),
        }
    }
}

fn resolvers(option: &Directive, spec: &mut PoolSpec, report: &mut Report<'_>) {
    for word in report.args(option, 1..=usize::MAX, "resolver IP[:PORT]...") {
        match Address::parse(&word.text) {
            Ok(address) if address.transport == Transport::Plain => {
                if spec.resolvers.len() == MAX_UPSTREAMS {
                    report.add(
                        Diagnostic::error(word.span, format!("more than {MAX_UPSTREAMS} resolvers"))
                            .label("one too many")
                            .help(format!("name at most {MAX_UPSTREAMS}")),
                    );
                    return;
                }
                spec.resolvers.push(address);
            }
            _ => report.add(
                Diagnostic::error(word.span, format!("`{word}` is not the address of a resolver"))
                    .help("write `10.0.0.10`, `10.0.0.10:5353` or `[fd00::1]:53`"),
            ),
        }
    }
}

fn tls(option: &Directive, tls: &mut TlsSpec, report: &mut Report<'_>) {
    let path = |word: &Token| PathBuf::from(&*word.text);
    let identity = |certificate, key| Some(ClientIdentity { certificate: path(certificate), key: path(key) });
    match report.args(option, 0..=3, "tls [CERT KEY] [CA]") {
        [ca] => tls.ca = Some(path(ca)),
        [certificate, key] => tls.identity = identity(certificate, key),
        [certificate, key, ca] => {
            tls.identity = identity(certificate, key);
            tls.ca = Some(path(ca));
        }
        _ => {}
    }
}

/// What options say about each other.
fn check(line: &Directive, spec: &PoolSpec, report: &mut Report<'_>) {
    let place = |name: &str| {
        options(line).iter().find(|option| &*option.name.text == name).map_or(line.name.span, Directive::span)
    };
    if spec.max_age.is_some_and(|age| age < spec.expire) {
        report.add(
            Diagnostic::error(place("max_age"), format!("`max_age` is less than `expire` ({:?})", spec.expire))
                .help("make `max_age` at least as long, or leave it out"),
        );
    }
    let transport = |target: &Target| match target {
        Target::Address(address) => Some(address.transport),
        Target::Host { transport, .. } => Some(*transport),
        Target::File(_) => None,
    };
    let names_certificate = |target: &Target| matches!(target, Target::Address(at) if at.server_name.is_some());
    if spec.tls.server_name.is_some() && spec.targets.iter().any(names_certificate) {
        report.add(
            Diagnostic::error(place("tls_servername"), "an upstream already names its certificate after `%`")
                .help("use `%NAME` on the upstreams, or `tls_servername` for all of them, not both"),
        );
    }
    if spec.tls != TlsSpec::default() && !spec.targets.iter().any(|target| transport(target) == Some(Transport::Tls)) {
        let name = if spec.tls.server_name.is_some() { "tls_servername" } else { "tls" };
        report.add(
            Diagnostic::warning(place(name), format!("`{name}` has no effect: no upstream is spoken to over TLS"))
                .help("write the upstream as `tls://IP`"),
        );
    }
    if !spec.resolvers.is_empty() && !spec.targets.iter().any(|target| matches!(target, Target::Host { .. })) {
        report.add(
            Diagnostic::warning(place("resolver"), "`resolver` has no effect: no upstream is a host name")
                .help("remove it"),
        );
    }
    if let (Some(source), false) = (spec.source_address, spec.targets.is_empty()) {
        let reachable = |target: &Target| match target {
            Target::Address(address) => address.socket.is_ipv4() == source.is_ipv4(),
            Target::File(_) | Target::Host { .. } => true,
        };
        if !spec.targets.iter().any(reachable) {
            report.add(
                Diagnostic::error(place("source_address"), format!("no upstream can be asked from {source}"))
                    .help("give a source address of the same family as the upstreams"),
            );
        }
    }
}
