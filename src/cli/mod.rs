//! The `cli` room: arguments in, exit code out.
//!
//! Without a subcommand the program serves. `check` takes the same flags, reads the same configuration, prints every
//! diagnostic or `ok`, and leaves; it needs no privileges. Flags are written as Go's flag package takes them, because
//! the command lines of existing node-cache deployments have to work: `-localip a,b`, `-conf=x`, `--x`. `cleanup` takes
//! them too, and takes from the node what an agent or node-cache left there. `doctor` says how DNS stands on this node, and
//! changes nothing. `status` and `top` show what a running agent tells at its metrics endpoint (`scrape`).
//! `ready` asks the agent in the same pod, or on this host, if it is ready: what probes run.
//! `host` makes the programs of a machine ask an agent on it, and takes that back.
//! `explain` makes a pod's lookup with a resolver of its own and tells each step; its bad input ends with exit code 2.
//!
//! For example `-conf=/etc/Corefile -localip 169.254.20.10`:
//! 1. `arguments` rewrites it to `--conf=/etc/Corefile --localip=169.254.20.10`, or says which flag was misspelt;
//! 2. `flags` (clap) turns that into typed values;
//! 3. `options` decides what they mean together: which file is the template and which is written;
//! 4. `run` or `check` hands the [`Options`] to `life`; `cleanup` and `doctor` need no more than the flags.
//!
//! The process that serves is a second one, started by the first with the same arguments behind the word `server` and the
//! numbers of two descriptors. It is no command for people.
//!
//! Exit codes: 0 stopped as asked (or `check` and `doctor` found nothing, or the agent is ready), 1 could not start (or they
//! found something, or it is not, or
//! `cleanup` could not remove something, or what was asked could not be written), 2 on a second interrupt. Messages for the operator go to standard error;
//! standard output is for logs and for what was asked (`-h`, `-version`, `-plugins`, and the subcommands). This room never
//! opens a socket and is imported by nobody.

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::life::{self, options::Options};

mod arguments;
mod check;
mod cleanup;
mod commands;
mod doctor;
mod explain;
mod flags;
mod host;
mod options;
mod ready;
mod run;
mod scrape;
mod status;
mod top;
mod value;

pub use commands::command;
use flags::Flags;

/// What the command line asks for.
#[derive(Debug)]
enum Command {
    Run(Options),
    /// As the child of a process that runs.
    Serve(life::Ends, Options),
    Check(Options),
    Cleanup(cleanup::Cleanup),
    Doctor(Box<Flags>),
    Status(Box<Flags>),
    Top(Box<top::Top>),
    Ready(Box<ready::Ready>),
    Explain(Box<explain::Question>),
    Host(host::Host),
    /// Text to print, nothing else to do.
    Print(String),
}

/// What comes before the flags.
enum Word {
    Run,
    Serve(life::Ends),
    Check,
    Cleanup,
    Doctor,
    Status,
}

/// Runs the program and returns its exit code.
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    match read(&arguments) {
        Ok(Command::Run(options)) => run::run(&options),
        Ok(Command::Serve(ends, options)) => run::serve(ends, &options),
        Ok(Command::Check(options)) => check::check(&options),
        Ok(Command::Cleanup(what)) => cleanup::cleanup(&what),
        Ok(Command::Doctor(flags)) => doctor::doctor(&flags),
        Ok(Command::Status(flags)) => status::status(&flags),
        Ok(Command::Top(flags)) => top::top(&flags),
        Ok(Command::Ready(flags)) => ready::ready(&flags),
        Ok(Command::Explain(question)) => explain::explain(&question),
        Ok(Command::Host(what)) => host::host(&what),
        Ok(Command::Print(text)) => say(&text, ExitCode::SUCCESS),
        Err(refusal) => {
            complain(&refusal.message);
            ExitCode::from(refusal.code)
        }
    }
}

/// Why a command line is of no use: a sentence for the operator, and the exit code.
#[derive(Debug)]
struct Refusal {
    message: String,
    code: u8,
}

impl From<String> for Refusal {
    fn from(message: String) -> Refusal {
        Refusal { message, code: 1 }
    }
}

fn read(arguments: &[String]) -> Result<Command, Refusal> {
    let (word, rest) = match arguments {
        [first, ends, rest @ ..] if first == life::SERVER => (Word::Serve(ends.parse()?), rest),
        [first, rest @ ..] if first == "check" => (Word::Check, rest),
        [first, rest @ ..] if first == "cleanup" => (Word::Cleanup, rest),
        [first, rest @ ..] if first == "doctor" => (Word::Doctor, rest),
        [first, rest @ ..] if first == "status" => (Word::Status, rest),
        [first, rest @ ..] if first == "top" => return Ok(read_top(rest)?),
        [first, rest @ ..] if first == "ready" => return Ok(read_ready(rest)?),
        [first, rest @ ..] if first == "explain" => return read_explain(rest),
        [first, rest @ ..] if first == "host" => return Ok(read_host(rest)?),
        _ => (Word::Run, arguments),
    };
    let flags: Flags = parsed(rest)?;
    if flags.help {
        return Ok(Command::Print(help(commands::serving())));
    }
    if flags.version {
        return Ok(Command::Print(version()));
    }
    if flags.plugins {
        return Ok(Command::Print(run::plugin_list()));
    }
    let options = || options::options(&flags, &options::Machine::here());
    Ok(match word {
        Word::Run => Command::Run(options()?),
        Word::Serve(ends) => Command::Serve(ends, options()?),
        Word::Check => Command::Check(options()?),
        Word::Cleanup => Command::Cleanup(cleanup::Cleanup::new(&flags)),
        Word::Doctor => Command::Doctor(Box::new(flags)),
        Word::Status => Command::Status(Box::new(flags)),
    })
}

fn read_top(arguments: &[String]) -> Result<Command, String> {
    let flags: top::Top = parsed(arguments)?;
    Ok(match flags.common.help {
        true => Command::Print(help(top::Top::command())),
        false => Command::Top(Box::new(flags)),
    })
}

fn read_ready(arguments: &[String]) -> Result<Command, String> {
    let flags: ready::Ready = parsed(arguments)?;
    Ok(match flags.common.help {
        true => Command::Print(help(ready::Ready::command())),
        false => Command::Ready(Box::new(flags)),
    })
}

fn read_explain(arguments: &[String]) -> Result<Command, Refusal> {
    let read = || {
        let (flags, words) = arguments::split(&explain::Explain::command(), arguments)?;
        let flags: explain::Explain = typed(flags)?;
        Ok(match flags.common.help {
            true => Command::Print(help(explain::Explain::command())),
            false => Command::Explain(Box::new(explain::Question::new(&flags, &words)?)),
        })
    };
    read().map_err(|message| Refusal { message, code: explain::USAGE })
}

fn read_host(arguments: &[String]) -> Result<Command, String> {
    let (flags, words) = arguments::split(&Flags::command(), arguments)?;
    let flags: Flags = typed(flags)?;
    Ok(match flags.help {
        true => Command::Print(help(commands::serving())),
        false => Command::Host(host::Host::new(&flags, &words)?),
    })
}

/// The flags of a command as typed values.
fn parsed<F: Parser>(arguments: &[String]) -> Result<F, String> {
    typed(arguments::normalise(&F::command(), arguments)?)
}

fn typed<F: Parser>(normalised: Vec<String>) -> Result<F, String> {
    let with_name = std::iter::once("dnslet".to_owned()).chain(normalised);
    F::try_parse_from(with_name).map_err(|error| one_sentence(&error.to_string()))
}

/// The grouped list of flags, with the one dash node-cache's documents use.
fn help(command: clap::Command) -> String {
    command.term_width(110).render_help().to_string().replace("--", "-")
}

fn version() -> String {
    format!("dnslet-{}\n{}/{}\n", env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH)
}

/// The first paragraph of a clap error, in our notation of flags.
fn one_sentence(text: &str) -> String {
    let first = text.split("\n\n").next().unwrap_or(text);
    first.strip_prefix("error: ").unwrap_or(first).replace("--", "-")
}

/// Why what was asked for was not heard.
#[derive(Debug)]
enum Unheard {
    /// The reader closed the pipe, as is the reader's choice.
    Gone,
    /// It could not be written, which the operator has been told.
    Lost,
}

/// Who is not heard stops: that is how it was asked, unless something went wrong.
impl From<Unheard> for ExitCode {
    fn from(unheard: Unheard) -> ExitCode {
        match unheard {
            Unheard::Gone => ExitCode::SUCCESS,
            Unheard::Lost => ExitCode::FAILURE,
        }
    }
}

/// Standard output, for what was asked, and this exit code; failure if it could not be written.
fn say(text: &str, code: ExitCode) -> ExitCode {
    match tell(text) {
        Ok(()) | Err(Unheard::Gone) => code,
        Err(Unheard::Lost) => Unheard::Lost.into(),
    }
}

/// The same for one who has more to say.
fn tell(text: &str) -> Result<(), Unheard> {
    use std::io::{ErrorKind, Write};
    let mut output = std::io::stdout().lock();
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Unheard::Gone,
        _ => {
            complain(&format!("what was asked cannot be written: {error}"));
            Unheard::Lost
        }
    })
}

/// What a command that only looks does its waiting on.
fn runtime() -> Result<tokio::runtime::Runtime, ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        complain(&format!("nothing can be looked at: {error}"));
        ExitCode::FAILURE
    })
}

/// Standard error, for the operator.
fn complain(message: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "dnslet: {}", message.trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_value_names_the_flag_and_what_would_be_right() {
        for (arguments, parts) in [
            (&["-workers=0"][..], &["-workers", "1..=1024"][..]),
            (&["-localip", "a"], &["-localip", "\"a\" is not an IP address"]),
            (&["-localip="], &["-localip", "not an IP address"]),
            (&["-cache-memory=lots"], &["-cache-memory", "64Mi"]),
            (&["-quiet=yes"], &["-quiet", "true or false"]),
        ] {
            let owned: Vec<String> = arguments.iter().map(ToString::to_string).collect();
            let message = read(&owned).unwrap_err().message;
            for part in parts {
                assert!(message.contains(part), "{message}");
            }
            assert!(!message.contains("--"), "{message}");
        }
    }

    #[test]
    fn help_shows_single_dashes_in_groups() {
        let text = help(commands::serving());
        assert!(text.contains("-localip <IP,...>"), "{text}");
        assert!(text.contains("Kubernetes template and ConfigMap:"), "{text}");
        assert!(!text.contains("--"), "{text}");
    }
}
