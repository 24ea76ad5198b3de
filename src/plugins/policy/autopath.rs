//! `autopath [ZONES...] RESOLV-CONF | @query { ... }`: the search list of a stub resolver is walked here, not there.

use std::path::{Path, PathBuf};

use crate::corefile::Directive;
use crate::dns::Name;
use crate::plugins::report::Report;

/// The file whose search list every pod has after that of the cluster.
pub const NODES: &str = "/etc/resolv.conf";

/// What one `autopath` line says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Autopath {
    /// Names under these are looked at; all of the block where `None`.
    pub zones: Option<Vec<Name>>,
    /// Where the search list comes from.
    pub list: List,
    /// No walk for names asked, or looked for, that are these or beneath them.
    pub except: Vec<Name>,
    /// The most names of one walk, the one asked for among them.
    pub max_depth: usize,
}

/// Where a search list comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum List {
    /// From the question: `<namespace>.svc.<zone>`, `svc.<zone>`, `<zone>`, then these, which are the node's own;
    /// those of [`NODES`] where `None`.
    Query(Option<Vec<Name>>),
    /// From this file, for all clients alike.
    File(PathBuf),
}

impl Autopath {
    /// The file whose search list is wanted.
    pub fn file(&self) -> Option<&Path> {
        match &self.list {
            List::Query(Some(_)) => None,
            List::Query(None) => Some(Path::new(NODES)),
            List::File(path) => Some(path),
        }
    }
}

pub(crate) fn parse(line: &Directive, report: &mut Report<'_>) -> Option<Autopath> {
    let words = report.args(line, 1..=usize::MAX, "autopath [ZONES...] RESOLV-CONF|@query");
    let (source, zones) = words.split_last()?;
    let list = match &*source.text {
        "@query" => List::Query(None),
        path => List::File(path.into()),
    };
    let zones = (!zones.is_empty()).then(|| report.zones(zones));
    Some(Autopath { zones, list, except: Vec::new(), max_depth: 10 })
}
