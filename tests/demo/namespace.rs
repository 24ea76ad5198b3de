//! A user and network namespace of one's own: root over a network in which nobody else lives.

use std::fs;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getgid, getuid};

/// Sysctls by which systems forbid namespaces to ordinary users, the value that forbids, and the one that allows.
const SWITCHES: [(&str, &str, &str); 3] = [
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("user.max_user_namespaces", "0", "10000"),
];

/// Puts this process, which must have a single thread, into namespaces of its own, as root.
pub fn enter() -> Result<()> {
    let (user, group) = (getuid(), getgid());
    match unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET) {
        Ok(()) => {}
        Err(error @ (Errno::EPERM | Errno::ENOSPC | Errno::EUSERS | Errno::EACCES)) => bail!("{}", refused(error)),
        Err(error) => return Err(error).context("this kernel makes no user namespaces"),
    }
    let map = |file: &str, text: String| fs::write(format!("/proc/self/{file}"), text);
    map("setgroups", "deny".to_owned())
        .and_then(|()| map("uid_map", format!("0 {user} 1")))
        .and_then(|()| map("gid_map", format!("0 {group} 1")))
        .map_err(|error| anyhow::anyhow!("{}", refused(error)))
}

/// Why it is not allowed here, and what to do.
fn refused(error: impl std::fmt::Display) -> String {
    let value = |name: &str| fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/")));
    let closed = SWITCHES.iter().find(|(name, no, _)| value(name).is_ok_and(|value| value.trim() == *no));
    let advice = match closed {
        Some((name, _, yes)) => format!("allow it with: sudo sysctl {name}={yes}"),
        None => "in a container, its seccomp profile is the usual reason: try outside of it, or with docker's \
                 --security-opt seccomp=unconfined --security-opt systempaths=unconfined"
            .to_owned(),
    };
    format!("this system does not let this user make a private network ({error}); {advice}")
}
