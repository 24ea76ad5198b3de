//! The default command: serve until told to stop.

use std::process::ExitCode;

use crate::life::options::Options;

/// Serves; the exit code is the agent's.
pub(super) fn run(options: Options) -> ExitCode {
    let _ = options;
    ExitCode::SUCCESS
}

/// Names of the directives a Corefile may hold, one per line.
pub(super) fn plugin_names() -> String {
    String::new()
}
