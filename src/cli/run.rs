//! The default command: serve until told to stop.

use std::process::ExitCode;

use crate::life::{self, load, options::Options};

/// Serves; the exit code is the agent's. What stopped a start goes to standard error.
pub(super) fn run(options: &Options) -> ExitCode {
    exit(life::run(options))
}

/// The same for the process that reads packets.
pub(super) fn serve(ends: life::Ends, options: &Options) -> ExitCode {
    exit(life::serve(ends, options))
}

fn exit(ran: anyhow::Result<u8>) -> ExitCode {
    match ran {
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

/// The directives a Corefile may hold, as CoreDNS lists them.
pub(super) fn plugin_list() -> String {
    let mut names: Vec<&str> = crate::plugins::names().collect();
    names.sort_unstable();
    names.iter().fold("Plugins:\n".to_owned(), |text, name| text + "  dns." + name + "\n")
}
