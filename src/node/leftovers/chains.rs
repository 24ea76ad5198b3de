//! Rules of iptables that were left behind: ours, and node-cache's.

use std::fs;
use std::io::ErrorKind;

use crate::node::firewall::iptables::{Failure, Family, LOCK_WAIT, PREFIX, Saved, Table, Tools, words};
use crate::node::status::{Kind, Trouble};

/// Whose rules are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// Those that node-cache commented, in the tables it uses.
    NodeCache,
    /// Those and our own.
    All,
}

/// What was done about the rules.
#[derive(Debug, Default)]
pub(super) struct Swept {
    /// What was removed, one thing each.
    pub(super) removed: Vec<String>,
    /// What could not be removed.
    pub(super) troubles: Vec<Trouble>,
    /// Whether there was any program to look with.
    pub(super) looked: bool,
}

/// One way into the tables.
struct Way {
    tools: Tools,
    /// Its name, as in `ip6tables-legacy`.
    name: String,
    legacy: bool,
}

/// The comments of node-cache's rules.
const NODE_CACHE: [&str; 2] =
    ["--comment \"NodeLocal DNS Cache: skip conntrack\"", "--comment \"NodeLocal DNS Cache: allow DNS traffic\""];

/// The chains those rules are in.
const BUILT_IN: [&str; 3] = ["PREROUTING", "INPUT", "OUTPUT"];

/// How often a table is tried: it may change between look and change.
const ATTEMPTS: usize = 3;

/// Removes the rules from the tables of both families, of every variant of iptables that is here.
pub(super) async fn sweep(whose: Whose) -> Swept {
    let mut swept = Swept::default();
    for way in ways().await {
        swept.looked = true;
        match way.sweep(whose).await {
            Ok(removed) => swept.removed.extend(removed),
            Err(failure) => swept.troubles.push(way.trouble(&failure)),
        }
    }
    swept
}

/// Both variants, or the one that has no other name.
async fn ways() -> Vec<Way> {
    let mut ways = Vec::new();
    for family in [Family::V4, Family::V6] {
        let both = ["-nft", "-legacy"].map(|variant| (variant, Tools::find(family, variant)));
        let complete = both.iter().all(|(_, tools)| tools.is_ok());
        let plain = (!complete).then(|| ("", Tools::find(family, "")));
        for (variant, tools) in both.into_iter().chain(plain) {
            let Ok(tools) = tools else { continue };
            // Versions before 1.8 know one variant and do not name it.
            let legacy = tools.version().await.is_ok_and(|version| !version.contains("nf_tables"));
            ways.push(Way { tools, name: format!("{}{variant}", family.word()), legacy });
        }
    }
    ways
}

impl Way {
    async fn sweep(&self, whose: Whose) -> Result<Vec<String>, Failure> {
        let tables: &[Table] = match whose {
            Whose::NodeCache => &[Table::Raw, Table::Filter],
            Whose::All => &Table::ALL,
        };
        let mut removed = Vec::new();
        for table in tables.iter().filter(|table| self.has(**table)) {
            let mut attempt = 1;
            loop {
                match self.sweep_table(*table, whose).await {
                    Err(Failure::Refused(_)) if attempt < ATTEMPTS => attempt += 1,
                    outcome => break removed.extend(outcome?),
                }
            }
        }
        Ok(removed)
    }

    async fn sweep_table(&self, table: Table, whose: Whose) -> Result<Vec<String>, Failure> {
        let of_ours = |line: &str| whose == Whose::All && line.contains(PREFIX);
        let lines = self.tools.save(table, &|line| of_ours(line) || is_node_cache(line)).await?;
        let place = format!("{} {}", self.name, table.word());
        let (mut text, mut removed) = (String::new(), Vec::new());
        for rule in lines.iter().filter(|line| is_node_cache(line)).filter_map(|line| line.strip_prefix("-A ")) {
            text.push_str(&format!("-D {rule}\n"));
            removed.push(format!("node-cache's rule in {place}: {rule}"));
        }
        if whose == Whose::All {
            let saved = Saved::new(&lines);
            text.push_str(&saved.removal());
            removed.extend(saved.jumps.iter().map(|jump| format!("rule in {place}: {jump}")));
            removed.extend(saved.chains.iter().map(|chain| format!("chain {chain} in {place}")));
        }
        if !text.is_empty() {
            self.tools.restore(&format!("*{}\n{text}COMMIT\n", table.word()), LOCK_WAIT).await?;
        }
        Ok(removed)
    }

    /// A look with legacy iptables loads its tables into the kernel; where they are not, nothing can be in them.
    fn has(&self, table: Table) -> bool {
        let list = match self.tools.family {
            Family::V4 => "/proc/net/ip_tables_names",
            Family::V6 => "/proc/net/ip6_tables_names",
        };
        match fs::read_to_string(list) {
            _ if !self.legacy => true,
            Ok(names) => names.lines().any(|name| name == table.word()),
            Err(error) => error.kind() != ErrorKind::NotFound,
        }
    }

    fn trouble(&self, failure: &Failure) -> Trouble {
        let kind = match failure {
            Failure::Locked => Kind::IptablesLock,
            Failure::Slow | Failure::Refused(_) => Kind::Iptables,
        };
        let text = format!(
            "rules of {} could not be looked through or removed: {}; if node-cache left rules, clients get no answer while \
             nothing listens at their addresses; try `dnslet cleanup` again",
            self.name,
            words(failure)
        );
        Trouble { kind, text }
    }
}

/// Whether a line of `iptables-save` is a rule that node-cache placed.
fn is_node_cache(line: &str) -> bool {
    let chain = line.strip_prefix("-A ").and_then(|rule| rule.split(' ').next());
    chain.is_some_and(|chain| BUILT_IN.contains(&chain)) && NODE_CACHE.iter().any(|comment| line.contains(comment))
}
