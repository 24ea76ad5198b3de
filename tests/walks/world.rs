//! What there is: a cluster, what is outside, and how their servers behave.

use std::collections::BTreeMap;

use crate::support::chance::Chance;
use crate::support::wire::*;
use crate::support::{Message, Query};

/// The cluster's zone, and the domain of its nodes.
pub const ZONE: &str = "k8s.test";
pub const DOMAIN: &str = "corp.test";

/// Namespaces that may be; one is called like a domain outside.
const NAMESPACES: [&str; 3] = ["one", "two", "com"];
const LABELS: [&str; 8] = ["a", "b", "one", "com", "org", "svc", "_tcp", "two"];

/// Names with what they have, final dots left out.
#[derive(Debug)]
pub struct World {
    names: BTreeMap<String, Has>,
    /// Questions for these, and for all beneath them, fail.
    failing: Vec<String>,
    namespaces: Vec<&'static str>,
    /// Every name of the nodes' domain exists.
    wildcard: bool,
    /// Names that only have names beneath them exist in the cluster's zone.
    pub proper: bool,
}

#[derive(Clone, Debug)]
enum Has {
    Kinds(Vec<u16>),
    Alias(String),
}

impl World {
    pub fn any(chance: &mut Chance) -> World {
        let mut namespaces: Vec<_> = NAMESPACES.into_iter().filter(|_| chance.percent(70)).collect();
        if namespaces.is_empty() {
            namespaces.push(NAMESPACES[0]);
        }
        let mut names = BTreeMap::new();
        for namespace in &namespaces {
            for _ in 0..chance.below(4) {
                let (labels, kinds) = (1 + chance.below(2), kinds(chance));
                names.insert(format!("{}.{namespace}.svc.{ZONE}", dotted(labels, chance)), Has::Kinds(kinds));
            }
            // A namespace without a service is one all the same.
            names.insert(format!("{namespace}.svc.{ZONE}"), Has::Kinds(vec![TXT]));
        }
        for _ in 0..chance.below(12) {
            let has = match chance.percent(25) {
                true => Has::Alias(dotted(2, chance)),
                false => Has::Kinds(kinds(chance)),
            };
            names.insert(dotted(1 + chance.below(3), chance), has);
        }
        for _ in 0..chance.below(4) {
            names.insert(format!("{}.{DOMAIN}", dotted(1 + chance.below(2), chance)), Has::Kinds(kinds(chance)));
        }
        let failing = (0..chance.below(3)).map(|_| failing(&names, &namespaces, chance)).collect();
        let (wildcard, proper) = (chance.percent(30), chance.percent(75));
        if !proper {
            namespaces.iter().for_each(|namespace| _ = names.remove(&format!("{namespace}.svc.{ZONE}")));
        }
        World { names, failing, namespaces, wildcard, proper }
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

    pub fn has(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// The answer to a query for an upstream.
    pub fn answer(&self, query: &Message) -> Vec<u8> {
        let question = &query.questions[0];
        let mut owner = question.name.trim_end_matches('.').to_ascii_lowercase();
        let under = |zone: &String| owner == *zone || owner.ends_with(&format!(".{zone}"));
        if self.failing.iter().any(under) {
            return reply(query, SERVFAIL, &[], false);
        }
        let mut answers = Vec::new();
        for _ in 0..8 {
            match self.names.get(&owner) {
                Some(Has::Alias(target)) => {
                    answers.push(record(&name(&owner), CNAME, IN, 60, &name(target)));
                    owner.clone_from(target);
                }
                Some(Has::Kinds(kinds)) if kinds.contains(&question.kind) => {
                    answers.push(record(&name(&owner), question.kind, IN, 60, &data(&owner, question.kind)));
                    return reply(query, NOERROR, &answers, false);
                }
                Some(Has::Kinds(_)) => return reply(query, NOERROR, &answers, true),
                None if self.wildcard && owner.ends_with(&format!(".{DOMAIN}")) => {
                    let data = data(&owner, question.kind);
                    answers.push(record(&name(&owner), question.kind, IN, 60, &data));
                    return reply(query, NOERROR, &answers, false);
                }
                None => {
                    let beneath = format!(".{owner}");
                    let outside = !owner.ends_with(ZONE);
                    let exists = (self.proper || outside) && self.names.keys().any(|name| name.ends_with(&beneath));
                    return reply(query, if exists { NOERROR } else { NXDOMAIN }, &answers, true);
                }
            }
        }
        reply(query, SERVFAIL, &[], false)
    }
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

/// RDATA that tells one name from another.
fn data(owner: &str, kind: u16) -> Vec<u8> {
    let hash = owner.bytes().fold(7_u8, |hash, octet| hash.wrapping_mul(31).wrapping_add(octet));
    match kind {
        A => vec![192, 0, 2, hash],
        AAAA => [&[0x20, 1, 0x0d, 0xb8], &[0; 11][..], &[hash]].concat(),
        _ => vec![1, hash],
    }
}

fn kinds(chance: &mut Chance) -> Vec<u16> {
    chance.of(&[&[A][..], &[A], &[AAAA], &[A, AAAA], &[TXT]]).to_vec()
}

fn dotted(labels: usize, chance: &mut Chance) -> String {
    (0..labels).map(|_| chance.of(&LABELS)).collect::<Vec<_>>().join(".")
}

/// A name that is there, or a domain with all that is in it: nothing beneath a missing name fails.
fn failing(names: &BTreeMap<String, Has>, namespaces: &[&str], chance: &mut Chance) -> String {
    let label = chance.of(&LABELS);
    let namespace = chance.of(namespaces);
    match chance.below(5) {
        0 => format!("{label}.{namespace}.svc.{ZONE}"),
        1 => format!("{label}.svc.{ZONE}"),
        2 => DOMAIN.to_owned(),
        3 => label.to_owned(),
        _ => names.keys().nth(chance.below(names.len().max(1))).cloned().unwrap_or_else(|| ZONE.to_owned()),
    }
}
