//! What this kernel has of the agent's: its link, its addresses, its tables.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use dnslet::sys::clock;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use super::cluster::{ASKED, netfilter};

/// The name of the agent's link, as it is by default.
pub const LINK: &str = "nodelocaldns";
/// When waiting for a repair is given up.
const HOPELESS: Duration = Duration::from_secs(30);

/// Whether the link is up and has every address, and both tables are there: the one that outlives the agent, and the one
/// that does not.
pub fn whole() -> Result<bool> {
    let own: Vec<_> = getifaddrs()?.filter(|entry| entry.interface_name == LINK).collect();
    let addresses = own.iter().filter_map(|entry| entry.address);
    let addresses: Vec<IpAddr> = addresses
        .filter_map(|address| {
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::from(address.ip())))
        })
        .collect();
    let up = own.iter().any(|entry| entry.flags.contains(InterfaceFlags::IFF_UP));
    let base = netfilter::tables()?.iter().any(|name| name == "dnslet");
    Ok(up && base && !own_tables()?.is_empty() && ASKED.iter().all(|address| addresses.contains(address)))
}

/// The tables that belong to a running agent.
pub fn own_tables() -> Result<Vec<String>> {
    Ok(netfilter::tables()?.into_iter().filter(|name| name.starts_with("dnslet_")).collect())
}

/// Does the damage, and says for how long it could be seen: nothing, if it was repaired in between two looks.
pub fn repair_time(damage: impl FnOnce() -> Result<()> + Send) -> Result<Duration> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let damaging = scope.spawn(|| {
            let result = damage();
            done.store(true, Ordering::SeqCst);
            result
        });
        let start = clock::now();
        let mut damaged = None;
        loop {
            // Read before the look: damage that was done before it is seen in it.
            let done = done.load(Ordering::SeqCst);
            match (whole()?, damaged) {
                (true, Some(since)) => break damaging.join().expect("no panic").map(|()| clock::now() - since),
                (true, None) if done => break damaging.join().expect("no panic").map(|()| Duration::ZERO),
                (false, None) => damaged = Some(clock::now()),
                _ => ensure!(start.elapsed() < HOPELESS, "not repaired after {} s", HOPELESS.as_secs()),
            }
            look_again();
        }
    })
}

/// Looks until it is so.
pub fn within(patience: Duration, what: &str, mut so: impl FnMut() -> bool) -> Result<()> {
    let start = clock::now();
    while !so() {
        ensure!(start.elapsed() < patience, "waited {:.3} s for {what}", start.elapsed().as_secs_f64());
        look_again();
    }
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "not all of this can be waited for")]
fn look_again() {
    thread::sleep(Duration::from_millis(1));
}
