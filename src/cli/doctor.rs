//! `doctor`: how DNS stands on this node, in plain words, with what to do about it. Looks, and changes nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::task::JoinSet;

use super::flags::Flags;
use super::scrape::{self, METRICS};
use crate::dns::Protocol;
use crate::life::options::Unset;
use crate::life::resolvconf::nameservers;
use crate::node::Rules;
use crate::node::diagnosis::{Facts, Question, look};
use crate::observe::counters::UPSTREAM_UP;
use crate::observe::probe;
use crate::sys::process::{Listener, listeners};

mod findings;

use findings::{Finding, Verdict, findings};

/// How long an address may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The files that say which servers this node asks; the second is what stands behind the first with systemd-resolved.
const RESOLV_CONF: &str = "/etc/resolv.conf";
const RESOLVED_CONF: &str = "/run/systemd/resolve/resolv.conf";

/// Everything that was looked at.
struct Examined {
    facts: Facts,
    link: String,
    /// What stood in `-localip` instead of an address.
    unset: Vec<Unset>,
    dns_port: u16,
    rules: Rules,
    listeners: Vec<Listener>,
    answers: Vec<Answer>,
    /// The servers in `/etc/resolv.conf` and in the file behind it; `None` for a file that is not there.
    resolv_conf: [Option<Vec<SocketAddr>>; 2],
    /// The metrics endpoint and who listens there.
    metrics: Option<(SocketAddr, Vec<Listener>)>,
    /// Whether each upstream is used, as the metrics tell.
    upstreams: BTreeMap<String, bool>,
}

/// What came of one question.
struct Answer {
    address: IpAddr,
    protocol: Protocol,
    result: Result<Duration, probe::Failure>,
}

/// Prints one line for each finding; failure if one is a problem.
pub(super) fn doctor(flags: &Flags) -> ExitCode {
    let examined = match super::runtime() {
        Ok(runtime) => runtime.block_on(examine(flags)),
        Err(code) => return code,
    };
    let findings = findings(&examined);
    let code = match findings.iter().any(|finding| finding.verdict == Verdict::Problem) {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    };
    super::say(&rendered(&findings), code)
}

async fn examine(flags: &Flags) -> Examined {
    let rules = if flags.setupiptables { flags.rules } else { Rules::None };
    let question = Question {
        link: flags.interfacename.clone(),
        addresses: flags.addresses(),
        ports: [flags.dns_port, flags.health_port],
        rules,
    };
    let facts = look(&question).await;
    let answers = ask(&facts.addresses, flags.dns_port).await;
    let metrics = flags.metrics_listen_address.as_ref().map_or(Some(METRICS), |given| given.0);
    let metrics = metrics.map(|address| (address, listeners(address.port())));
    let upstreams = match &metrics {
        Some((address, listeners)) if !listeners.is_empty() => upstreams(*address).await,
        _ => BTreeMap::new(),
    };
    Examined {
        answers,
        link: question.link,
        unset: flags.unset(),
        dns_port: flags.dns_port,
        rules,
        listeners: listeners(flags.dns_port),
        resolv_conf: [RESOLV_CONF, RESOLVED_CONF].map(servers),
        metrics,
        upstreams,
        facts,
    }
}

/// Asks every address over both transports at once.
async fn ask(addresses: &[IpAddr], port: u16) -> Vec<Answer> {
    let mut asking = JoinSet::new();
    for address in addresses.iter().copied() {
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            asking.spawn(async move {
                let result = probe::ask(SocketAddr::new(address, port), protocol, PATIENCE, None).await;
                Answer { address, protocol, result }
            });
        }
    }
    asking.join_all().await
}

/// Whether each upstream is used, by its label; empty where nobody tells.
async fn upstreams(endpoint: SocketAddr) -> BTreeMap<String, bool> {
    let told = scrape::fetch(endpoint).await.map(|figures| figures.by(&UPSTREAM_UP, "to"));
    told.unwrap_or_default().into_iter().map(|(to, up)| (to, up != 0.0)).collect()
}

fn servers(path: &str) -> Option<Vec<SocketAddr>> {
    let text = std::fs::read(PathBuf::from(path)).ok()?;
    Some(nameservers(&String::from_utf8_lossy(&text)).iter().map(|server| server.socket).collect())
}

/// The report: verdicts in a column, advice below what it is about, a sum at the end.
fn rendered(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        text += &format!("{:<8} {}\n", finding.verdict.word(), finding.text);
        if let Some(advice) = &finding.advice {
            text += &format!("{:<8} -> {advice}\n", "");
        }
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let counted = |number: usize, one: &str| match number {
        1 => format!("1 {one}"),
        _ => format!("{number} {one}s"),
    };
    let sum = [counted(count(Verdict::Problem), "problem"), counted(count(Verdict::Warning), "warning")].join(", ");
    let skipped = match count(Verdict::Skipped) {
        0 => String::new(),
        skipped => format!("; {} skipped: run it as root", counted(skipped, "line")),
    };
    text + &sum + &skipped + "\n"
}

#[cfg(test)]
mod tests;
