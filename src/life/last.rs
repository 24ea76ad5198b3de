//! The configuration in force, as the keeper holds it for the next server.
//!
//! A server that has ended is replaced by one that reads everything anew, and what a reload refuses must not keep that one
//! from serving: then it serves this. Hosts it names have the addresses they had: a restart is no reason to ask again.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::corefile::Imported;

/// Everything that was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Last {
    pub(super) text: Text,
    /// The addresses of the hosts that `forward` lines name.
    pub(super) hosts: Known,
}

/// Addresses of hosts, by name and by who was asked.
pub(super) type Known = BTreeMap<String, Vec<IpAddr>>;

/// A Corefile with the files that it imports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// The Corefile; a template is filled.
    pub corefile: String,
    /// Path and text of the files of each import.
    imports: BTreeMap<PathBuf, Vec<(PathBuf, String)>>,
}

impl Text {
    /// Nothing is imported yet.
    pub(super) fn new(corefile: String) -> Text {
        Text { corefile, imports: BTreeMap::new() }
    }

    /// Takes down what an import was.
    pub(super) fn note(&mut self, import: &Path, files: &[Imported]) {
        let files = files.iter().map(|file| (file.path.clone(), file.text.clone())).collect();
        self.imports.insert(import.to_owned(), files);
    }

    /// What the import was.
    pub(super) fn imported(&self, import: &Path) -> Result<Vec<Imported>, String> {
        let files = self.imports.get(import).ok_or("it was not imported before")?;
        Ok(files.iter().map(|(path, text)| Imported { path: path.clone(), text: text.clone() }).collect())
    }
}
