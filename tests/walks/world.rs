//! What there is: a cluster, what is outside, and how their servers behave.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::support::chance::Chance;
use crate::support::wire::*;
use crate::support::{Message, Query};

use super::side::Reply;

/// The cluster's zone, and the domain of its nodes.
pub const ZONE: &str = "k8s.test";
pub const DOMAIN: &str = "corp.test";

/// Namespaces that may be; one is called like a domain outside.
const NAMESPACES: [&str; 3] = ["one", "two", "com"];
const LABELS: [&str; 8] = ["a", "b", "one", "com", "org", "svc", "_tcp", "two"];

/// Names with what they have, final dots left out.
#[derive(Clone)]
pub struct World {
    names: BTreeMap<String, Has>,
    /// Questions for these, and for all beneath them, fail.
    failing: Vec<String>,
    /// What is said of one family of a name that has the other: that there is no such name (RFC 4074 section 4.2), or nothing.
    odd: BTreeMap<String, (u16, u16)>,
    namespaces: Vec<&'static str>,
    /// Every name of the nodes' domain exists.
    wildcard: bool,
    /// Names that only have names beneath them exist in the cluster's zone.
    pub proper: bool,
    /// Pods have the nodes' domain in their lists.
    pub domain: bool,
    /// A zone with a server block and a server of its own; no other server knows its names.
    pub block: Option<String>,
    /// Servers that fail: the cluster's, that of all the rest, that of the block.
    pub down: [bool; 3],
    /// Replies that have been looked at.
    seen: RefCell<BTreeMap<(String, u16), Reply>>,
}

#[derive(Clone, Debug)]
enum Has {
    /// Types, and how often their data have changed.
    Kinds(Vec<u16>, u8),
    Alias(String),
}

impl fmt::Debug for World {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.names.iter().try_for_each(|(name, has)| writeln!(to, "{name} {has:?} {:?}", self.odd.get(name)))?;
        let World { failing, wildcard, proper, domain, block, down, .. } = self;
        write!(
            to,
            "failing {failing:?} wildcard {wildcard} proper {proper} domain {domain} block {block:?} down {down:?}"
        )
    }
}

impl World {
    pub fn any(chance: &mut Chance) -> World {
        let mut namespaces: Vec<_> = NAMESPACES.into_iter().filter(|_| chance.percent(70)).collect();
        if namespaces.is_empty() {
            namespaces.push(NAMESPACES[0]);
        }
        let (wildcard, proper, domain) = (chance.percent(30), chance.percent(75), chance.percent(80));
        let mut world = World {
            names: BTreeMap::new(),
            failing: Vec::new(),
            odd: BTreeMap::new(),
            namespaces,
            wildcard,
            proper,
            domain,
            block: None,
            down: [false; 3],
            seen: RefCell::default(),
        };
        for namespace in world.namespaces.clone() {
            (0..chance.below(4)).for_each(|_| world.add_service(namespace, chance));
            // A namespace without a service is one all the same.
            if proper {
                world.names.insert(format!("{namespace}.svc.{ZONE}"), Has::Kinds(vec![TXT], 0));
            }
        }
        (0..chance.below(12)).for_each(|_| world.add_outside(chance));
        for _ in 0..chance.below(4) {
            let name = format!("{}.{DOMAIN}", dotted(1 + chance.below(2), chance));
            world.names.insert(name, Has::Kinds(kinds(chance), 0));
        }
        if chance.percent(25) {
            world.add_block(chance);
        }
        world
    }

    /// Some names, or all of a domain, fail: never one beneath a name that does not exist.
    pub fn failing(mut self, chance: &mut Chance) -> World {
        for _ in 0..chance.below(3) {
            let (label, namespace) = (chance.of(&LABELS), chance.of(&self.namespaces));
            let known = self.names.keys().nth(chance.below(self.names.len().max(1))).cloned();
            self.failing.push(match chance.below(5) {
                0 => format!("{label}.{namespace}.svc.{ZONE}"),
                1 => format!("{label}.svc.{ZONE}"),
                2 => DOMAIN.to_owned(),
                3 => label.to_owned(),
                _ => known.unwrap_or_else(|| ZONE.to_owned()),
            });
        }
        self
    }

    /// Some names fail for one family only, or are denied for AAAA although they have A (RFC 4074 section 4.2): outside, for
    /// no cluster's server does that. They have no names beneath: those would be cut rightly.
    pub fn odd(mut self, chance: &mut Chance) -> World {
        for (name, has) in &self.names {
            let Has::Kinds(kinds, _) = has else { continue };
            let one = match kinds[..] {
                [A] => AAAA,
                [AAAA] => A,
                _ => continue,
            };
            let beneath = format!(".{name}");
            if chance.percent(35) && !self.names.keys().any(|name| name.ends_with(&beneath)) {
                let denied = one == AAAA && !name.ends_with(ZONE) && chance.percent(70);
                self.odd.insert(name.clone(), (one, if denied { NXDOMAIN } else { SERVFAIL }));
            }
        }
        self
    }

    /// Something appears, vanishes, or has other addresses.
    pub fn change(&mut self, chance: &mut Chance) {
        self.seen.take();
        let known = self.names.keys().nth(chance.below(self.names.len().max(1))).cloned();
        match (chance.below(10), known) {
            (0..=2, Some(name)) => {
                if let Some(Has::Kinds(_, serial)) = self.names.get_mut(&name) {
                    *serial += 1;
                }
            }
            (3..=5, Some(name)) => _ = self.names.remove(&name),
            (6, Some(name)) => _ = self.names.insert(name, Has::Kinds(kinds(chance), 1)),
            (7, _) => self.add_outside(chance),
            _ => {
                let namespace = chance.of(&self.namespaces);
                self.add_service(namespace, chance);
            }
        }
    }

    /// This name appears, vanishes, or has other addresses.
    pub fn change_name(&mut self, name: &str, chance: &mut Chance) {
        self.seen.take();
        match self.names.remove(name) {
            Some(Has::Kinds(kinds, serial)) if chance.percent(60) => {
                self.names.insert(name.to_owned(), Has::Kinds(kinds, serial + 1));
            }
            Some(_) => {}
            None => _ = self.names.insert(name.to_owned(), Has::Kinds(kinds(chance), 0)),
        }
    }

    /// Servers that fail from now on.
    pub fn fail(&mut self, down: [bool; 3]) {
        self.seen.take();
        self.down = down;
    }

    /// What is not as it was.
    pub fn changes_since(&self, before: &World) -> String {
        let names: BTreeSet<&String> = self.names.keys().chain(before.names.keys()).collect();
        let changes = names.into_iter().filter_map(|name| {
            let [old, new] = [before, self].map(|world| format!("{:?}", world.names.get(name)));
            (old != new).then(|| format!("{name}: {old} -> {new}; "))
        });
        format!("{}down: {:?}", changes.collect::<String>(), self.down)
    }

    fn add_service(&mut self, namespace: &str, chance: &mut Chance) {
        let name = format!("{}.{namespace}.svc.{ZONE}", dotted(1 + chance.below(2), chance));
        self.names.insert(name, Has::Kinds(kinds(chance), 0));
    }

    fn add_outside(&mut self, chance: &mut Chance) {
        let has = if chance.percent(25) { Has::Alias(dotted(2, chance)) } else { Has::Kinds(kinds(chance), 0) };
        self.names.insert(dotted(1 + chance.below(3), chance), has);
    }

    /// Nothing is walked in that block. So it holds no first name whose labels end in a namespace: the second name of the
    /// same list would be walked as the first of another.
    fn add_block(&mut self, chance: &mut Chance) {
        let namespace = chance.of(&self.namespaces);
        let last = chance.of(&["a", "b", "org", "svc"]);
        let labels = if chance.percent(50) { format!("{}.{last}", dotted(1, chance)) } else { last.to_owned() };
        let zone = match chance.below(4) {
            0 => DOMAIN.to_owned(),
            1 => format!("{labels}.{ZONE}"),
            _ => format!("{labels}.{namespace}.svc.{ZONE}"),
        };
        for _ in 0..chance.below(3) {
            let name = format!("{}.{zone}", dotted(1, chance));
            self.names.insert(name, Has::Kinds(kinds(chance), 0));
        }
        self.block = Some(zone);
    }

    /// Where there are pods.
    pub fn namespaces(&self) -> &[&'static str] {
        &self.namespaces
    }

    /// A name that somebody may look for: one that there is, more often than not.
    pub fn any_wanted(&self, chance: &mut Chance) -> String {
        let known: Vec<&String> = self.names.keys().collect();
        match chance.below(10) {
            0..=3 if !known.is_empty() => {
                let name = known[chance.below(known.len())];
                // As much of it as a search list completes.
                let ends = [format!(".svc.{ZONE}"), format!(".{ZONE}"), format!(".{DOMAIN}"), String::new()];
                let end = &ends[chance.below(ends.len())];
                name.strip_suffix(end.as_str()).unwrap_or(name).to_owned()
            }
            _ => dotted(1 + chance.below(4), chance),
        }
    }

    /// Whether a name exists for every type.
    pub fn has(&self, name: &str) -> bool {
        self.names.contains_key(name) && !self.odd.contains_key(name)
    }

    /// Whether a name is denied for this type although it exists.
    pub fn denies_one(&self, name: &str, kind: u16) -> bool {
        let other = if kind == A { AAAA } else { A };
        self.reply(name, kind).rcode == NXDOMAIN && self.reply(name, other).rcode == NOERROR
    }

    /// What is said of a name.
    pub fn reply(&self, name: &str, kind: u16) -> Reply {
        let ask = || {
            let query = Message::parse(&Query::new(name, kind).bytes()).expect("a query");
            Reply::of(&self.answer(&query), kind)
        };
        self.seen.borrow_mut().entry((name.to_owned(), kind)).or_insert_with(ask).clone()
    }

    /// The answer to a query for an upstream.
    pub fn answer(&self, query: &Message) -> Vec<u8> {
        let question = &query.questions[0];
        let mut owner = question.name.trim_end_matches('.').to_ascii_lowercase();
        let server = match &self.block {
            Some(zone) if is_under(&owner, zone) => 2,
            _ => usize::from(!is_under(&owner, ZONE)),
        };
        if self.down[server] || self.failing.iter().any(|zone| is_under(&owner, zone)) {
            return reply(query, SERVFAIL, &[], false);
        }
        let is_known = |name: &str| server == 2 || self.block.as_ref().is_none_or(|zone| !is_under(name, zone));
        let mut answers = Vec::new();
        for _ in 0..8 {
            match self.odd.get(&owner) {
                Some((kind, rcode)) if *kind == question.kind && self.names.contains_key(&owner) => {
                    return reply(query, *rcode, &answers, *rcode == NXDOMAIN);
                }
                _ => {}
            }
            match self.names.get(&owner).filter(|_| is_known(&owner)) {
                Some(Has::Alias(target)) => {
                    answers.push(record(&name(&owner), CNAME, IN, 60, &name(target)));
                    owner.clone_from(target);
                }
                Some(Has::Kinds(kinds, serial)) if kinds.contains(&question.kind) => {
                    let data = data(&owner, question.kind, *serial);
                    answers.push(record(&name(&owner), question.kind, IN, 60, &data));
                    return reply(query, NOERROR, &answers, false);
                }
                Some(Has::Kinds(..)) => return reply(query, NOERROR, &answers, true),
                None if self.wildcard && is_known(&owner) && owner.ends_with(&format!(".{DOMAIN}")) => {
                    let data = data(&owner, question.kind, 0);
                    answers.push(record(&name(&owner), question.kind, IN, 60, &data));
                    return reply(query, NOERROR, &answers, false);
                }
                None => {
                    let (beneath, outside) = (format!(".{owner}"), !owner.ends_with(ZONE));
                    let mut known = self.names.keys().filter(|name| is_known(name));
                    let exists = (self.proper || outside) && known.any(|name| name.ends_with(&beneath));
                    return reply(query, if exists { NOERROR } else { NXDOMAIN }, &answers, true);
                }
            }
        }
        reply(query, SERVFAIL, &[], false)
    }
}

fn is_under(name: &str, zone: &str) -> bool {
    name.strip_suffix(zone).is_some_and(|labels| labels.is_empty() || labels.ends_with('.'))
}

fn reply(query: &Message, rcode: u16, answers: &[Vec<u8>], negative: bool) -> Vec<u8> {
    let question = &query.questions[0];
    let mut bytes = Query::new(&question.name, question.kind).with_id(query.id).flag(QR | RA, true).bytes();
    bytes[3] |= rcode as u8;
    bytes[7] = answers.len() as u8;
    answers.iter().for_each(|record| bytes.extend(record));
    if negative {
        bytes[9] = 1;
        let zone = if question.name.trim_end_matches('.').ends_with(ZONE) { ZONE } else { "." };
        bytes.extend(record(&name(zone), SOA, IN, 5, &soa(5)));
    }
    bytes
}

/// RDATA that tells one name from another, and from what it had before.
fn data(owner: &str, kind: u16, serial: u8) -> Vec<u8> {
    let hash = owner.bytes().fold(7_u8, |hash, octet| hash.wrapping_mul(31).wrapping_add(octet));
    match kind {
        A => vec![192, 0, serial, hash],
        AAAA => [&[0x20, 1, 0x0d, 0xb8], &[0; 10][..], &[serial, hash]].concat(),
        _ => vec![1, hash],
    }
}

fn kinds(chance: &mut Chance) -> Vec<u16> {
    chance.of(&[&[A][..], &[A], &[AAAA], &[A, AAAA], &[TXT]]).to_vec()
}

fn dotted(labels: usize, chance: &mut Chance) -> String {
    (0..labels).map(|_| chance.of(&LABELS)).collect::<Vec<_>>().join(".")
}
