//! What a node's network goes through with dnslet on it, on a whole kernel: `tests/vm/run` boots one with this program
//! and the agent. Each step prints how long it took; the first that fails ends the run with what there is to know.
#![allow(clippy::print_stdout, reason = "it prints its verdict on the console")]
#![allow(unreachable_pub, dead_code, reason = "the cluster is shared with the demo")]

#[path = "../cluster/mod.rs"]
mod cluster;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use cluster::agent::Install;
use cluster::lookup::{self, Transport, Who};
use cluster::{Cluster, SERVICE, conntrack, run};
use dnslet::sys::clock;

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
    let cluster = step("a cluster without an agent", || {
        let cluster = Cluster::build()?;
        everywhere(&cluster, &[SERVICE.into()], Who::ClusterDns)?;
        let flows = conntrack::dns_flows()?.len();
        ensure!(flows == 4, "4 lookups leave {flows} conntrack entries; this meter does not measure");
        Ok(cluster)
    })?;
    step("this kernel has dummy links", || Ok(run("ip", &["link", "add", "probe", "type", "dummy"], "")?))?;
    let version = step("the agent runs", || Ok(run(&install.program.to_string_lossy(), &["-version"], "")?))?;
    print!("{version}");
    drop(cluster);
    Ok(())
}

/// Does one step and says how long it took.
fn step<T>(name: &str, act: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = clock::now();
    let result = act().with_context(|| name.to_owned())?;
    println!("ok {:6.3} s  {name}", start.elapsed().as_secs_f64());
    Ok(result)
}

/// The pod and the node's own process ask each address over UDP and TCP; all must be answered, and by this one.
fn everywhere(cluster: &Cluster, addresses: &[IpAddr], wanted: Who) -> Result<()> {
    for &address in addresses {
        for transport in [Transport::Udp, Transport::Tcp] {
            let pod = cluster.ask_from_pod(address, "web.shop.svc.cluster.local", transport);
            let host = lookup::ask(address, "www.example.com", transport);
            for (client, answer) in [("a pod", pod), ("the node", host)] {
                let who = answer.with_context(|| format!("{client} asks {address} over {transport:?}"))?;
                ensure!(who == wanted, "{client} asks {address} over {transport:?}: {who} answers, not {wanted}");
            }
        }
    }
    Ok(())
}
