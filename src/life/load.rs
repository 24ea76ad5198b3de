//! Text becomes routes, with the files, environment and interfaces of this machine.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::corefile::{Imported, Severity};
use crate::routes::{self, Routes};

use super::files;
use super::last::Text;
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
    /// What was read.
    pub text: Text,
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
    let mut read = Text::new(text.corefile.clone());
    let mut import = |path: &Path| files::imported(path).inspect(|files| read.note(path, files));
    let loaded = compile(&text.corefile, options, &mut import)?;
    Ok(Loaded { regenerated: text.regenerated, text: read, ..loaded })
}

/// The same with what was read before.
pub(super) fn recall(text: &Text, options: &Options) -> Result<Loaded, Refused> {
    let loaded = compile(&text.corefile, options, &mut |path| text.imported(path))?;
    Ok(Loaded { text: text.clone(), ..loaded })
}

fn compile(
    text: &str,
    options: &Options,
    import: &mut dyn FnMut(&Path) -> Result<Vec<Imported>, String>,
) -> Result<Loaded, Refused> {
    let machine = routes::Sources { default_port: options.dns_port, interfaces: machine::interfaces() };
    let environment = |name: &str| std::env::var(name).ok();
    let root = options.configuration.root();
    let mut loaded = routes::load(root, text, import, &environment, &machine);
    let lines = |severity| {
        let of_kind = loaded.lines().filter(move |(kind, _)| *kind == severity);
        of_kind.map(|(_, line)| line).collect::<Vec<_>>()
    };
    let (errors, warnings) = (lines(Severity::Error), lines(Severity::Warning));
    let rendered = loaded.render(false);
    let imports = std::mem::take(&mut loaded.watched);
    match loaded.routes {
        Some(routes) => {
            let (digest, text) = (loaded.digest, Text::default());
            Ok(Loaded { routes, digest, imports, warnings, regenerated: false, text })
        }
        None => Err(Refused::Corefile(Faults { rendered, line: errors.join("; "), imports })),
    }
}
