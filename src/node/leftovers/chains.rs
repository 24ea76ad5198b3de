//! Rules of iptables that were left behind: ours, and node-cache's.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;

use super::native;
use crate::node::firewall::iptables::{Failure, Family, LOCK_WAIT, PREFIX, Saved, Table, Tools, words};
use crate::node::status::{Kind, Trouble};

/// Which rules are meant.
#[derive(Clone, Copy)]
pub(super) struct Meant<'a> {
    /// Of those that node-cache commented, the ones at an address to which this says yes; `None` is a rule without one.
    pub(super) node_cache: &'a (dyn Fn(Option<IpAddr>) -> bool + Sync),
    /// Our own as well, in all tables.
    pub(super) ours: bool,
}

/// What was done about the rules.
#[derive(Debug, Default)]
pub(super) struct Swept {
    /// What was removed, one thing each.
    pub(super) removed: Vec<String>,
    /// What could not be removed.
    pub(super) troubles: Vec<Trouble>,
    /// Where there was no program to look with, in words.
    pub(super) unseen: Vec<String>,
    /// Rules of node-cache that were seen and not meant.
    pub(super) left: usize,
}

/// One way into the tables.
struct Way {
    tools: Tools,
    /// Its name, as in `ip6tables-legacy`.
    name: String,
    legacy: bool,
}

/// The comments of node-cache's rules.
pub(super) const NODE_CACHE: [&str; 2] =
    ["NodeLocal DNS Cache: skip conntrack", "NodeLocal DNS Cache: allow DNS traffic"];

/// The chains those rules are in.
const BUILT_IN: [&str; 3] = ["PREROUTING", "INPUT", "OUTPUT"];

/// How often a table is tried: it may change between look and change.
const ATTEMPTS: usize = 3;

/// Removes the rules from the tables of both families, of every variant of iptables. The families are worked on side by
/// side: a lock that somebody holds is waited for once.
pub(super) async fn sweep(meant: Meant<'_>) -> Swept {
    let (mut swept, v6) = tokio::join!(sweep_family(Family::V4, meant), sweep_family(Family::V6, meant));
    swept.removed.extend(v6.removed);
    swept.troubles.extend(v6.troubles);
    swept.unseen.extend(v6.unseen);
    swept.left += v6.left;
    swept
}

async fn sweep_family(family: Family, meant: Meant<'_>) -> Swept {
    let mut swept = Swept::default();
    let ways = ways(family).await;
    for way in &ways {
        if let Err(failure) = way.sweep(meant, &mut swept).await {
            swept.troubles.push(trouble(&way.name, &words(&failure), failure == Failure::Locked));
        }
    }
    without_tools(family, &ways, meant, &mut swept);
    swept
}

/// What can be done and said about the variants that no program is here for.
fn without_tools(family: Family, ways: &[Way], meant: Meant<'_>, swept: &mut Swept) {
    if !ways.iter().any(|way| !way.legacy)
        && let Err(error) = native::sweep(family, meant, swept)
    {
        swept.troubles.push(trouble(&format!("{}-nft", family.word()), &error.to_string(), false));
    }
    // Whoever places rules there, node-cache or an agent, begins with table raw.
    if !ways.iter().any(|way| way.legacy) && legacy_has(family, Table::Raw) == Some(true) {
        swept.unseen.push(format!(
            "tables of {}-legacy are in use, but it was not found, so they were not looked at",
            family.word()
        ));
    }
}

/// Both variants, or the one that has no other name.
async fn ways(family: Family) -> Vec<Way> {
    let mut ways = Vec::new();
    let both = ["-nft", "-legacy"].map(|variant| (variant, Tools::find(family, variant)));
    let complete = both.iter().all(|(_, tools)| tools.is_ok());
    let plain = (!complete).then(|| ("", Tools::find(family, "")));
    for (variant, tools) in both.into_iter().chain(plain) {
        let Ok(tools) = tools else { continue };
        // Versions before 1.8 know one variant and do not name it.
        let legacy = tools.version().await.is_ok_and(|version| !version.contains("nf_tables"));
        ways.push(Way { tools, name: format!("{}{variant}", family.word()), legacy });
    }
    ways
}

/// Whether the kernel has loaded a table of legacy iptables; `None` where it does not say.
fn legacy_has(family: Family, table: Table) -> Option<bool> {
    let list = match family {
        Family::V4 => "/proc/net/ip_tables_names",
        Family::V6 => "/proc/net/ip6_tables_names",
    };
    match fs::read_to_string(list) {
        Ok(names) => Some(names.lines().any(|name| name == table.word())),
        Err(error) if error.kind() == ErrorKind::NotFound => Some(false),
        Err(_) => None,
    }
}

fn trouble(name: &str, why: &str, locked: bool) -> Trouble {
    let kind = if locked { Kind::IptablesLock } else { Kind::Iptables };
    let text = format!(
        "rules of {name} could not be looked through or removed: {why}; if node-cache left rules, clients get no answer \
         while nothing listens at their addresses; `dnslet cleanup` tries again"
    );
    Trouble { kind, text }
}

impl Way {
    /// Adds what it removed to the list, also if it fails later.
    async fn sweep(&self, meant: Meant<'_>, swept: &mut Swept) -> Result<(), Failure> {
        let tables: &[Table] = if meant.ours { &Table::ALL } else { &[Table::Raw, Table::Filter] };
        for table in tables.iter().filter(|table| self.has(**table)) {
            let mut attempt = 1;
            loop {
                match self.sweep_table(*table, meant).await {
                    Err(Failure::Refused(_)) if attempt < ATTEMPTS => attempt += 1,
                    outcome => {
                        let (removed, left) = outcome?;
                        swept.removed.extend(removed);
                        swept.left += left;
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// What was removed, and how many rules of node-cache were not.
    async fn sweep_table(&self, table: Table, meant: Meant<'_>) -> Result<(Vec<String>, usize), Failure> {
        let of_ours = |line: &str| meant.ours && line.contains(PREFIX);
        let lines = self.tools.save(table, &|line| of_ours(line) || is_node_cache(line)).await?;
        let place = format!("{} {}", self.name, table.word());
        let (mut text, mut removed) = (String::new(), Vec::new());
        let rules = lines.iter().filter(|line| is_node_cache(line)).filter_map(|line| line.strip_prefix("-A "));
        let (goes, stays): (Vec<&str>, Vec<&str>) = rules.partition(|rule| (meant.node_cache)(address(rule)));
        for rule in goes {
            text.push_str(&format!("-D {rule}\n"));
            removed.push(format!("node-cache's rule in {place}: {rule}"));
        }
        if meant.ours {
            let saved = Saved::new(&lines);
            text.push_str(&saved.removal());
            removed.extend(saved.jumps.iter().map(|jump| format!("rule in {place}: {jump}")));
            removed.extend(saved.chains.iter().map(|chain| format!("chain {chain} in {place}")));
        }
        if !text.is_empty() {
            self.tools.restore(&format!("*{}\n{text}COMMIT\n", table.word()), LOCK_WAIT).await?;
        }
        Ok((removed, stays.len()))
    }

    /// A look with legacy iptables loads its tables into the kernel; where they are not, nothing can be in them.
    fn has(&self, table: Table) -> bool {
        !self.legacy || legacy_has(self.tools.family, table) != Some(false)
    }
}

/// The address a rule of node-cache is about, which stands behind `-d` or `-s` as in `10.96.0.10/32`.
fn address(rule: &str) -> Option<IpAddr> {
    let mut words = rule.split(' ').skip_while(|word| !["-d", "-s"].contains(word));
    words.nth(1)?.split('/').next()?.parse().ok()
}

/// Whether a line of `iptables-save` is a rule that node-cache placed.
fn is_node_cache(line: &str) -> bool {
    let chain = line.strip_prefix("-A ").and_then(|rule| rule.split(' ').next());
    let is_commented = |text: &&str| line.contains(&format!("--comment \"{text}\""));
    chain.is_some_and(|chain| BUILT_IN.contains(&chain)) && NODE_CACHE.iter().any(is_commented)
}
