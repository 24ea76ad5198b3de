//! Services of systemd, spoken to through their own tools.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::Done;
use super::files::Root;

/// What a program prints; the error is a sentence for the operator.
pub(super) fn output(program: &str, arguments: &[&str]) -> Result<String, String> {
    let call = || format!("{program} {}", arguments.join(" "));
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => Err(format!("`{}` failed: {}", call(), String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("`{}` cannot be run: {error}", call())),
    }
}

pub(super) fn is_active(unit: &str) -> bool {
    output("systemctl", &["is-active", "--quiet", unit]).is_ok()
}

/// Whether a program of this name runs, on the files that we see: one in a container has its own. What belongs to others is
/// told to root alone.
pub(super) fn runs_here(program: &str) -> bool {
    let mounts = |process: &Path| fs::read_link(process.join("ns/mnt")).ok();
    let ours = mounts(Path::new("/proc/self"));
    let named = |process: &Path| fs::read_to_string(process.join("comm")).is_ok_and(|name| name.trim_end() == program);
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    processes.into_iter().any(|process| named(&process) && mounts(&process) == ours)
}

/// Takes a drop-in of ours away from a service, if it is there, and has it read what is left. `effect` says what follows.
pub(super) fn without(root: &Root, drop_in: &str, unit: &str, effect: &str) -> Done {
    if !root.exists(drop_in) {
        return Ok(Vec::new());
    }
    root.remove(drop_in)?;
    let mut lines = vec![format!("removed {drop_in}: {effect}")];
    lines.extend(reload(unit)?);
    Ok(lines)
}

/// Has a service that runs read its configuration again: one that cannot do that while it runs is started anew. What
/// does not run reads it when it starts.
pub(super) fn reload(unit: &str) -> Result<Option<String>, String> {
    if !is_active(unit) {
        return Ok(None);
    }
    // One that was started often in a short time would be stopped and not started: the count begins anew.
    output("systemctl", &["reset-failed", unit])?;
    output("systemctl", &["try-reload-or-restart", unit])?;
    Ok(Some(format!("{unit} has read its configuration again")))
}
