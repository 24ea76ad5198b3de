//! Text becomes routes, with the files, environment and interfaces of this machine.

use std::fmt;
use std::path::PathBuf;

use crate::corefile::Severity;
use crate::routes::{self, Routes};

use super::files;
use super::machine;
use super::options::Options;
use super::sources::{SourceError, Sources};

/// A configuration that can be used.
#[derive(Debug)]
pub struct Loaded {
    /// The compiled Corefile.
    pub routes: Routes,
    /// SHA-512 of its words; layout does not count.
    pub digest: String,
    /// Files and patterns its imports name.
    pub imports: Vec<PathBuf>,
    /// Findings that do not stop it, one line each.
    pub warnings: Vec<String>,
    /// It was filled from a template whose inputs changed.
    pub regenerated: bool,
}

/// Why a configuration cannot be used.
#[derive(Debug)]
pub enum Refused {
    /// There is no text.
    Source(SourceError),
    /// The text is wrong.
    Corefile(Faults),
}

/// Everything that is wrong with a text.
#[derive(Debug)]
pub struct Faults {
    /// With source lines and carets, for a person at a terminal.
    pub rendered: String,
    /// One line, for a log.
    pub line: String,
    /// Files and patterns its imports name: one of them may be what has to be mended.
    pub imports: Vec<PathBuf>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Source(error) => error.fmt(f),
            Refused::Corefile(faults) => f.write_str(&faults.line),
        }
    }
}

impl std::error::Error for Refused {}

/// Reads and compiles the configuration as it is now. A text that was filled anew is shown to `filled` before anything
/// is known about it: somebody who wants to know what is wrong with it looks there.
pub fn load(sources: &mut Sources, options: &Options, filled: impl FnOnce(&str)) -> Result<Loaded, Refused> {
    let text = sources.read().map_err(Refused::Source)?;
    if text.regenerated {
        filled(&text.corefile);
    }
    let machine = routes::Sources { default_port: options.dns_port, interfaces: machine::interfaces() };
    let environment = |name: &str| std::env::var(name).ok();
    let root = options.configuration.root();
    let mut loaded = routes::load(root, &text.corefile, &mut files::imported, &environment, &machine);
    let lines = |severity| {
        let of_kind = loaded.lines().filter(move |(kind, _)| *kind == severity);
        of_kind.map(|(_, line)| line).collect::<Vec<_>>()
    };
    let (errors, warnings) = (lines(Severity::Error), lines(Severity::Warning));
    let rendered = loaded.render(false);
    let imports = std::mem::take(&mut loaded.watched);
    match loaded.routes {
        Some(routes) => Ok(Loaded { routes, digest: loaded.digest, imports, warnings, regenerated: text.regenerated }),
        None => Err(Refused::Corefile(Faults { rendered, line: errors.join("; "), imports })),
    }
}
