//! Which core does what: everything of the load generator on one, the server under test on another.

use std::io;
use std::sync::OnceLock;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

static CORES: OnceLock<(usize, usize)> = OnceLock::new();

/// Takes the first two cores this process may use, the first for the load, and pins the calling thread to it. Threads
/// started later stay there. Fails when there is only one.
pub(crate) fn split() -> io::Result<(usize, usize)> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let mut cores = (0..CpuSet::count()).filter(|&core| allowed.is_set(core).unwrap_or(false));
    let (Some(load), Some(server)) = (cores.next(), cores.next()) else {
        return Err(io::Error::other("two cores are needed: one for the load, one for the server under test"));
    };
    let (load, server) = *CORES.get_or_init(|| (load, server));
    pin(load)?;
    Ok((load, server))
}

/// Runs `start` on the server's core; what it starts stays there.
pub(crate) fn on_server_core<T>(start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let &(load, server) = CORES.get().expect("the cores are split before a server is started");
    pin(server)?;
    let result = start();
    pin(load)?;
    result
}

fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}
