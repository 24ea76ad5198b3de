//! What a server costs, read from outside: CPU time and resident memory of its process and of those it started.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::ops::Sub;

use crate::sys;

/// CPU time used. The sum comes from the scheduler, in nanoseconds; the kernel splits it by sampling its clock tick.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cpu {
    pub(crate) nanos: u64,
    user_ticks: u64,
    system_ticks: u64,
}

impl Cpu {
    /// Of all processes together.
    pub(crate) fn of(processes: &[u32]) -> io::Result<Self> {
        let mut sum = Self::default();
        for &process in processes {
            sum.nanos += sys::cpu_time(process)?.as_nanos() as u64;
            let (user, system) = ticks(process)?;
            sum.user_ticks += user;
            sum.system_ticks += system;
        }
        Ok(sum)
    }

    /// The part of the time that was spent outside the kernel.
    pub(crate) fn user_share(&self) -> f64 {
        let all = self.user_ticks + self.system_ticks;
        if all == 0 { 0.0 } else { self.user_ticks as f64 / all as f64 }
    }
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            nanos: self.nanos - before.nanos,
            user_ticks: self.user_ticks - before.user_ticks,
            system_ticks: self.system_ticks - before.system_ticks,
        }
    }
}

/// Resident memory in KiB, all processes together (pages they share count once for each).
pub(crate) fn resident_kib(processes: &[u32]) -> io::Result<u64> {
    let mut sum = 0;
    for process in processes {
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        sum += status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
            .unwrap_or(0);
    }
    Ok(sum)
}

/// `root` and everything descended from it that is alive.
pub(crate) fn family(root: u32) -> io::Result<Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A process that ended since the listing has no parent to be found under.
        if let Some(parent) = stat_fields(process).ok().and_then(|fields| fields.get(1)?.parse().ok()) {
            children.entry(parent).or_default().push(process);
        }
    }
    let mut all = vec![root];
    let mut next = 0;
    while let Some(&process) = all.get(next) {
        all.extend(children.remove(&process).unwrap_or_default());
        next += 1;
    }
    Ok(all)
}

/// `utime` and `stime` (proc_pid_stat(5), fields 14 and 15).
fn ticks(process: u32) -> io::Result<(u64, u64)> {
    let fields = stat_fields(process)?;
    let number = |i: usize| fields.get(i).and_then(|field| field.parse().ok()).unwrap_or(0);
    Ok((number(11), number(12)))
}

/// The fields behind the command name, which may itself hold spaces; the first is the state (field 3 of the manual).
fn stat_fields(process: u32) -> io::Result<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    Ok(rest.split_whitespace().map(str::to_owned).collect())
}
