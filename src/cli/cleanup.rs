//! `cleanup`: take from the node what an agent, or node-cache, left there.

use std::net::IpAddr;
use std::process::ExitCode;

use super::flags::Flags;
use crate::node::leftovers::{Removed, remove_all};

/// What the flags say of where to look.
#[derive(Debug)]
pub(super) struct Cleanup {
    link: String,
    addresses: Vec<IpAddr>,
    dns_port: u16,
}

impl Cleanup {
    pub(super) fn new(flags: &Flags) -> Self {
        Self { link: flags.interfacename.clone(), addresses: flags.addresses(), dns_port: flags.dns_port }
    }
}

/// Prints a line for each thing that is removed; a line on standard error, and exit code 1, for what could not be.
pub(super) fn cleanup(what: &Cleanup) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            super::complain(&format!("nothing was removed: the kernel gives no resources to work with ({error})"));
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(remove_all(&what.link, &what.addresses, what.dns_port)) {
        Ok(removed) => tell(&removed),
        Err(why) => {
            super::complain(&format!("nothing was removed: {why}"));
            ExitCode::FAILURE
        }
    }
}

fn tell(removed: &Removed) -> ExitCode {
    let mut told: String = removed.things.iter().map(|thing| format!("removed {thing}\n")).collect();
    removed.unseen.iter().for_each(|unseen| super::complain(unseen));
    removed.troubles.iter().for_each(|trouble| super::complain(&trouble.text));
    let failed = !removed.troubles.is_empty();
    if told.is_empty() && !failed {
        told.push_str("nothing to remove\n");
    }
    super::say(&told, if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
