//! Rules placed by `iptables-restore`, where nf_tables does not work or is not enough.
//!
//! A look at a table is one `iptables-save`, a change one `iptables-restore --noflush` for each family: every table
//! changes at once or not at all. Each process ends within three seconds, and the lock that older iptables hold is
//! waited for two, so whoever sits on it delays neither an answer nor a stop. What was written is read back: tools spell
//! rules in their own ways, and the next look is compared with that spelling.
//!
//! These rules do not end with the process. For pods that is harmless: a query is left untracked only while a socket
//! would take it, so the agent's death sends pods to the cluster's DNS. Programs on the node itself are refused until
//! the agent is back or `dnslet cleanup` was run, because the socket match does not see packets on their way out.
//!
//! The chains are shared by all instances on a node. Whoever changed them last is right until another looks.

mod rules;
mod saved;
mod tool;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::Base;
use crate::node::status::{Action, Kind, Trouble};
use crate::sys::process::{self, PortOf};
use rules::Plan;

pub(crate) use rules::{Family, PREFIX, Table};
pub(crate) use saved::Saved;
pub(crate) use tool::{Failure, LOCK_WAIT, Tools};

/// Rules of iptables.
#[derive(Debug)]
pub struct Iptables {
    v4: Box<Lane>,
    /// Or why there are no rules of this family.
    v6: Result<Box<Lane>, String>,
    base: Option<Base>,
    ready: BTreeSet<IpAddr>,
    /// The lock was held at the last attempt: the next one waits less, so that a stop meets it once.
    locked: bool,
}

/// The tables of one family.
#[derive(Debug)]
struct Lane {
    tools: Tools,
    known: BTreeMap<Table, Known>,
}

/// A table as it was after it was written: our words, and the tool's.
#[derive(Clone, Debug, Default)]
struct Known {
    plan: Vec<String>,
    shown: Vec<String>,
}

/// What an attempt was for; decides what its failure means.
#[derive(Clone, Copy)]
enum Doing {
    Base,
    Intercept,
    Withdraw,
    Remove,
}

impl Iptables {
    /// Looks for `iptables-restore` and its kin, and says in the log which variant they are.
    ///
    /// # Errors
    /// That they are not here or do not run, what still works, and what to do.
    pub async fn detect() -> Result<Self, Trouble> {
        Self::of("").await
    }

    /// As [`Iptables::detect`], for programs called e.g. `iptables-legacy-restore` with the variant `-legacy`.
    pub(crate) async fn of(variant: &str) -> Result<Self, Trouble> {
        let without = |why: String| {
            let text = format!(
                "{why}, so no rules are placed: only clients that name an address of the cache reach it; install iptables \
                 in the image or on the node, or use -rules nftables"
            );
            Trouble { kind: Kind::Iptables, text }
        };
        let tools = Tools::find(Family::V4, variant).map_err(|name| without(format!("{name} was not found")))?;
        let version = tools.version().await.map_err(|failure| without(words(&failure)))?;
        let v6 = match Path::new("/proc/sys/net/ipv6").exists() {
            true => Tools::find(Family::V6, variant).map_err(|name| format!("{name} was not found")),
            false => Err("this kernel has no IPv6".to_owned()),
        };
        tracing::info!("iptables is {version}, at {}", tools.restore_path().display());
        Ok(Self { v4: Lane::new(tools), v6: v6.map(Lane::new), base: None, ready: BTreeSet::new(), locked: false })
    }

    /// As [`super::Firewall::base`]. Where IPv6 cannot have rules, the others are in place and the error says so.
    pub async fn base(&mut self, base: &Base) -> Result<bool, Trouble> {
        self.base = Some(base.clone());
        let written = self.settle(&Table::ALL, Doing::Base).await?;
        match &self.v6 {
            Err(why) if base.addresses.iter().any(IpAddr::is_ipv6) => {
                let text = format!(
                    "{why}, so queries to the IPv6 addresses are not intercepted; IPv4 is; install ip6tables, or leave \
                     the IPv6 addresses out of -localip"
                );
                Err(Trouble { kind: Kind::Iptables, text })
            }
            _ => Ok(written),
        }
    }

    /// As [`super::Firewall::intercept`]. IPv6 addresses are left out where IPv6 cannot have rules. A withdrawal leaves the
    /// addresses at which another process listens: the rules are its own as well.
    pub async fn intercept(&mut self, ready: &BTreeSet<IpAddr>) -> Result<Option<Action>, Trouble> {
        self.ready.clone_from(ready);
        if ready.is_empty() {
            self.ready = self.needed_by_others().await;
        }
        let (doing, action) = match ready.is_empty() {
            true => (Doing::Withdraw, Action::Withdrawn),
            false => (Doing::Intercept, Action::Intercepted),
        };
        Ok(self.settle(&[Table::Raw], doing).await?.then_some(action))
    }

    /// As [`super::Firewall::remove_base`]. The sign of another instance is that somebody else listens.
    pub async fn remove_base(&mut self) -> Result<Vec<String>, Trouble> {
        let base = self.base.take();
        if let Some(base) = &base {
            let other = base
                .addresses
                .iter()
                .find_map(|address| process::other_holder_of(SocketAddr::new(*address, base.dns_port), PortOf::Udp));
            if let Some(other) = other {
                tracing::info!("the iptables rules stay: {other} answers at the same address");
                return Ok(Vec::new());
            }
        }
        self.ready.clear();
        let removed = self.settle(&Table::ALL, Doing::Remove).await?;
        Ok(if removed { vec!["the iptables rules".to_owned()] } else { Vec::new() })
    }

    /// The addresses that are intercepted in the kernel and at which another process listens.
    async fn needed_by_others(&mut self) -> BTreeSet<IpAddr> {
        let Some(base) = &self.base else { return BTreeSet::new() };
        let has_other = |address: &IpAddr| {
            let other = process::other_at(SocketAddr::new(*address, base.dns_port), PortOf::Udp);
            other.is_some()
        };
        let shared: Vec<IpAddr> = base.addresses.iter().copied().filter(has_other).collect();
        let mut needed = self.v4.intercepted(&shared).await;
        if let Ok(v6) = &self.v6 {
            needed.extend(v6.intercepted(&shared).await);
        }
        needed.into_iter().collect()
    }

    /// Whether rules for this address can be placed at all.
    pub fn covers(&self, address: IpAddr) -> bool {
        address.is_ipv4() || self.v6.is_ok()
    }

    /// Brings the tables of both families in line, side by side, and returns whether something was written.
    async fn settle(&mut self, tables: &[Table], doing: Doing) -> Result<bool, Trouble> {
        let wait = if self.locked { 1 } else { LOCK_WAIT };
        let (base, ready) = (self.base.as_ref(), &self.ready);
        let v6 = async {
            match &mut self.v6 {
                Ok(lane) => lane.settle(tables, base, ready, wait).await,
                Err(_) => Ok(false),
            }
        };
        let (v4, v6) = tokio::join!(self.v4.settle(tables, base, ready, wait), v6);
        self.locked = [&v4, &v6].iter().any(|outcome| matches!(outcome, Err(Failure::Locked)));
        let trouble = |family, failure| doing.trouble(family, &failure);
        Ok(v4.map_err(|failure| trouble(Family::V4, failure))? | v6.map_err(|failure| trouble(Family::V6, failure))?)
    }
}

impl Lane {
    fn new(tools: Tools) -> Box<Self> {
        Box::new(Self { tools, known: BTreeMap::new() })
    }

    async fn settle(
        &mut self,
        tables: &[Table],
        base: Option<&Base>,
        ready: &BTreeSet<IpAddr>,
        lock_wait: u8,
    ) -> Result<bool, Failure> {
        let (mut text, mut changed) = (String::new(), Vec::new());
        for &table in tables {
            let plan =
                base.map_or_else(|| Plan::nothing(table), |base| Plan::new(table, self.tools.family, base, ready));
            let known = self.known.get(&table).cloned();
            if plan.rules.is_empty() && known.as_ref().is_some_and(|known| known.plan.is_empty()) {
                // It was seen to hold nothing of ours. A nat table can be long, and a look at it loads its module.
                continue;
            }
            let saved = self.look(table).await?;
            let same = known.is_some_and(|known| known.plan == plan.rules && known.shown == saved.rules);
            if plan.joined(&saved) && (same || plan.rules.is_empty()) {
                self.known.insert(table, Known { plan: plan.rules, shown: saved.rules });
                continue;
            }
            text.push_str(&plan.restore(&saved));
            changed.push((table, plan));
        }
        if text.is_empty() {
            return Ok(false);
        }
        self.tools.restore(&text, lock_wait).await?;
        for (table, plan) in changed {
            let saved = self.look(table).await?;
            if !plan.joined(&saved) || saved.rules.len() != plan.rules.len() {
                let text = format!("the {} table does not hold what was written to it", table.word());
                return Err(Failure::Refused(text));
            }
            self.known.insert(table, Known { plan: plan.rules, shown: saved.rules });
        }
        Ok(true)
    }

    /// Those of the addresses that the kernel has rules for; none where they cannot be seen.
    async fn intercepted(&self, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let mut found = addresses.to_vec();
        found.retain(|address| self.tools.family.has(*address));
        if !found.is_empty() {
            let saved = self.look(Table::Raw).await.unwrap_or_default();
            found.retain(|address| saved.intercepts(*address));
        }
        found
    }

    async fn look(&self, table: Table) -> Result<Saved, Failure> {
        Ok(Saved::new(&self.tools.save(table, &|line| line.contains(PREFIX)).await?))
    }
}

impl Doing {
    fn trouble(self, family: Family, failure: &Failure) -> Trouble {
        let kind = match failure {
            Failure::Locked => Kind::IptablesLock,
            Failure::Slow | Failure::Refused(_) => Kind::Iptables,
        };
        let rules = format!("the {} rules", family.word());
        let why = words(failure);
        let text = match self {
            Doing::Base => format!(
                "{rules} that let DNS past connection tracking could not be placed or looked at: {why}; clients are served \
                 as far as the node's other rules let them; the next check tries again"
            ),
            Doing::Intercept => format!(
                "{rules} that bring queries here could not be placed or looked at: {why}; what was in place still is, and \
                 other queries go to the cluster's DNS; the next check tries again"
            ),
            Doing::Withdraw => format!(
                "{rules} that bring queries here could not be withdrawn: {why}; once the agent has ended they do no harm \
                 to pods, but programs on the node itself are refused until it is back; the next check tries again, and \
                 `dnslet cleanup` removes them"
            ),
            Doing::Remove => {
                format!("{rules} could not be removed: {why}; they do no harm to pods; `dnslet cleanup` removes them")
            }
        };
        Trouble { kind, text }
    }
}

/// A failure as the end of a sentence.
pub(crate) fn words(failure: &Failure) -> String {
    match failure {
        Failure::Locked => "another process holds the xtables lock (/run/xtables.lock)".to_owned(),
        Failure::Slow => format!("iptables did not finish within {} s and was ended", tool::LONGEST.as_secs()),
        Failure::Refused(why) => why.clone(),
    }
}

#[cfg(test)]
mod tests;
