//! The cells of the table: a workload at a pace, and measuring one server in one of them.

use std::io;
use std::time::Duration;

use crate::load::{self, Length, Pace, Plan};
use crate::servers::{Kind, Server};
use crate::usage::{self, Cpu};
use crate::workload::Workload;

/// Queries in flight at saturation: enough to keep a server busy, few enough for any socket's receive buffer.
pub(crate) const WINDOW: usize = 128;
const RATE: u64 = 20_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    HotSaturated,
    HotPaced,
    NdotsSaturated,
    NdotsPaced,
    Cold,
}

impl Cell {
    pub(crate) const ALL: [Self; 5] =
        [Self::HotSaturated, Self::HotPaced, Self::NdotsSaturated, Self::NdotsPaced, Self::Cold];

    /// Short name, as in the JSON output.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::HotSaturated => "hot-saturated",
            Self::HotPaced => "hot-20k",
            Self::NdotsSaturated => "ndots-saturated",
            Self::NdotsPaced => "ndots-20k",
            Self::Cold => "cold-saturated",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::HotSaturated => "hot set at saturation (1,000 names, Zipf, all cached)",
            Self::HotPaced => "hot set at 20,000 q/s",
            Self::NdotsSaturated => "ndots mix at saturation (search path walks, A and AAAA, all cached)",
            Self::NdotsPaced => "ndots mix at 20,000 q/s",
            Self::Cold => "cold misses at saturation (every name new, all forwarded)",
        }
    }

    fn pace(self) -> Pace {
        match self {
            Self::HotPaced | Self::NdotsPaced => Pace::PerSecond(RATE),
            Self::HotSaturated | Self::NdotsSaturated | Self::Cold => Pace::Window(WINDOW),
        }
    }
}

/// How long each measurement takes.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) ramp: Duration,
    pub(crate) measure: Duration,
    /// Queries in the cold cell.
    pub(crate) misses: usize,
}

/// The workloads that are asked again and again.
pub(crate) struct Workloads {
    pub(crate) hot: Workload,
    pub(crate) ndots: Workload,
}

/// One server in one cell, once.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) kind: Kind,
    pub(crate) cell: Cell,
    pub(crate) round: usize,
    pub(crate) per_second: f64,
    /// Microseconds of CPU per answered query.
    pub(crate) cpu: f64,
    pub(crate) user: f64,
    pub(crate) system: f64,
    /// The share of its core the server used.
    pub(crate) busy: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) p999: Duration,
    pub(crate) lost: u64,
    pub(crate) wrong: u64,
    pub(crate) upstream: f64,
    pub(crate) resident_kib: u64,
}

/// Warms the cache of `server` as the cell asks for, and measures.
pub(crate) fn measure(
    server: &Server,
    cell: Cell,
    round: usize,
    workloads: &Workloads,
    effort: &Effort,
) -> io::Result<Sample> {
    let steady = Length::For { ramp: effort.ramp, measure: effort.measure };
    let cold;
    let (work, length) = match cell {
        Cell::HotSaturated | Cell::HotPaced => (&workloads.hot, steady),
        Cell::NdotsSaturated | Cell::NdotsPaced => (&workloads.ndots, steady),
        Cell::Cold => {
            cold = Workload::unique(&format!("round{round}"), effort.misses);
            (&cold, Length::Once)
        }
    };
    if cell != Cell::Cold {
        fill(server, work)?;
    }
    let plan = Plan {
        target: server.address,
        work,
        order: &work.order,
        pace: cell.pace(),
        length,
        echo: server.kind == Kind::Floor,
    };
    let outcome = load::run(&plan, || Ok((Cpu::of(&server.processes)?, server.upstream_queries())))?;
    let answered = outcome.answered.max(1) as f64;
    let used = outcome.after.0 - outcome.before.0;
    let cpu = used.nanos as f64 / 1000.0 / answered;
    Ok(Sample {
        kind: server.kind,
        cell,
        round,
        per_second: outcome.answered as f64 / outcome.elapsed.as_secs_f64(),
        cpu,
        user: cpu * used.user_share(),
        system: cpu * (1.0 - used.user_share()),
        busy: used.nanos as f64 / outcome.elapsed.as_nanos() as f64,
        p50: outcome.latency.quantile(0.50),
        p99: outcome.latency.quantile(0.99),
        p999: outcome.latency.quantile(0.999),
        lost: outcome.lost,
        wrong: outcome.wrong,
        upstream: (outcome.after.1 - outcome.before.1) as f64 / answered,
        resident_kib: usage::resident_kib(&server.processes)?,
    })
}

/// Asks every question of `work` once, and again until none of them is lost.
pub(crate) fn fill(server: &Server, work: &Workload) -> io::Result<()> {
    let order = work.once();
    for _ in 0..5 {
        let plan = Plan {
            target: server.address,
            work,
            order: &order,
            pace: Pace::Window(WINDOW / 2),
            length: Length::Once,
            echo: server.kind == Kind::Floor,
        };
        let outcome = load::run(&plan, || Ok(()))?;
        if outcome.lost + outcome.wrong == 0 {
            return Ok(());
        }
    }
    Err(io::Error::other(format!("{} does not give the expected answers", server.kind.name())))
}

/// Asks a floor that drops one query of `every`: (sent, dropped, reported as lost). The floor counts the query that
/// found it ready, too. With a window nothing else can be lost, however busy the machine is.
pub(crate) fn loss_check(floor: &Server, every: u64, count: usize) -> io::Result<(u64, u64, u64)> {
    let work = Workload::unique("loss", count);
    let plan = Plan {
        target: floor.address,
        work: &work,
        order: &work.order,
        pace: Pace::Window(WINDOW),
        length: Length::Once,
        echo: true,
    };
    let outcome = load::run(&plan, || Ok(()))?;
    let sent = count as u64;
    Ok((sent, (sent + 1) / every, outcome.lost))
}
