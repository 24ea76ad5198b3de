//! `ready`: whether the agent beside it is ready, in one line. It is what a pod's probes run, so it is quick, needs no flag
//! and never waits long.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgAction, Parser};

use super::flags;
use crate::life::inquiry::{self, Keepers, NOT_READY, READY};

/// How long the agent may take to answer, which it does within a millisecond.
const PATIENCE: Duration = Duration::from_secs(1);

/// What may be said to `ready` beside the flags of all commands.
#[derive(Debug, Parser)]
#[command(
    name = "dnslet",
    about = "Asks the agent that runs beside it, in the same pod or on this host, if it is ready."
)]
#[command(disable_help_flag = true, disable_version_flag = true, args_override_self = true)]
#[command(override_usage = "dnslet ready [flags]")]
#[command(
    after_help = "Exit code 0 if it is, 1 if it is not or nobody answers. Where several run here, -pidfile says which."
)]
pub(super) struct Ready {
    /// Be content once a server serves, whatever it lacks: for a startup probe, whose failure ends the agent
    #[arg(long, value_name = "BOOL", default_value = "false", value_parser = flags::bool_parser(), action = ArgAction::Set, help_heading = "Ready")]
    started: bool,
    /// Be content while the agent answers, whatever it says: for a liveness probe, whose failure ends the agent
    #[arg(long, value_name = "BOOL", default_value = "false", value_parser = flags::bool_parser(), action = ArgAction::Set, help_heading = "Ready")]
    alive: bool,
    /// `-pidfile` says which agent, where several run.
    #[command(flatten)]
    pub(super) common: flags::Flags,
}

/// Prints the agent's line; failure if it is not ready, or not as far as the flags ask.
pub(super) fn ready(flags: &Ready) -> ExitCode {
    let asked = chosen(flags.common.pidfile.as_deref()).and_then(|keeper| inquiry::ask(keeper, PATIENCE));
    let (line, is_enough) = match asked {
        Ok(line) => {
            let is_enough = flags.alive || line.starts_with(READY) || (flags.started && line.starts_with(NOT_READY));
            (line, is_enough)
        }
        Err(why) => (format!("{NOT_READY}{why}"), false),
    };
    super::say(&(line + "\n"), if is_enough { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The keeper to ask. The error is a sentence.
fn chosen(pidfile: Option<&Path>) -> Result<u32, String> {
    let keepers = Keepers::find().map_err(|error| format!("the agents that run here cannot be found: {error}"))?;
    let pids = || keepers.here.iter().map(|pid| format!("pid {pid}")).collect::<Vec<_>>().join(", ");
    match (pidfile, keepers.here.as_slice()) {
        (None, [keeper]) => Ok(*keeper),
        (_, []) => Err(match keepers.elsewhere {
            0 => "no agent runs here".to_owned(),
            _ => "no agent runs here; one in another container is asked from inside it (kubectl exec)".to_owned(),
        }),
        (None, _) => Err(format!("several agents run here ({}): say which with -pidfile FILE", pids())),
        (Some(path), here) => match named(path)? {
            keeper if here.contains(&keeper) => Ok(keeper),
            other => Err(format!("{} names pid {other}, and agents run as {}", path.display(), pids())),
        },
    }
}

fn named(path: &Path) -> Result<u32, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("{} cannot be read ({error}): the agent writes it once it serves", path.display()))?;
    text.trim().parse().map_err(|_| format!("{} holds no process id", path.display()))
}
