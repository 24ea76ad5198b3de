//! dnslet on a node, shown in a few seconds without root: `make demo`. The node, its pods and the cluster's DNS are
//! namespaces that end with this process; every figure printed is measured while it runs.
#![allow(clippy::print_stdout, reason = "showing is what it is for")]
#![allow(unreachable_pub, dead_code, reason = "the cluster is shared with the test on a real kernel")]

#[path = "../cluster/mod.rs"]
mod cluster;
mod cost;
mod namespace;
mod search;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use cluster::agent::{Agent, CACHE, CACHE_AND_AUTOPATH, Install};
use cluster::lookup::{self, Transport, Who};
use cluster::{ASKED, Cluster, LINK_LOCAL, LINK_LOCAL_V6, NAME, SERVICE};
use cost::Cost;
use dnslet::sys::clock;

/// How far away the cluster's DNS is: between the zones of a cloud, or a busy server in the same one.
const DISTANCE: Duration = Duration::from_micros(500);
/// What is looked up: a name inside the cluster and one outside.
const NAMES: [&str; 2] = ["orders.shop.svc.cluster.local", "www.example.com"];
/// How long the agent may take to start.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let directory = std::env::temp_dir().join(format!("dnslet-demo-{}", std::process::id()));
    let result = namespace::enter().and_then(|()| show(&directory));
    let log = std::fs::read_to_string(directory.join("log")).unwrap_or_default();
    std::fs::remove_dir_all(&directory).unwrap_or_default();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            if !log.is_empty() {
                eprintln!("The agent's log:\n{log}");
            }
            ExitCode::FAILURE
        }
    }
}

fn show(directory: &std::path::Path) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    let install = Install { program: program()?, directory: directory.to_owned() };
    let cluster = Cluster::build(DISTANCE)?;
    println!(
        "A node with two pods. The cluster's DNS, two servers on another node, is made to take {} ms for an answer;\n\
         its Service IP is {SERVICE}, translated as kube-proxy does it. No root, nothing outside of this process.\n",
        DISTANCE.as_secs_f64() * 1000.0
    );
    let before = (NAMES.map(|name| Cost::measure(&cluster, name)), search::Cost::measure(&cluster)?);
    let mut agent = start(&install, &cluster, CACHE)?;
    let after = (NAMES.map(|name| Cost::measure(&cluster, name)), search::Cost::measure(&cluster)?);
    agent.stop()?;
    agent = start(&install, &cluster, CACHE_AND_AUTOPATH)?;
    let walked = search::Cost::measure(&cluster)?;
    cost::print(NAMES, before.0, after.0)?;
    println!();
    search::print(&before.1, &after.1, &walked);

    println!("\n{:36}{LINK_LOCAL:<16}{LINK_LOCAL_V6:<20}{SERVICE}", "Who answers, at which address");
    row("dnslet runs", &cluster)?;
    let killed = clock::now();
    agent.kill()?;
    let waited = until_answered(&cluster, killed)?;
    row("dnslet is killed (SIGKILL)", &cluster)?;
    agent = start(&install, &cluster, CACHE_AND_AUTOPATH)?;
    row("dnslet is started again", &cluster)?;
    agent.stop()?;
    row("dnslet is stopped (SIGTERM)", &cluster)?;
    println!(
        "Both pods and the node asked, over UDP and TCP. After the kill a pod had answers at all three within {:.1} ms.",
        waited.as_secs_f64() * 1000.0
    );
    println!("\ndnslet cleanup:\n{}", install.clean_up()?.trim_end());
    Ok(())
}

/// The agent that was built beside this program.
fn program() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let program = own.ancestors().nth(2).context("a directory of programs")?.join("dnslet");
    if !program.exists() {
        bail!("{} is not built: cargo build", program.display());
    }
    Ok(program)
}

/// Starts the agent with these lines for the cluster's zone and waits until it answers everybody.
fn start(install: &Install, cluster: &Cluster, lines: &str) -> Result<Agent> {
    let (mut agent, start) = (install.start_with(lines), clock::now());
    loop {
        if let Some(status) = agent.ended()? {
            bail!("the agent ended by itself ({status})");
        }
        if cluster.answered_by(Who::Agent).unwrap_or(false) {
            return Ok(agent);
        }
        if start.elapsed() > PATIENCE {
            bail!("the agent does not answer after {} s", PATIENCE.as_secs());
        }
    }
}

/// One line: who answers at each address.
fn row(state: &str, cluster: &Cluster) -> Result<()> {
    let heard = ASKED.map(|address| cluster.who_answers(address));
    let [first, second, third] = heard.map(|heard| {
        let names: Vec<String> = heard?.iter().map(Who::to_string).collect();
        Ok::<_, std::io::Error>(names.join(" + "))
    });
    println!("  {state:34}{:16}{:20}{}", first?, second?, third?);
    Ok(())
}

/// How long after the kill a pod has had an answer from every address, asking again each 20 ms as long as there is none.
fn until_answered(cluster: &Cluster, killed: Instant) -> Result<Duration> {
    for address in ASKED {
        let ask = move || lookup::ask_within(address, NAME, Transport::Udp, Duration::from_millis(20));
        while cluster.pods[0].run(ask).is_err() {
            if killed.elapsed() > PATIENCE {
                bail!("nobody answers at {address} after the agent was killed");
            }
        }
    }
    Ok(killed.elapsed())
}
