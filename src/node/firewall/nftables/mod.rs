//! Rules of nf_tables, spoken over netlink: no program is started and no lock is waited for.
//!
//! Each set of rules is one table, and a table is written in one transaction: it is there as a whole or as it was.
//!
//! The intercept's table belongs to a socket of this process (owner flag, Linux 5.12): nobody else can change it, a
//! `nft flush ruleset` leaves it, and the kernel removes it when the socket closes. It is named after the instance, so two
//! instances overlap during an upgrade, and it exists without rules from the first base on: others see that somebody is
//! alive.
//!
//! The base's table belongs to nobody. Instances that want the same share it. Where they want different things, the one
//! that wrote last has the word for as long as it lives; its name is in the table's comment. Every instance writes when
//! it starts or when its wishes change, so the younger one wins and they do not write in turns.
//!
//! Whether the kernel still has what was written is asked by the number of the ruleset's generation, which every change
//! of anybody's rules raises. Only if that differs are the tables read and compared, rule by rule.

mod expressions;
mod listing;
mod rules;
mod table;
mod watch;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use netlink_packet_netfilter::NetfilterMessageInner;
use netlink_packet_netfilter::NetfilterProtoFamily::Unspec;
use netlink_packet_netfilter::nftables::{GenAttribute, GenMessage, NfTablesMessage};

pub use listing::{Installed, InstalledRule, installed};
use rules::{BASE, INSTANCE_PREFIX, Ports};
use table::Table;
use watch::Watch;

use super::Base;
use crate::node::netfilter::Netfilter;
use crate::node::status::{Action, Kind, Trouble};

/// Rules of nf_tables.
#[derive(Debug)]
pub struct Nftables {
    instance: String,
    /// For the base, and to look.
    kernel: Netfilter,
    /// The intercept's table ends with this socket. `None` after a withdrawal that only closing it could make.
    owner: Option<Netfilter>,
    watch: Watch,
    ports: Ports,
    base: Placed<Base>,
    intercept: Placed<(BTreeSet<IpAddr>, Ports)>,
    /// Why the base that is wanted could be placed only in part.
    lacks: Option<Trouble>,
}

/// Why the kernel does not take our rules.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The process may not change the network.
    NotPermitted,
    /// The kernel has no nf_tables.
    Absent,
    /// A table cannot belong to a process.
    NoOwner,
    /// An expression that the rules need is missing.
    Incomplete,
    /// Something else.
    Other(io::Error),
}

/// What a table that was seen in place is made from.
#[derive(Debug)]
struct Placed<W> {
    wanted: Option<W>,
    /// The ruleset's generation that it was seen in.
    generation: Option<u32>,
}

impl Nftables {
    /// Opens the sockets and lets the kernel rehearse an intercept. Must be called inside a runtime that does I/O.
    ///
    /// # Errors
    /// What the kernel does not take.
    pub(super) async fn detect() -> Result<Self, Refusal> {
        let ports = Ports { dns: 53, health: 8080 };
        let connect = || Netfilter::connect().map_err(Refusal::of_socket);
        let (kernel, mut owner) = (connect()?, connect()?);
        let instance = format!("{:08x}", rand::random::<u32>());
        let example: BTreeSet<IpAddr> = [IpAddr::from([127, 0, 0, 1])].into();
        owner.rehearse(rules::intercept(&instance, &BTreeSet::new(), ports).writing()).map_err(Refusal::of_table)?;
        owner.rehearse(rules::intercept(&instance, &example, ports).writing()).map_err(Refusal::of_rules)?;
        let watch = Watch::start().map_err(Refusal::Other)?;
        let (base, intercept) = (Placed::NOTHING, Placed::NOTHING);
        Ok(Self { instance, kernel, owner: Some(owner), watch, ports, base, intercept, lacks: None })
    }

    /// As [`super::Firewall::base`].
    pub async fn base(&mut self, wanted: &Base) -> Result<bool, Trouble> {
        self.ports = Ports { dns: wanted.dns_port, health: wanted.health_port };
        if self.intercept.wanted.is_none() {
            // Says that this instance is alive before it writes for others to see.
            self.intercept(&BTreeSet::new()).await?;
        }
        let written = self
            .place_base(wanted)
            .map_err(|error| trouble("the rules for when the cache is away were not placed", &error, KEEPS_BASE))?;
        let heard = self.watch.renew().map_err(|error| trouble("changes of rules are not heard of", &error, UNHEARD));
        self.lacks.clone().map_or(heard.map(|()| written), Err)
    }

    /// As [`super::Firewall::intercept`].
    pub async fn intercept(&mut self, ready: &BTreeSet<IpAddr>) -> Result<Option<Action>, Trouble> {
        let stood = self.intercept.wanted.as_ref().is_some_and(|(ready, _)| !ready.is_empty());
        match self.place_intercept(ready, stood) {
            Ok(action) => Ok(action),
            Err(error) => {
                if ready.is_empty() {
                    // The table ends with its socket, whatever the kernel has against looking at it or writing it.
                    self.owner = None;
                    self.intercept = Placed::NOTHING;
                    if stood {
                        return Ok(Some(Action::Withdrawn));
                    }
                }
                Err(trouble("the rules that bring packets to the cache were not placed", &error, KEEPS_INTERCEPT))
            }
        }
    }

    /// As [`super::Firewall::remove_base`].
    pub async fn remove_base(&mut self) -> Result<Vec<String>, Trouble> {
        let advice = "clients may still be sent to the cluster's DNS; remove it with `nft delete table inet dnslet`";
        let fault = |error| trouble("the table inet dnslet was not removed", &error, advice);
        if self.is_shared().map_err(fault)? || table::read(&mut self.kernel, BASE).map_err(fault)?.is_none() {
            return Ok(Vec::new());
        }
        let table = Table::empty(BASE.to_owned(), String::new(), false);
        self.kernel.transact(table.removing()).map_err(fault)?;
        self.base = Placed::NOTHING;
        Ok(vec![format!("table inet {BASE}")])
    }

    /// As [`super::Firewall::shared`].
    pub async fn shared(&mut self) -> Result<bool, Trouble> {
        let advice = "what this node needs without the cache stays in place";
        self.is_shared().map_err(|error| trouble("the tables of nf_tables could not be listed", &error, advice))
    }

    /// As [`super::Firewall::changed`].
    pub async fn changed(&mut self) {
        let own = format!("{INSTANCE_PREFIX}{}", self.instance);
        let ports = [Some(self.kernel.port()), self.owner.as_ref().map(Netfilter::port)];
        self.watch.changed(&[BASE, &own], &ports).await;
    }

    /// `stood` is whether packets were intercepted before.
    fn place_intercept(&mut self, ready: &BTreeSet<IpAddr>, stood: bool) -> io::Result<Option<Action>> {
        let wanted = (ready.clone(), self.ports);
        let generation = self.generation()?;
        if self.intercept.is(&wanted, generation) {
            return Ok(None);
        }
        let table = rules::intercept(&self.instance, ready, self.ports);
        if table.is_in_place(&mut self.kernel)? {
            self.intercept.seen(wanted, generation);
            return Ok(None);
        }
        self.write_owned(&table)?;
        self.intercept.written(wanted);
        Ok(match (ready.is_empty(), stood) {
            (true, true) => Some(Action::Withdrawn),
            (true, false) => None,
            (false, _) => Some(Action::Intercepted),
        })
    }

    /// Places the base unless the kernel has it, or has that of an instance with the last word. Where the kernel refuses
    /// what translates, the rest is placed and `lacks` says so. Returns whether something was written.
    fn place_base(&mut self, wanted: &Base) -> io::Result<bool> {
        let generation = self.generation()?;
        if self.base.is(wanted, generation) {
            return Ok(false);
        }
        let unchanged = self.base.wanted.as_ref() == Some(wanted);
        if !unchanged {
            self.lacks = None;
        }
        let bare = rules::base_without_translation(wanted, &self.instance);
        let table = if self.lacks.is_some() { bare.clone() } else { rules::base(wanted, &self.instance) };
        if table.is_in_place(&mut self.kernel)? {
            self.base.seen(wanted.clone(), generation);
            return Ok(false);
        }
        if unchanged && self.has_other_author()? {
            // That ends with its author, whose death does not count as a change of the ruleset.
            self.base.generation = None;
            return Ok(false);
        }
        if let Err(error) = self.kernel.transact(table.writing()) {
            if table == bare {
                return Err(error);
            }
            self.lacks = Some(trouble("the rules that translate were not placed", &error, NO_FALLBACK));
            self.kernel.transact(bare.writing())?;
        }
        self.base.written(wanted.clone());
        Ok(true)
    }

    /// Whether the base in the kernel was written by another instance that is alive.
    fn has_other_author(&mut self) -> io::Result<bool> {
        let Some(base) = table::read(&mut self.kernel, BASE)? else { return Ok(false) };
        let comment = table::comment(&base);
        let author = comment.rsplit(' ').next().unwrap_or_default();
        Ok(self.others()?.contains(&format!("{INSTANCE_PREFIX}{author}")))
    }

    fn is_shared(&mut self) -> io::Result<bool> {
        Ok(!self.others()?.is_empty())
    }

    /// The names of the tables of other instances that are alive.
    fn others(&mut self) -> io::Result<Vec<String>> {
        let tables = table::all(&mut self.kernel)?;
        let alive = tables.iter().filter(|table| table::owner(table).is_some()).map(table::name);
        let is_other =
            |name: &&str| name.strip_prefix(INSTANCE_PREFIX).is_some_and(|instance| instance != self.instance);
        Ok(alive.filter(is_other).map(str::to_owned).collect())
    }

    fn write_owned(&mut self, table: &Table) -> io::Result<()> {
        let owner = match self.owner.take() {
            Some(owner) => owner,
            None => Netfilter::connect()?,
        };
        self.owner.insert(owner).transact(table.writing())
    }

    /// The number of the ruleset's generation. Errors: the kernel's.
    fn generation(&mut self) -> io::Result<u32> {
        let ask = NfTablesMessage::GetGen(GenMessage { attributes: Vec::new() });
        let NetfilterMessageInner::NfTables(NfTablesMessage::NewGen(told)) = self.kernel.get(Unspec, ask)? else {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        };
        let number = told.attributes.iter().find_map(|attribute| match attribute {
            GenAttribute::Id(number) => Some(*number),
            _ => None,
        });
        number.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }
}

const KEEPS_BASE: &str = "the cache answers, but while it is away replies may be delayed and link-local clients get no \
                          answer; look at `nft list table inet dnslet`";
const KEEPS_INTERCEPT: &str = "packets go where they went before, which is the cluster's DNS if nothing else was placed; \
                               it is tried again";
const UNHEARD: &str = "the rules are in place; what others do to them is repaired at the next regular look, which also \
                       tries to listen again";
const NO_FALLBACK: &str = "link-local clients and clients on the node get no answer while the cache is away; the kernel may \
                           lack nft_nat, nft_masq or nft_numgen";

impl<W: PartialEq> Placed<W> {
    const NOTHING: Self = Self { wanted: None, generation: None };

    fn is(&self, wanted: &W, generation: u32) -> bool {
        self.generation == Some(generation) && self.wanted.as_ref() == Some(wanted)
    }

    /// It was in place after this was the generation.
    fn seen(&mut self, wanted: W, generation: u32) {
        *self = Self { wanted: Some(wanted), generation: Some(generation) };
    }

    /// It was written. What generation that made is not known: others may have written since.
    fn written(&mut self, wanted: W) {
        *self = Self { wanted: Some(wanted), generation: None };
    }
}

impl Refusal {
    pub(super) fn of_socket(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT) => Refusal::Absent,
            _ => Refusal::Other(error),
        }
    }

    /// An empty table was refused. Kernels answer an unknown flag with either number.
    pub(super) fn of_table(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Refusal::NotPermitted,
            Some(libc::EINVAL) => Refusal::NoOwner,
            Some(libc::EOPNOTSUPP) => Refusal::Absent,
            _ => Refusal::Other(error),
        }
    }

    pub(super) fn of_rules(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::EOPNOTSUPP) => Refusal::Incomplete,
            _ => Refusal::of_table(error),
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::NotPermitted => f.write_str("this process may not change the network (it lacks CAP_NET_ADMIN)"),
            Refusal::Absent => f.write_str("the kernel has no nf_tables"),
            Refusal::NoOwner => f.write_str("the kernel is older than 5.12, its tables cannot end with a process"),
            Refusal::Incomplete => f.write_str("the kernel's nf_tables lacks counter or notrack (nft_ct)"),
            Refusal::Other(error) => write!(f, "the kernel refuses: {error}"),
        }
    }
}

fn trouble(what: &str, why: &io::Error, consequence: &str) -> Trouble {
    Trouble { kind: Kind::Iptables, text: format!("nf_tables: {what} ({why}); {consequence}") }
}

#[cfg(test)]
mod tests;
