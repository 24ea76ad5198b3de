//! The default command: serve until told to stop.

use std::process::ExitCode;

use crate::life::{self, load, options::Options};

/// Serves; the exit code is the agent's. What stopped a start goes to standard error.
pub(super) fn run(options: &Options) -> ExitCode {
    match life::run(options) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            super::complain(&explained(&error));
            ExitCode::FAILURE
        }
    }
}

/// A wrong Corefile is shown with its lines and carets, everything else as a sentence with its cause.
fn explained(error: &anyhow::Error) -> String {
    match error.downcast_ref() {
        Some(load::Refused::Corefile(faults)) => format!("the Corefile cannot be used\n{}", faults.rendered),
        _ => format!("{error:#}"),
    }
}

/// Names of the directives a Corefile may hold, one per line, each with the server type in front as CoreDNS prints it.
pub(super) fn plugin_names() -> String {
    crate::plugins::names().map(|name| format!("dns.{name}\n")).collect()
}
