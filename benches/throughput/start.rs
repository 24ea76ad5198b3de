//! How long a server takes from its start as a program to its first answer. It is asked every millisecond by a client that
//! is there before it; the answer comes from the upstream, as nothing is in the cache.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use crate::report::{Target, median};
use crate::servers::{Kind, Server};

/// What the command line calls it.
pub(crate) const NAME: &str = "start";
/// The first answer of dnslet comes within so many milliseconds.
const WITHIN: f64 = 30.0;
/// Starts of each server.
const STARTS: usize = 21;

/// Milliseconds of every start, by server.
#[derive(Default)]
pub(crate) struct Starts(Vec<(Kind, Vec<f64>)>);

/// Starts each server again and again, in turn.
pub(crate) fn measure(kinds: &[Kind], directory: &Path, quick: bool) -> io::Result<Starts> {
    let mut starts: Vec<_> = kinds.iter().map(|&kind| (kind, Vec::new())).collect();
    for _ in 0..if quick { 1 } else { STARTS } {
        for (kind, took) in &mut starts {
            let server = Server::start(*kind, directory, 0)?;
            took.push(server.first_answer.as_secs_f64() * 1000.0);
        }
    }
    Ok(Starts(starts))
}

impl Starts {
    pub(crate) fn table(&self) -> String {
        let mut out = String::new();
        if !self.0.is_empty() {
            let _ =
                writeln!(out, "\nfrom exec to the first answer, in ms: median and worst of {} starts", self.count());
        }
        for (kind, took) in &self.0 {
            let worst = took.iter().copied().fold(0.0, f64::max);
            let _ = writeln!(out, "  {:<8}{:>9.1}{worst:>9.1}", kind.name(), median(took.clone()).unwrap_or_default());
        }
        out
    }

    pub(crate) fn target(&self) -> Target {
        let is = self.0.iter().find(|(kind, _)| *kind == Kind::Dnslet).and_then(|(_, took)| median(took.clone()));
        let shown = is.map_or_else(|| "unknown".to_owned(), |is| format!("{is:.1}"));
        Target { text: format!("first answer: at most {WITHIN} ms, is {shown}"), met: is.map(|is| is <= WITHIN) }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        self.0.iter().map(|(kind, took)| (kind.name().to_owned(), serde_json::json!(took))).collect()
    }

    fn count(&self) -> usize {
        self.0.first().map_or(0, |(_, took)| took.len())
    }
}
