//! What is told to who asks whether this agent is ready.
//!
//! It is ready when everything is in place that the flags and the Corefile ask for: at every address this server answers the
//! keeper's own probes, and where rules are wanted, they bring clients there. That is the measure because a rollout takes
//! the agent before away for one that is ready, and whoever can do with less may say so (`-rules none`). What no agent
//! could do on this node (IPv6 where there is none), and what is in nobody's way, is told and does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::dns::Protocol;
use crate::life::channel::Serving;
use crate::life::inquiry::{Inquirer, Inquiries, NOT_READY, READY, STARTING};
use crate::life::options::Unset;
use crate::node::diagnosis::{Ipv6, ipv6};
use crate::node::firewall::Base;
use crate::node::{Rules, Status};
use crate::observe::probe::Failure;

use super::Keeper;
use super::requests::serves;

/// Addresses of one kind that are named; of more only the number is told.
const NAMED: usize = 8;
/// Stands for addresses in a reason.
const PLACE: &str = "{}";
/// Refusals that are kept; a Corefile with more addresses that cannot be had is told of a part of them.
const MOST_REFUSALS: usize = 16;

/// What is known for this purpose alone.
#[derive(Debug)]
pub(super) struct Account {
    inquiries: Inquiries,
    /// Why the sockets of an address could not be had.
    refused: BTreeMap<SocketAddr, String>,
    /// Why the last server ended.
    ended: Option<String>,
    /// What is wrong with the configuration that there is to be read.
    pub(super) fault: Option<String>,
}

impl Account {
    /// To be called inside a runtime.
    pub(super) fn open() -> Account {
        Account { inquiries: Inquiries::open(), refused: BTreeMap::new(), ended: None, fault: None }
    }

    /// Waits for the next one who asks. Safe to cancel.
    pub(super) async fn asked(&self) -> Inquirer {
        self.inquiries.next().await
    }

    /// The sockets of this address could be had, or not for this reason.
    pub(super) fn claimed(&mut self, address: SocketAddr, refusal: Option<&str>) {
        match refusal {
            Some(why) if self.refused.len() < MOST_REFUSALS || self.refused.contains_key(&address) => {
                self.refused.insert(address, why.to_owned());
            }
            Some(_) => {}
            None => drop(self.refused.remove(&address)),
        }
    }

    /// A configuration is in force that lacks these addresses; what it does not name is of no interest.
    pub(super) fn serves_without(&mut self, missing: &[SocketAddr]) {
        self.refused.retain(|address, _| missing.contains(address));
    }

    /// A server has ended, and how.
    pub(super) fn ended(&mut self, how: &str) {
        self.ended = Some(how.to_owned());
    }
}

impl Keeper<'_> {
    /// The end has begun: from here on nobody who asks is told anything else.
    pub(super) fn say_that_it_ends(&mut self) {
        self.account.inquiries.repeat("not ready: the agent is being stopped");
    }

    /// The line for one who asks.
    pub(super) fn readiness(&self) -> String {
        let Some(serving) = &self.serving else { return self.starting() };
        let node = self.options.node.as_ref();
        let own = node.iter().flat_map(|node| &node.desired.addresses);
        let link = node.and_then(|node| node.desired.link.as_deref()).unwrap_or_default();
        let facts = Facts {
            serves: self.child.as_ref().is_some_and(|child| child.serves),
            ended: self.account.ended.as_deref(),
            serving,
            own: own.map(|ip| SocketAddr::new(*ip, self.options.dns_port)).collect(),
            port: self.options.dns_port,
            up: self.watchdog.up(),
            failures: self.watchdog.failures(),
            refused: &self.account.refused,
            rules: node.map_or(Rules::None, |node| node.desired.rules),
            node: node.map(|_| self.kept.node.as_ref()),
            unset: &self.options.unset,
            fault: self.account.fault.as_deref(),
            has_ipv6: ipv6(link) == Ipv6::On,
        };
        facts.line()
    }

    /// Nothing has served yet; how long it has tried, and what is known of why.
    fn starting(&self) -> String {
        let mut parts = vec!["no server serves yet".to_owned()];
        parts.extend(self.account.ended.iter().map(|how| format!("the last one ended ({how})")));
        parts.extend(self.account.refused.values().cloned());
        format!("{STARTING}{}", parts.join("; "))
    }
}

/// What there is to judge by.
struct Facts<'a> {
    /// There is a server, and it serves.
    serves: bool,
    ended: Option<&'a str>,
    serving: &'a Serving,
    /// The addresses of `-localip`.
    own: BTreeSet<SocketAddr>,
    /// The usual port, which is not told.
    port: u16,
    up: BTreeSet<SocketAddr>,
    failures: BTreeMap<SocketAddr, (Protocol, Failure)>,
    refused: &'a BTreeMap<SocketAddr, String>,
    /// The rules that are wanted.
    rules: Rules,
    /// The node, where it is tended; nothing before it was looked at.
    node: Option<Option<&'a Status>>,
    unset: &'a [Unset],
    fault: Option<&'a str>,
    has_ipv6: bool,
}

impl Facts<'_> {
    /// First what is wrong, then what works, then what is to be known besides.
    fn line(&self) -> String {
        let (wanted, left_out): (BTreeSet<_>, BTreeSet<_>) = self
            .addresses()
            .into_iter()
            .partition(|address| self.has_ipv6 || !address.is_ipv6() || self.is_up(address));
        let mut wrong = self.server();
        wrong.extend(self.silent(&wanted));
        wrong.extend(self.unruled());
        wrong.extend(self.unset.iter().map(Unset::brief));
        let ready = wrong.is_empty();
        let mut parts = wrong;
        parts.extend(self.works(ready));
        if !left_out.is_empty() {
            parts.push(format!("{} left out: this node has no IPv6", self.named(left_out)));
        }
        parts.extend(self.notes());
        format!("{}{}", if ready { READY } else { NOT_READY }, parts.join("; "))
    }

    /// Everything that is to be served.
    fn addresses(&self) -> BTreeSet<SocketAddr> {
        let served = self.serving.listens.iter().chain(&self.serving.missing);
        served.chain(&self.own).copied().collect()
    }

    fn is_up(&self, address: &SocketAddr) -> bool {
        self.up.contains(address)
    }

    fn server(&self) -> Vec<String> {
        match (self.serves, self.ended) {
            (true, _) => Vec::new(),
            (false, Some(how)) => vec![format!("the server ended ({how}) and is being started again")],
            (false, None) => vec!["the server is being started again".to_owned()],
        }
    }

    /// What keeps each of these addresses from answering.
    fn silent(&self, wanted: &BTreeSet<SocketAddr>) -> Vec<String> {
        let (mut refusals, mut reasons) = (Vec::new(), BTreeMap::<String, BTreeSet<SocketAddr>>::new());
        for address in wanted.difference(&self.up) {
            match self.refused.get(address) {
                Some(refusal) => refusals.push(refusal.clone()),
                None => drop(reasons.entry(self.reason(*address)).or_default().insert(*address)),
            }
        }
        refusals.truncate(NAMED);
        let reasons = reasons.into_iter().map(|(reason, addresses)| reason.replace(PLACE, &self.named(addresses)));
        refusals.into_iter().chain(reasons).collect()
    }

    /// Why the address does not answer, with a place for it and others of the same reason.
    fn reason(&self, address: SocketAddr) -> String {
        let failure = self.failures.get(&address);
        match failure {
            _ if self.serving.missing.contains(&address) => format!("no socket for {PLACE}"),
            _ if !serves(&self.serving.listens, address) => format!("no server block listens at {PLACE}"),
            Some((_, Failure::Absent)) => format!("no interface has {PLACE}"),
            Some((_, Failure::Foreign)) => format!("packets to {PLACE} are led to another server"),
            Some((Protocol::Udp, why)) => format!("no answer over UDP from {PLACE} ({why})"),
            Some((Protocol::Tcp, why)) => format!("no answer over TCP from {PLACE} ({why})"),
            None => format!("no answer yet from {PLACE}"),
        }
    }

    /// The addresses that answer and to which no rules bring clients, although rules are wanted.
    fn unruled(&self) -> Option<String> {
        let Some(status) = self.node? else { return Some("the node is being put in order".to_owned()) };
        if self.rules == Rules::None {
            return None;
        }
        let steered = |address: &&SocketAddr| status.intercepted.contains(&address.ip());
        let unruled: BTreeSet<SocketAddr> =
            self.own.iter().filter(|address| self.is_up(address) && !steered(address)).copied().collect();
        (!unruled.is_empty()).then(|| format!("no rules for {}", self.named(unruled)))
    }

    /// The addresses that answer; all of them where all is well, which needs no word.
    fn works(&self, ready: bool) -> Vec<String> {
        let named = self.named(self.up.clone());
        let addresses = match (ready, self.up.len()) {
            (true, _) => named,
            (false, 0) => "nothing answers here".to_owned(),
            (false, 1) => format!("{named} answers"),
            (false, _) => format!("{named} answer"),
        };
        let node = self.node.flatten().filter(|status| !status.intercepted.is_empty());
        let rules = match node.and_then(|status| status.rules) {
            Some(Rules::Nftables) => Some("rules nftables".to_owned()),
            Some(Rules::Iptables) => Some("rules iptables".to_owned()),
            _ => None,
        };
        std::iter::once(addresses).chain(rules).collect()
    }

    /// What does not count, or says more of what does.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(fault) = self.fault {
            notes.push(format!("configuration refused: {fault}; the one before serves on"));
        }
        let http = self.serving.missing_http.iter().take(NAMED);
        notes.extend(http.map(|address| match self.refused.get(address) {
            Some(refusal) => refusal.clone(),
            None => format!("no HTTP at {address}"),
        }));
        if let Some(status) = self.node.flatten() {
            let private = self.own.iter().any(|address| Base::is_private(address.ip()));
            if status.rules.is_some() && status.fallback.is_empty() && private {
                notes.push("no fallback is known for the time that this agent is away".to_owned());
            }
            notes.extend(status.lasting.iter().cloned());
        }
        notes
    }

    /// These addresses in a row, without the usual port.
    fn named(&self, addresses: BTreeSet<SocketAddr>) -> String {
        let word = |address: &SocketAddr| match address.port() == self.port {
            true => address.ip().to_string(),
            false => address.to_string(),
        };
        let named: Vec<String> = addresses.iter().take(NAMED).map(word).collect();
        match addresses.len().saturating_sub(NAMED) {
            0 => named.join(", "),
            more => format!("{} and {more} more", named.join(", ")),
        }
    }
}
