//! What applications on a node look up, through the stub's rules: queries, upstream queries and CPU per lookup, and how
//! long a lookup takes as a whole.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::{Findings, MODES, SHIPPED, start};
use crate::histogram::Histogram;
use crate::load::Pace;
use crate::pods::{self, Plan};
use crate::report::{Target, median, micros};
use crate::servers::Server;
use crate::stub::Name;
use crate::usage::Cpu;
use crate::workload::{NAMESPACES, Random, SERVICES, Zipf};

/// Lookups a second: without autopath, some 20,000 queries.
const RATE: u64 = 4000;
/// Lookups under way at saturation.
const WINDOW: usize = 64;
/// More lookups than any server does in a second.
const MOST: u64 = 200_000;
/// External names that are looked up again and again.
const EXTERNAL: usize = 250;
/// The share of upstream queries, and of CPU, that must be saved.
const UPSTREAM_SAVED: f64 = 0.7;
const CPU_SAVED: f64 = 0.5;

/// One agent, once; all but latencies and failures per lookup.
struct Sample {
    per_second: f64,
    client: f64,
    upstream: f64,
    /// Microseconds.
    cpu: f64,
    user: f64,
    /// Microseconds that the upstream used.
    answerer: f64,
    latency: Histogram,
    failed: u64,
}

/// How fast lookups come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Speed {
    Saturated,
    Paced,
}

impl Speed {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Saturated => "search-saturated",
            Self::Paced => "search-4k",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Saturated => "lookups of applications at saturation (half Services, half external), per lookup",
            Self::Paced => "lookups of applications, 4,000 a second, per lookup",
        }
    }

    /// The pace, and the time that is measured, in milliseconds: at a pace, until each name of the cluster has been asked
    /// for anew.
    fn plan(self) -> (Pace, u64) {
        match self {
            Self::Saturated => (Pace::Window(WINDOW), 2000),
            Self::Paced => (Pace::PerSecond(RATE), 5000),
        }
    }
}

pub(super) fn measure(speed: Speed, directory: &Path, quick: bool, rounds: usize) -> io::Result<Findings> {
    let agents = start(&SHIPPED, directory)?;
    let (pace, measure) = speed.plan();
    let (ramp, measure) = if quick { (200, 500) } else { (1000, measure) };
    let a_second = if speed == Speed::Paced { RATE } else { MOST };
    let mut samples = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        let names = draw(round, (a_second * (ramp + measure) / 1000) as usize);
        for (agent, samples) in agents.iter().zip(&mut samples) {
            let [ramp, measure] = [ramp, measure].map(Duration::from_millis);
            let plan = Plan { target: agent.address, names: &names, pace, ramp, measure };
            samples.push(sample(agent, &plan)?);
        }
    }
    Ok(Findings { table: table(speed, &samples, &agents[1])?, targets: targets(speed, &samples), json: json(&samples) })
}

/// What `count` lookups are for; each is by a pod of the next namespace in turn. Half are Services: of ten, seven of the
/// pod's own namespace by their first label, two with the namespace, one with `svc` behind it. Half are external, of
/// one, two or three labels under a top-level domain: nine of ten drawn from some that all pods share, by Zipf's law, one
/// looked up by nobody else.
fn draw(round: usize, count: usize) -> Vec<Name> {
    let mut random = Random::new(4 + round as u64);
    let (services, externals) = (Zipf::new(SERVICES), Zipf::new(EXTERNAL));
    let one = |i: usize| {
        if random.below(2) == 0 {
            let (service, other) = (services.draw(&mut random), random.below(NAMESPACES));
            let name = match random.below(10) {
                0..7 => format!("svc-{service}"),
                7..9 => format!("svc-{service}.team-{other}"),
                _ => format!("svc-{service}.team-{other}.svc"),
            };
            return Name::new(&name, [true, false]);
        }
        if random.below(10) == 0 {
            external(&format!("r{round}n{i}-"), random.below(EXTERNAL))
        } else {
            external("", externals.draw(&mut random))
        }
    };
    (0..count).map(one).collect()
}

/// Every fourth has no IPv6 address.
fn external(tag: &str, i: usize) -> Name {
    let top = ["com", "com", "com", "com", "com", "net", "org", "io", "dev"][i % 9];
    let site = format!("{tag}site-{i}.{top}");
    match i % 4 {
        0 => Name::new(&format!("v4-{site}"), [true, false]),
        1 => Name::new(&format!("cdn-www.{site}"), [true, true]),
        2 => Name::new(&format!("api.eu-1.{site}"), [true, true]),
        _ => Name::new(&format!("www.{site}"), [true, true]),
    }
}

fn sample(agent: &Server, plan: &Plan<'_>) -> io::Result<Sample> {
    let outcome = pods::run(plan, || {
        let answerer = agent.upstream_cpu_time()?;
        Ok((Cpu::of(&agent.processes)?, agent.upstream_queries(), answerer))
    })?;
    let lookups = outcome.finished.max(1) as f64;
    let (before, after) = (outcome.before, outcome.after);
    let used = after.0 - before.0;
    let cpu = used.nanos as f64 / 1000.0 / lookups;
    Ok(Sample {
        per_second: lookups / plan.measure.as_secs_f64(),
        client: outcome.queries as f64 / lookups,
        upstream: (after.1 - before.1) as f64 / lookups,
        cpu,
        user: cpu * used.user_share(),
        answerer: micros(after.2 - before.2) / lookups,
        latency: outcome.latency,
        failed: outcome.failed,
    })
}

fn table(speed: Speed, samples: &[Vec<Sample>; 2], on: &Server) -> io::Result<String> {
    let mut out = format!("\n{}\n", speed.title());
    let _ = writeln!(
        out,
        "  {:<10}{:>10}{:>9}{:>10}{:>9}{:>8}{:>8}{:>13}{:>9}{:>9}{:>10}{:>8}",
        "autopath",
        "lookups/s",
        "queries",
        "upstream",
        "cpu us",
        "user",
        "sys",
        "upstream us",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "failed"
    );
    for (mode, samples) in MODES.iter().zip(samples) {
        let value = |of: &dyn Fn(&Sample) -> f64| median(samples.iter().map(of).collect()).unwrap_or_default();
        let latency = |share: f64| value(&|sample| micros(sample.latency.quantile(share)));
        let _ = writeln!(
            out,
            "  {mode:<10}{:>10.0}{:>9.2}{:>10.3}{:>9.2}{:>8.2}{:>8.2}{:>13.2}{:>9.1}{:>9.1}{:>10.1}{:>8}",
            value(&|sample| sample.per_second),
            value(&|sample| sample.client),
            value(&|sample| sample.upstream),
            value(&|sample| sample.cpu),
            value(&|sample| sample.user),
            value(&|sample| sample.cpu - sample.user),
            value(&|sample| sample.answerer),
            latency(0.5),
            latency(0.99),
            latency(0.999),
            failed(samples)
        );
    }
    let counters: Vec<_> = on
        .counters("dnslet_autopath_")?
        .into_iter()
        .map(|(series, count)| format!("{} {count}", series.replace("_total", "")))
        .collect();
    let _ = writeln!(out, "  counted by the agent with autopath: {}", counters.join(", "));
    Ok(out)
}

/// The share that is saved: the median over rounds.
fn saved(samples: &[Vec<Sample>; 2], of: fn(&Sample) -> f64) -> f64 {
    let pairs = samples[0].iter().zip(&samples[1]);
    median(pairs.map(|(off, on)| 1.0 - of(on) / of(off)).collect()).unwrap_or_default()
}

fn failed(samples: &[Sample]) -> u64 {
    samples.iter().map(|sample| sample.failed).sum()
}

fn targets(speed: Speed, samples: &[Vec<Sample>; 2]) -> Vec<Target> {
    let cell = speed.name();
    let fall = |what: &str, least: f64, is: f64| Target {
        text: format!(
            "{cell}, {what} per lookup: falls by at least {:.0} %, falls by {:.1} %",
            least * 100.0,
            is * 100.0
        ),
        met: Some(is >= least),
    };
    let failed: u64 = samples.iter().map(|samples| failed(samples)).sum();
    vec![
        fall("upstream queries", UPSTREAM_SAVED, saved(samples, |sample| sample.upstream)),
        fall("CPU", CPU_SAVED, saved(samples, |sample| sample.cpu)),
        Target {
            text: format!("{cell}: no lookup lost or with another result, were {failed}"),
            met: Some(failed == 0),
        },
    ]
}

fn json(samples: &[Vec<Sample>; 2]) -> serde_json::Value {
    let rows = MODES.iter().zip(samples).flat_map(|(mode, samples)| {
        samples.iter().enumerate().map(move |(round, sample)| {
            serde_json::json!({
                "autopath": mode, "round": round, "lookups_per_second": sample.per_second, "queries": sample.client, "upstream": sample.upstream,
                "cpu_us": sample.cpu, "user_us": sample.user, "upstream_cpu_us": sample.answerer,
                "p50_us": micros(sample.latency.quantile(0.5)), "p99_us": micros(sample.latency.quantile(0.99)),
                "p999_us": micros(sample.latency.quantile(0.999)), "failed": sample.failed,
            })
        })
    });
    rows.collect()
}
