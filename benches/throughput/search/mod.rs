//! What walking the search list in the agent saves: queries for one name (`names`), the cost of what applications look
//! up (`mix`), and that replies from the cache cost what they did (`hits`). Each compares two agents of one build in
//! one run: without `autopath`, and with it.

mod hits;
mod mix;
mod names;

use std::io;
use std::path::Path;

use crate::answerer::Cluster;
use crate::report::Target;
use crate::servers::{Server, Setup};
use mix::Speed;

/// What the two agents are called, in the order in which everything here comes.
const MODES: [&str; 2] = ["off", "on"];

/// Caches and search lists as the shipped Corefile has them; the upstream's names of the cluster live as short as in a
/// real one.
const SHIPPED: [Setup; 2] = [
    Setup {
        name: "-off",
        cluster: "cache {\n success 9984 30\n denial 9984 5\n }",
        root: "cache 30",
        lifetimes: Cluster::Brief,
    },
    Setup {
        name: "-on",
        cluster: "cache {\n success 9984 30\n denial 9984 5\n denial_cut cluster.local\n }\n \
                  autopath @query {\n search .\n }",
        root: "cache 30",
        lifetimes: Cluster::Brief,
    },
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Names,
    Saturated,
    Paced,
    Hits,
}

impl Part {
    pub(crate) const ALL: [Self; 4] = [Self::Names, Self::Saturated, Self::Paced, Self::Hits];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Names => "search-names",
            Self::Saturated => Speed::Saturated.name(),
            Self::Paced => Speed::Paced.name(),
            Self::Hits => "search-hits",
        }
    }
}

/// What a part came to: lines to print, what was asked of it, and all samples.
pub(crate) struct Findings {
    pub(crate) table: String,
    pub(crate) targets: Vec<Target>,
    pub(crate) json: serde_json::Value,
}

/// Measures one part.
pub(crate) fn measure(part: Part, directory: &Path, quick: bool, rounds: usize) -> io::Result<Findings> {
    match part {
        Part::Names => names::measure(directory, quick),
        Part::Saturated => mix::measure(Speed::Saturated, directory, quick, rounds),
        Part::Paced => mix::measure(Speed::Paced, directory, quick, rounds),
        Part::Hits => hits::measure(directory, quick, rounds),
    }
}

/// Both agents, fresh.
fn start(setups: &[Setup; 2], directory: &Path) -> io::Result<[Server; 2]> {
    let [off, on] = setups;
    Ok([Server::dnslet(off, directory)?, Server::dnslet(on, directory)?])
}
