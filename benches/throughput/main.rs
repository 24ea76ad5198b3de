//! The throughput bench: dnslet, its peers and the floor on one core, a load generator on another. It prints CPU per
//! query, rates, latencies, losses and memory, and whether the targets are met. docs/benchmarks.md tells how to read
//! what it prints.
#![allow(clippy::print_stdout, reason = "printing is what it is for")]

mod answerer;
mod cell;
mod cores;
mod floor;
mod histogram;
mod load;
mod pods;
mod report;
mod search;
mod servers;
mod start;
mod stub;
mod sys;
mod usage;
mod workload;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;

use cell::{Cell, Effort, Workloads};
use report::Report;
use search::Part;
use servers::{Kind, Server};
use workload::Workload;

/// Measures CPU per query, rate, latency, losses and memory of dnslet, other DNS servers and a bare echo.
#[derive(Parser)]
#[command(name = "throughput")]
struct Options {
    /// A few short measurements, to see that everything works; the figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// Only these servers, and the floor: dnslet, unbound, dnsdist, dnsmasq, floor (may be repeated).
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Only these cells: hot-saturated, hot-20k, ndots-saturated, ndots-20k, cold-saturated, start, and of search lists
    /// search-names, search-saturated, search-4k, search-hits (may be repeated).
    #[arg(long, value_name = "CELL")]
    cell: Vec<String>,
    /// Another build of dnslet (an older one, or the static one of the image), measured beside this one.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Rounds over all cells and servers.
    #[arg(long)]
    rounds: Option<usize>,
    /// Writes every sample to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let result = if arguments.next().as_deref() == Some(floor::ARGUMENT) {
        be_the_floor(arguments).map(|()| true)
    } else {
        compare(&Options::parse())
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("throughput: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn be_the_floor(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let address = arguments.next().context("an address follows")?.parse()?;
    let drop_every = arguments.next().context("a number follows the address")?.parse()?;
    Ok(floor::serve(address, drop_every)?)
}

/// The whole run; false when a target was missed.
fn compare(options: &Options) -> Result<bool> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("throughput-{}", std::process::id()));
    let (load, server) = cores::split()?;
    check_names(&options.only, &Kind::ALL.map(Kind::name), "server")?;
    let cells = [&Cell::ALL.map(Cell::name)[..], &[start::NAME], &Part::ALL.map(Part::name)].concat();
    check_names(&options.cell, &cells, "cell")?;
    let mut kinds = chosen(&options.only, &Kind::ALL, Kind::name);
    kinds.retain(|&kind| kind != Kind::Against);
    if let Some(program) = &options.against {
        servers::compare_against(&fs::canonicalize(program).with_context(|| program.display().to_string())?);
        let beside = kinds.iter().position(|&kind| kind == Kind::Dnslet).map_or(kinds.len(), |at| at + 1);
        kinds.insert(beside, Kind::Against);
    }
    let cells = chosen(&options.cell, &Cell::ALL, Cell::name);
    let kinds = introduce(kinds, load, server);
    check_the_loss_meter(&directory)?;
    let (effort, rounds) = effort(options);
    let mut report = Report::default();
    if !cells.is_empty() {
        measure_cells(&mut report, &cells, &kinds, &directory, &effort, rounds)?;
    }
    if !chosen(&options.cell, &[start::NAME], |name| name).is_empty() {
        report.starts = start::measure(&kinds, &directory, options.quick)?;
    }
    // Only dnslet knows search lists.
    let parts = if kinds.contains(&Kind::Dnslet) { chosen(&options.cell, &Part::ALL, Part::name) } else { Vec::new() };
    for part in parts {
        let findings = search::measure(part, &directory, options.quick, rounds).with_context(|| part.name())?;
        report.search.push((part, findings));
    }
    print!("{}", report.table());
    let (text, good) = report.verdict();
    print!("{text}");
    if let Some(file) = &options.json {
        fs::write(file, serde_json::to_string_pretty(&report.json())?)
            .with_context(|| format!("writing {}", file.display()))?;
    }
    fs::remove_dir_all(&directory)?;
    if options.quick {
        println!("  (a quick run: none of this is a measurement)");
    }
    Ok(good || options.quick)
}

fn measure_cells(
    report: &mut Report,
    cells: &[Cell],
    kinds: &[Kind],
    directory: &Path,
    effort: &Effort,
    rounds: usize,
) -> Result<()> {
    let servers = kinds.iter().map(|&kind| Server::start(kind, directory, 0)).collect::<std::io::Result<Vec<_>>>()?;
    let workloads = Workloads { hot: Workload::hot(), ndots: Workload::ndots() };
    for round in 0..rounds {
        for &cell in cells {
            for server in servers.iter().filter(|server| cell != Cell::Cold || server.kind != Kind::Floor) {
                let sample = cell::measure(server, cell, round, &workloads, effort)
                    .with_context(|| format!("{}, {}", server.kind.name(), cell.name()))?;
                report.samples.push(sample);
            }
        }
    }
    drop(servers);
    for &kind in kinds.iter().filter(|&&kind| kind != Kind::Floor) {
        report.filled_kib.push((kind, resident_with_names(kind, directory, 10_000)?));
    }
    Ok(())
}

fn check_names(given: &[String], known: &[&str], what: &str) -> Result<()> {
    match given.iter().find(|name| !known.contains(&name.as_str())) {
        Some(name) => bail!("no {what} is called {name}; there are {}", known.join(", ")),
        None => Ok(()),
    }
}

/// The values whose names were given, or all of them where none was.
fn chosen<T: Copy>(names: &[String], all: &[T], name: fn(T) -> &'static str) -> Vec<T> {
    all.iter().copied().filter(|&value| names.is_empty() || names.iter().any(|n| n == name(value))).collect()
}

/// Prints what takes part, and leaves out what is not installed. The floor always takes part.
fn introduce(mut kinds: Vec<Kind>, load: usize, server: usize) -> Vec<Kind> {
    println!("load generator on core {load}, server under test on core {server}, loopback, UDP, one worker each");
    if !kinds.contains(&Kind::Floor) {
        kinds.insert(0, Kind::Floor);
    }
    kinds.retain(|kind| match kind.version() {
        Some(version) => {
            println!("  {:<8} {version}", kind.name());
            true
        }
        None => {
            println!("  {:<8} left out: not found; apt-get install unbound dnsdist dnsmasq-base", kind.name());
            false
        }
    });
    kinds
}

/// A meter of losses that shows none proves nothing unless it shows those that there are.
fn check_the_loss_meter(directory: &Path) -> Result<()> {
    let every = 7;
    let floor = Server::start(Kind::Floor, directory, every)?;
    let (sent, dropped, reported) = cell::loss_check(&floor, every, 800)?;
    if dropped != reported {
        bail!("the loss meter reports {reported} of {sent} queries where {dropped} were dropped");
    }
    println!("loss meter: the floor dropped {dropped} of {sent} queries on purpose, {reported} were reported lost");
    Ok(())
}

fn effort(options: &Options) -> (Effort, usize) {
    let (effort, rounds) = if options.quick {
        let (ramp, measure) = (Duration::from_millis(50), Duration::from_millis(300));
        (Effort { ramp, measure, misses: 2_000 }, 1)
    } else {
        let (ramp, measure) = (Duration::from_millis(200), Duration::from_secs(2));
        (Effort { ramp, measure, misses: 20_000 }, 5)
    };
    (effort, options.rounds.unwrap_or(rounds))
}

fn resident_with_names(kind: Kind, directory: &Path, names: usize) -> Result<u64> {
    let server = Server::start(kind, directory, 0)?;
    cell::fill(&server, &Workload::unique("fill", names))?;
    Ok(usage::resident_kib(&server.processes)?)
}
