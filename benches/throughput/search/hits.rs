//! Replies from the cache with an `autopath` line in the block, against the same without it: names outside the cluster,
//! which no line concerns, and Services, which look like the first name of a search list and are it.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::{Findings, MODES, start};
use crate::cell::{WINDOW, fill};
use crate::load::{self, Length, Pace, Plan};
use crate::report::{Target, median};
use crate::servers::{Server, Setup};
use crate::usage::Cpu;
use crate::workload::Workload;

/// How much of the rate must be left.
const LEFT: f64 = 0.97;

const SETUPS: [Setup; 2] = [
    Setup { name: "-plain", ..Setup::LASTING },
    Setup {
        name: "-line",
        cluster: "cache {\n success 100000 3600\n denial 100000 1800\n }\n autopath @query {\n search .\n }",
        ..Setup::LASTING
    },
];

/// One agent, once.
struct Sample {
    /// Microseconds of CPU per reply.
    cpu: f64,
    per_second: f64,
    failed: u64,
}

pub(super) fn measure(directory: &Path, quick: bool, rounds: usize) -> io::Result<Findings> {
    let agents = start(&SETUPS, directory)?;
    let work = [("external names", Workload::hot()), ("Services of the cluster", Workload::services())];
    let mut findings = Findings { table: String::new(), targets: Vec::new(), json: serde_json::json!({}) };
    let _ = writeln!(
        findings.table,
        "\nreplies from the cache at saturation, the line in the block against none (q/s, cpu us/q)"
    );
    let _ = writeln!(findings.table, "  {:<28}{:>20}{:>20}{:>12}", "", MODES[0], MODES[1], "x off");
    for (what, work) in &work {
        for agent in &agents {
            fill(agent, work)?;
        }
        let mut samples = [Vec::new(), Vec::new()];
        for round in 0..rounds {
            // Whoever comes second in a round comes first in the next.
            for mode in [round % 2, (round + 1) % 2] {
                samples[mode].push(sample(&agents[mode], work, quick)?);
            }
        }
        note(&mut findings, what, &samples);
    }
    Ok(findings)
}

fn sample(agent: &Server, work: &Workload, quick: bool) -> io::Result<Sample> {
    let measure = Duration::from_millis(if quick { 200 } else { 1500 });
    let length = Length::For { ramp: Duration::from_millis(100), measure };
    let pace = Pace::Window(WINDOW);
    let plan = Plan { target: agent.address, work, order: &work.order, pace, length, echo: false };
    let outcome = load::run(&plan, || Cpu::of(&agent.processes))?;
    let answered = outcome.answered.max(1) as f64;
    Ok(Sample {
        cpu: (outcome.after - outcome.before).nanos as f64 / 1000.0 / answered,
        per_second: answered / outcome.elapsed.as_secs_f64(),
        failed: outcome.lost + outcome.wrong,
    })
}

fn note(findings: &mut Findings, what: &str, samples: &[Vec<Sample>; 2]) {
    let pairs = || samples[0].iter().zip(&samples[1]);
    let left = median(pairs().map(|(off, on)| off.cpu / on.cpu).collect()).unwrap_or_default();
    let failed: u64 = samples.iter().flatten().map(|sample| sample.failed).sum();
    let cell = |mode: usize| {
        let value = |of: fn(&Sample) -> f64| median(samples[mode].iter().map(of).collect()).unwrap_or_default();
        format!("{:.0} ({:.2})", value(|sample| sample.per_second), value(|sample| sample.cpu))
    };
    let _ = writeln!(findings.table, "  {what:<28}{:>20}{:>20}{left:>12.3}", cell(0), cell(1));
    findings.targets.push(Target {
        text: format!("search-hits, {what}: at least {LEFT} of the replies for the same CPU, is {left:.3}"),
        met: Some(left >= LEFT),
    });
    findings.targets.push(Target {
        text: format!("search-hits, {what}: no query lost or answered wrongly, were {failed}"),
        met: Some(failed == 0),
    });
    let cpu: Vec<_> = pairs().map(|(off, on)| (off.cpu, on.cpu)).collect();
    findings.json[what] = serde_json::json!(cpu);
}
