//! A document, and what its reader types where.

use std::fs;
use std::path::Path;
use std::process::Command;

/// The documents whose commands are run.
const TYPED: [&str; 7] = [
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/host.md",
    "docs/migrating.md",
    "docs/node.md",
    "docs/operations.md",
];

/// Where a command is typed; a block says so behind `sh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this repository.
    Checkout,
    /// Where kubectl reaches the cluster.
    Cluster,
    /// On a node of it.
    Node,
    /// On a host with the package.
    Vm,
}

pub struct Page {
    pub path: &'static str,
    text: String,
}

/// A fenced block.
pub struct Block<'a> {
    /// What is behind the fence: `sh cluster`, `text`, `corefile`.
    pub info: &'a str,
    /// Its lines, each with its number in the document.
    pub lines: Vec<(usize, &'a str)>,
}

impl Place {
    pub const ALL: [Place; 4] = [Place::Checkout, Place::Cluster, Place::Node, Place::Vm];

    pub fn info(self) -> &'static str {
        match self {
            Place::Checkout => "sh checkout",
            Place::Cluster => "sh cluster",
            Place::Node => "sh node",
            Place::Vm => "sh vm",
        }
    }
}

impl Page {
    pub fn all() -> Vec<Page> {
        TYPED.map(|path| Page { path, text: read(path) }).into()
    }

    /// Those on which something is typed there.
    pub fn with(place: Place) -> Vec<Page> {
        let mut pages = Page::all();
        pages.retain(|page| page.blocks().iter().any(|block| block.info == place.info()));
        assert!(!pages.is_empty(), "no document has a block {:?}", place.info());
        pages
    }

    pub fn blocks(&self) -> Vec<Block<'_>> {
        let (mut found, mut open) = (Vec::new(), None::<Block<'_>>);
        for (number, line) in (1..).zip(self.text.lines()) {
            match (line.trim_start().strip_prefix("```"), open.as_mut()) {
                (Some(_), Some(_)) => found.extend(open.take()),
                (Some(info), None) => open = Some(Block { info, lines: Vec::new() }),
                (None, Some(block)) => block.lines.push((number, line)),
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a block is not closed", self.path);
        found
    }

    /// What is typed there as one script, in which each line has the number that it has in the document. It ends at the first
    /// command that fails, and says where that is. `kept` says which lines are run.
    pub fn script(&self, place: Place, kept: impl Fn(&str) -> bool) -> String {
        let mut lines = vec![""; self.text.lines().count()];
        for block in self.blocks().iter().filter(|block| block.info == place.info()) {
            block.lines.iter().filter(|(_, line)| kept(line)).for_each(|(number, line)| lines[number - 1] = line);
        }
        // The first line of a document is its title.
        let first = format!("set -Eeuo pipefail; trap 'echo \"{}:$LINENO: $BASH_COMMAND\" >&2' ERR", self.path);
        lines[0] = &first;
        lines.join("\n") + "\n"
    }
}

/// A file of this repository.
#[track_caller]
pub fn read(path: &str) -> String {
    let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(whole).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Runs a script by this command, as its last argument. Fails with what it printed.
#[track_caller]
pub fn run(mut command: Command, script: &str) {
    let output = command.arg(script).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{printed}{errors}");
    assert!(output.status.success(), "{errors}");
}
