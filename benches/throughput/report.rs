//! From samples to the table, the verdict and the JSON file.

use std::fmt::Write as _;
use std::time::Duration;

use crate::cell::{Cell, Sample};
use crate::search::{Findings, Part};
use crate::servers::Kind;
use crate::start::Starts;

/// How much more CPU than the floor a hit may cost.
const FLOOR_FACTOR: f64 = 1.25;
/// Resident memory allowed with 10,000 names cached.
const MEMORY_KIB: u64 = 25 * 1024;

/// Everything that was measured in one run.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) samples: Vec<Sample>,
    /// KiB after filling 10,000 names into a fresh server.
    pub(crate) filled_kib: Vec<(Kind, u64)>,
    /// How long each server took to its first answer.
    pub(crate) starts: Starts,
    /// What was found out about search lists.
    pub(crate) search: Vec<(Part, Findings)>,
}

/// Whether a target was met, with the figures; none where something needed was not measured.
pub(crate) struct Target {
    pub(crate) text: String,
    pub(crate) met: Option<bool>,
}

impl Report {
    /// One block of lines for each cell, one line for each server: medians over the rounds.
    pub(crate) fn table(&self) -> String {
        let mut out = String::new();
        for cell in Cell::ALL {
            if self.samples.iter().all(|sample| sample.cell != cell) {
                continue;
            }
            let _ = writeln!(out, "\n{}", cell.title());
            let _ = writeln!(
                out,
                "  {:<8}{:>9}{:>9}{:>8}{:>8}{:>7}{:>9}{:>9}{:>9}{:>7}{:>12}{:>9}{:>9}{:>11}",
                "server",
                "q/s",
                "cpu us/q",
                "user",
                "sys",
                "busy",
                "p50 us",
                "p99 us",
                "p99.9 us",
                "lost",
                "upstream/q",
                "RSS MiB",
                "x floor",
                "x unbound"
            );
            for kind in Kind::ALL {
                self.line(&mut out, cell, kind);
            }
        }
        if !self.filled_kib.is_empty() {
            let _ = writeln!(out, "\nresident memory of a fresh server after 10,000 names");
            for (kind, kib) in &self.filled_kib {
                let _ = writeln!(out, "  {:<8}{:>9.1} MiB", kind.name(), mib(*kib));
            }
        }
        out.push_str(&self.starts.table());
        for (_, findings) in &self.search {
            out.push_str(&findings.table);
        }
        out
    }

    fn line(&self, out: &mut String, cell: Cell, kind: Kind) {
        let Some(cpu) = self.median(cell, kind, |sample| sample.cpu) else { return };
        let value = |of: fn(&Sample) -> f64| self.median(cell, kind, of).unwrap_or_default();
        let lost: u64 = self.of(cell, kind).map(|sample| sample.lost + sample.wrong).sum();
        let ratio = |to| self.ratio(cell, kind, to).map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        let _ = writeln!(
            out,
            "  {:<8}{:>9.0}{:>9.2}{:>8.2}{:>8.2}{:>6.0}%{:>9.1}{:>9.1}{:>9.1}{:>7}{:>12.4}{:>9.1}{:>9}{:>11}",
            kind.name(),
            value(|sample| sample.per_second),
            cpu,
            value(|sample| sample.user),
            value(|sample| sample.system),
            value(|sample| sample.busy * 100.0),
            value(|sample| micros(sample.p50)),
            value(|sample| micros(sample.p99)),
            value(|sample| micros(sample.p999)),
            lost,
            value(|sample| sample.upstream),
            value(|sample| mib(sample.resident_kib)),
            ratio(Kind::Floor),
            ratio(Kind::Unbound),
        );
    }

    /// The targets, one line each, and whether none of them was missed.
    pub(crate) fn verdict(&self) -> (String, bool) {
        let mut out = String::from("\ntargets\n");
        let mut good = true;
        let own = self.targets();
        for target in own.iter().chain(self.search.iter().flat_map(|(_, findings)| &findings.targets)) {
            let word = match target.met {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "not measured",
            };
            good &= target.met != Some(false);
            let _ = writeln!(out, "  {word:<14}{}", target.text);
        }
        (out, good)
    }

    fn targets(&self) -> Vec<Target> {
        let mut targets = Vec::new();
        for cell in [Cell::HotSaturated, Cell::HotPaced] {
            let ratio = self.ratio(cell, Kind::Dnslet, Kind::Floor);
            targets.push(Target {
                text: format!("{}: at most {FLOOR_FACTOR} x floor, is {}", cell.name(), shown(ratio)),
                met: ratio.map(|ratio| ratio <= FLOOR_FACTOR),
            });
        }
        for cell in Cell::ALL {
            let ratio = self.ratio(cell, Kind::Dnslet, Kind::Unbound);
            targets.push(Target {
                text: format!("{}: no worse than unbound, is {}", cell.name(), shown(ratio)),
                met: ratio.map(|ratio| ratio <= 1.0),
            });
        }
        let filled = self.filled_kib.iter().find(|(kind, _)| *kind == Kind::Dnslet).map(|(_, kib)| *kib);
        targets.push(Target {
            text: format!(
                "resident with 10,000 names: at most {} MiB, is {}",
                MEMORY_KIB / 1024,
                filled.map_or_else(|| "unknown".to_owned(), |kib| format!("{:.1}", mib(kib)))
            ),
            met: filled.map(|kib| kib <= MEMORY_KIB),
        });
        let failed: u64 = self
            .samples
            .iter()
            .filter(|sample| sample.kind == Kind::Dnslet)
            .map(|sample| sample.lost + sample.wrong)
            .sum();
        let measured = self.samples.iter().any(|sample| sample.kind == Kind::Dnslet);
        targets.push(Target {
            text: format!("no query lost or answered wrongly by dnslet, were {failed}"),
            met: measured.then_some(failed == 0),
        });
        targets.push(self.starts.target());
        targets
    }

    /// All samples, for other programs.
    pub(crate) fn json(&self) -> serde_json::Value {
        let samples: Vec<_> = self
            .samples
            .iter()
            .map(|sample| {
                serde_json::json!({
                    "server": sample.kind.name(), "cell": sample.cell.name(), "round": sample.round,
                    "queries_per_second": sample.per_second, "cpu_us": sample.cpu, "user_us": sample.user,
                    "system_us": sample.system, "busy": sample.busy, "p50_us": micros(sample.p50),
                    "p99_us": micros(sample.p99), "p999_us": micros(sample.p999), "lost": sample.lost,
                    "wrong": sample.wrong, "upstream_per_query": sample.upstream, "resident_kib": sample.resident_kib,
                })
            })
            .collect();
        let filled: serde_json::Map<_, _> =
            self.filled_kib.iter().map(|(kind, kib)| (kind.name().to_owned(), (*kib).into())).collect();
        let search: serde_json::Map<_, _> =
            self.search.iter().map(|(part, findings)| (part.name().to_owned(), findings.json.clone())).collect();
        serde_json::json!({ "samples": samples, "resident_kib_with_10000_names": filled, "first_answer_ms": self.starts.json(),
                            "search": search })
    }

    fn of(&self, cell: Cell, kind: Kind) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| sample.cell == cell && sample.kind == kind)
    }

    fn median(&self, cell: Cell, kind: Kind, of: impl Fn(&Sample) -> f64) -> Option<f64> {
        median(self.of(cell, kind).map(of).collect())
    }

    /// How many times the CPU per query of `to` is that of `kind`: the median over rounds of the ratio within a
    /// round, since the two were measured next to each other there.
    fn ratio(&self, cell: Cell, kind: Kind, to: Kind) -> Option<f64> {
        let pairs = self.of(cell, kind).filter_map(|sample| {
            let other = self.of(cell, to).find(|other| other.round == sample.round)?;
            Some(sample.cpu / other.cpu)
        });
        median(pairs.collect())
    }
}

/// The middle one, or what is half way between the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some((lower + upper) / 2.0)
}

pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1000.0
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

fn shown(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "unknown".to_owned(), |ratio| format!("{ratio:.2}"))
}
