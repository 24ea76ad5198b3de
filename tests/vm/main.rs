//! What a node's network goes through with dnslet on it, on a whole kernel: `tests/vm/run` boots one with this program
//! and the agent. Each step prints how long it took; the first that fails ends the run with what there is to know.
#![allow(clippy::print_stdout, reason = "it prints its verdict on the console")]
#![allow(unreachable_pub, dead_code, reason = "the cluster is shared with the demo")]

#[path = "../cluster/mod.rs"]
mod cluster;
mod kernel;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};

use cluster::agent::{Agent, Install};
use cluster::lookup::Who;
use cluster::{ASKED, Cluster, LINK_LOCAL, LINK_LOCAL_V6, SERVICE, netfilter, run};
use dnslet::sys::clock;
use kernel::{LINK, repair_time, within};

/// When waiting for a process to start or to notice something is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest the node may stay damaged.
const REPAIR: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [program, directory] = arguments.as_slice() else {
        println!("usage: vm PROGRAM DIRECTORY");
        return ExitCode::FAILURE;
    };
    let install = Install { program: program.clone(), directory: directory.clone() };
    match all(&install) {
        Ok(()) => {
            println!("every step passed");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("FAILED: {error:#}\n--- the agent's log:\n{}", install.log());
            for (program, arguments) in [("ip", "address"), ("ip", "route"), ("nft", "list ruleset")] {
                let printed = run(program, &arguments.split(' ').collect::<Vec<_>>(), "");
                println!("--- {program} {arguments}:\n{}", printed.unwrap_or_else(|error| error.to_string()));
            }
            ExitCode::FAILURE
        }
    }
}

fn all(install: &Install) -> Result<()> {
    println!("{}", std::fs::read_to_string("/proc/version")?.trim());
    let cluster = step("a cluster without an agent: every lookup leaves a conntrack entry", || {
        let cluster = Cluster::build(Duration::ZERO)?;
        ensure!(cluster.who_answers(SERVICE.into())?.eq(&[Who::ClusterDns].into()));
        let flows = netfilter::dns_flows()?.len();
        ensure!(flows == 6, "6 lookups, and {flows} entries");
        Ok(cluster)
    })?;
    let mut agent = step("the agent makes a dummy link with its addresses, and answers", || {
        let mut agent = install.start();
        within(PATIENCE, "the link, its addresses and the rules", || kernel::whole().unwrap_or(false))?;
        until_answered_by(&cluster, &mut agent)?;
        let link = run("ip", &["-details", "link", "show", LINK], "")?;
        ensure!(link.contains("dummy"), "{link}");
        Ok(agent)
    })?;
    step("lookups at its addresses leave no conntrack entry", || untracked(&cluster))?;
    step("kill -9 for the server: every lookup is answered, soon by the next one", || {
        let first = agent.server()?;
        kill(first, Signal::SIGKILL)?;
        // By the next one as soon as it serves; where that takes long, by cluster DNS until then.
        ASKED.iter().try_for_each(|server| cluster.who_answers(*server).map(drop))?;
        until_answered_by(&cluster, &mut agent)?;
        ensure!(agent.server()? != first, "process {first} is still there");
        Ok(())
    })?;
    repairs(&cluster, &mut agent)?;
    step("kill -9 for the keeper: its rules are gone with it, and cluster DNS answers", || {
        ensure!(!kernel::own_tables()?.is_empty(), "there are no rules of its own");
        let server = agent.server()?;
        agent.kill()?;
        ensure!(kernel::own_tables()?.is_empty(), "its rules outlive it");
        ensure!(cluster.answered_by(Who::ClusterDns)?, "somebody else answers");
        within(PATIENCE, "the server to end", || kill(server, None).is_err())
    })?;
    agent = step("the agent again: it answers", || {
        let mut agent = install.start();
        until_answered_by(&cluster, &mut agent)?;
        untracked(&cluster)?;
        Ok(agent)
    })?;
    step("SIGTERM: exit code 0, and cluster DNS answers", || {
        let status = agent.stop()?;
        ensure!(status.success(), "{status}");
        ensure!(kernel::own_tables()?.is_empty(), "its own rules outlive it");
        ensure!(cluster.answered_by(Who::ClusterDns)?, "somebody else answers");
        Ok(())
    })?;
    step("dnslet cleanup leaves nothing", || {
        install.clean_up()?;
        let tables = netfilter::tables()?;
        ensure!(!tables.iter().any(|name| name.starts_with("dnslet")), "{tables:?}");
        ensure!(run("ip", &["link", "show", LINK], "").is_err(), "the link is still there");
        ensure!(cluster.who_answers(SERVICE.into())?.eq(&[Who::ClusterDns].into()));
        install.clean_up().context("once more").map(drop)
    })
}

/// Damage of every kind, undone within a second.
fn repairs(cluster: &Cluster, agent: &mut Agent) -> Result<()> {
    let (v4, v6) = (format!("{LINK_LOCAL}/32"), format!("{LINK_LOCAL_V6}/128"));
    let damages: [(&str, &[&str]); 5] = [
        ("ip", &["link", "delete", LINK]),
        ("ip", &["link", "set", LINK, "down"]),
        ("ip", &["address", "delete", &v4, "dev", LINK]),
        ("ip", &["address", "delete", &v6, "dev", LINK]),
        ("nft", &["flush", "ruleset"]),
    ];
    for (program, arguments) in damages {
        step(&format!("{program} {}: repaired, and answered by the agent", arguments.join(" ")), || {
            let took = repair_time(|| Ok(run(program, arguments, "").map(drop)?))?;
            ensure!(took < REPAIR, "repaired after {:.3} s", took.as_secs_f64());
            if program == "nft" {
                cluster.translate_service()?;
            }
            until_answered_by(cluster, agent)?;
            println!("   {:6.3} s until it was repaired", took.as_secs_f64());
            Ok(())
        })?;
    }
    Ok(())
}

/// Asks until the agent answers everybody at every address.
fn until_answered_by(cluster: &Cluster, agent: &mut Agent) -> Result<()> {
    let mut ended = None;
    within(PATIENCE, "the agent to answer", || {
        ended = agent.ended().transpose();
        ended.is_some() || cluster.answered_by(Who::Agent).unwrap_or(false)
    })?;
    match ended {
        Some(status) => anyhow::bail!("the agent ended: {}", status?),
        None => Ok(()),
    }
}

/// Ten rounds of lookups that the agent answers leave no entry for any of its addresses.
fn untracked(cluster: &Cluster) -> Result<()> {
    within(PATIENCE, "ten rounds that the agent answers", || {
        let rounds = || {
            netfilter::forget_flows()?;
            (0..10).try_fold(true, |all, _| Ok(all & cluster.answered_by(Who::Agent)?))
        };
        // Where the emulated machine has no time for the agent, it is right that cluster DNS answers a round.
        rounds().unwrap_or_else(|error: std::io::Error| {
            println!("   {error}");
            false
        })
    })?;
    let flows = netfilter::dns_flows()?;
    ensure!(!flows.iter().any(|target| ASKED.contains(target)), "tracked: {flows:?}");
    Ok(())
}

/// Does one step and says how long it took.
fn step<T>(name: &str, act: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = clock::now();
    let result = act().with_context(|| name.to_owned())?;
    println!("ok {:6.3} s  {name}", start.elapsed().as_secs_f64());
    Ok(result)
}
