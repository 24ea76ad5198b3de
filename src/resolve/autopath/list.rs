//! From the name that was asked for to the candidates of its search list.

use arc_swap::ArcSwap;

use crate::dns::name::{self, MAX_NAME};
use crate::dns::{Name, Query, Type};
use crate::plugins::policy::autopath::{Autopath, List};

use super::search::Search;

/// The first name of a search list: the name looked for, and the list's first suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::resolve) struct First {
    /// So many octets at the start are the name looked for, without its end.
    pub(super) base: usize,
    /// It has so many labels.
    pub(super) labels: usize,
    /// Where `svc` and the cluster's zone begin; nothing where the list is one of a file.
    cluster: Option<(usize, usize)>,
}

/// One name of a search list.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::resolve) struct Candidate {
    /// Lower-case wire form; empty where it would be too long for a name.
    pub(in crate::resolve) name: Box<[u8]>,
    /// Whose names these are.
    pub(super) kind: Kind,
    /// The name that is one label below the suffix, where that is another one.
    pub(super) top: Option<Box<[u8]>>,
    /// A cluster could have such a name.
    pub(super) possible: bool,
}

/// Whose names a suffix has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::resolve) enum Kind {
    /// `<namespace>.svc.<zone>`
    Namespace,
    /// `svc.<zone>`
    Services,
    /// `<zone>`
    Cluster,
    /// Anything else.
    Other,
}

/// No longer name is taken for the first of a list: with the longest name of a namespace in it, the one before could have
/// been too long to be asked for, and this one be the second of a list.
pub const LONGEST: usize = MAX_NAME - 64;

const SVC: &[u8] = b"\x03svc";
const POD: &[u8] = b"\x03pod";

impl First {
    /// Whether a query asks for the first name of a list. `zone` is the server block's that the name is in.
    pub(in crate::resolve) fn of(
        autopath: &Autopath,
        zone: &Name,
        search: &ArcSwap<Search>,
        query: &Query<'_>,
    ) -> Option<First> {
        if !is_walked(query) {
            return None;
        }
        let name = query.name();
        let zone = match &autopath.zones {
            None => zone,
            Some(zones) => zones
                .iter()
                .filter(|zone| name::is_under(name, zone.as_wire()))
                .max_by_key(|zone| zone.as_wire().len())?,
        };
        match autopath.list {
            List::Query(_) => First::in_cluster(name, query.label_offsets(), zone),
            List::File(_) => First::under(name, search.load().domains.first()?),
        }
    }

    /// `X.<namespace>.svc.<zone>`
    fn in_cluster(name: &[u8], offsets: &[u8], zone: &Name) -> Option<First> {
        if name.len() > LONGEST {
            return None;
        }
        let svc = offsets.len().checked_sub(zone.label_count() + 1)?;
        let namespace = svc.checked_sub(1).filter(|&labels| labels > 0)?;
        let at = |label: usize| usize::from(offsets[label]);
        let zone_at = name.len() - zone.as_wire().len();
        (name[at(svc)..zone_at] == *SVC).then(|| First {
            base: at(namespace),
            labels: namespace,
            cluster: Some((at(svc), zone_at)),
        })
    }

    fn under(name: &[u8], suffix: &Name) -> Option<First> {
        let base = name.len() - suffix.as_wire().len().min(name.len());
        (base > 0 && name::is_under(name, suffix.as_wire())).then(|| First {
            base,
            labels: name::labels(name).count() - suffix.label_count(),
            cluster: None,
        })
    }

    /// Whether one label is looked for in a cluster: most often a Service that is there, and the later names of its list
    /// begin no other.
    pub(super) fn is_short(&self) -> bool {
        self.labels == 1 && self.cluster.is_some()
    }

    /// The name of the namespace, where the list is that of one.
    pub(super) fn namespace<'a>(&self, name: &'a [u8]) -> Option<&'a [u8]> {
        self.cluster.map(|_| &name[self.base..])
    }

    /// The suffixes of the list, first to last; the last is the root.
    pub(super) fn suffixes<'a>(
        &self,
        name: &'a [u8],
        domains: &'a [Name],
    ) -> impl Iterator<Item = (&'a [u8], Kind)> + use<'a> {
        let cluster = self.cluster.map(|(svc, zone)| {
            [(&name[self.base..], Kind::Namespace), (&name[svc..], Kind::Services), (&name[zone..], Kind::Cluster)]
        });
        let domains = domains.iter().map(|domain| (domain.as_wire(), Kind::Other));
        cluster.into_iter().flatten().chain(domains).chain([(&[0][..], Kind::Other)])
    }

    /// Whether the candidate with this suffix could look like the first name of a list, as far as its octets tell.
    pub(super) fn may_begin(&self, name: &[u8], suffix: &[u8], kind: Kind) -> bool {
        match kind {
            // The last label would be the namespace.
            Kind::Namespace | Kind::Services => self.labels > 1,
            Kind::Cluster => self.labels > 2 && name[..self.base].ends_with(SVC),
            Kind::Other => self.cluster.is_none() || has_svc(&name[..self.base]) || has_svc(suffix),
        }
    }

    /// The candidates in order, each once.
    pub(super) fn candidates(&self, name: &[u8], domains: &[Name]) -> Vec<Candidate> {
        let mut candidates: Vec<Candidate> = Vec::new();
        let base = &name[..self.base];
        let last = name::labels(name).nth(self.labels - 1).unwrap_or_default();
        let last = &base[base.len() - last.len() - 1..];
        for (suffix, kind) in self.suffixes(name, domains) {
            let candidate = joined(base, suffix);
            if candidates.iter().any(|earlier| !candidate.is_empty() && earlier.name == candidate) {
                continue;
            }
            // Names of ports group records: a server may deny `_tcp.web` where `_http._tcp.web` exists.
            let has_top = kind != Kind::Other && self.labels > 1 && last.get(1) != Some(&b'_');
            let top = has_top.then(|| joined(last, suffix));
            let possible = self.is_possible(kind, base, last);
            candidates.push(Candidate { name: candidate, kind, top, possible });
        }
        candidates
    }

    /// Whether a cluster could have such a name, by the specification of DNS in Kubernetes: services, their pods, their
    /// ports; below the zone itself only `svc` and `pod`.
    fn is_possible(&self, kind: Kind, base: &[u8], last: &[u8]) -> bool {
        let ports = base.get(1) == Some(&b'_');
        let service = |labels: usize| labels <= 2 || ports && labels <= 4;
        match kind {
            Kind::Namespace => service(self.labels),
            Kind::Services => service(self.labels.saturating_sub(1)),
            Kind::Cluster => last == SVC || last == POD,
            Kind::Other => true,
        }
    }
}

/// Whether the label `svc` could be among these octets.
pub(super) fn has_svc(octets: &[u8]) -> bool {
    octets.windows(SVC.len()).any(|window| window == SVC)
}

/// A name of two parts in wire form; empty where it would be too long.
pub(super) fn joined(base: &[u8], suffix: &[u8]) -> Box<[u8]> {
    if base.len() + suffix.len() > MAX_NAME { Box::default() } else { [base, suffix].concat().into() }
}

/// Whether a search list is walked for such a query. Who validates for himself could make nothing of an alias that is not
/// signed; a question for aliases would be answered with ours.
fn is_walked(query: &Query<'_>) -> bool {
    let plain = query.qclass == crate::dns::Class::IN && query.recursion_desired();
    plain && !query.dnssec_ok() && !query.checking_disabled() && !is_about_the_name(query.qtype)
}

fn is_about_the_name(qtype: Type) -> bool {
    matches!(qtype, Type::ANY | Type::CNAME | Type::DNAME | Type::DS | Type::NS | Type::SOA)
        || crate::dns::reply::is_dnssec(qtype)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::convert::Outgoing;
    use crate::dns::{Class, Expanded};

    fn candidates(name: &str, zone: &str, domains: &[&str]) -> Option<Vec<String>> {
        let wire = Name::parse(name).unwrap();
        let message = Outgoing::plain(wire.as_wire(), Type::A, Class::IN).to_wire(0);
        let query = Query::parse(&message).unwrap();
        let autopath = Autopath { zones: None, list: List::Query(None), except: Vec::new(), max_depth: 10 };
        let search = Search::new(domains.iter().map(|name| Name::parse(name).unwrap()).collect());
        let search = ArcSwap::from_pointee(search);
        let first = First::of(&autopath, &Name::parse(zone).unwrap(), &search, &query)?;
        let search = search.load();
        let shown = |name: &[u8]| Name::from_wire(name).map_or("-".to_owned(), |name| name.to_string());
        let candidates = first.candidates(query.name(), &search.domains);
        Some(
            candidates
                .iter()
                .map(|candidate| {
                    let top = candidate.top.as_ref().map(|top| format!(" {}", shown(top))).unwrap_or_default();
                    let mark = if candidate.possible { "" } else { "!" };
                    format!("{mark}{}{top}", shown(&candidate.name))
                })
                .collect(),
        )
    }

    #[test]
    fn a_question_names_its_search_list() {
        let list = candidates("www.example.com.shop.svc.k8s.test", "k8s.test", &["corp.test", "k8s.test"]).unwrap();
        assert_eq!(
            list,
            [
                "!www.example.com.shop.svc.k8s.test. com.shop.svc.k8s.test.",
                "www.example.com.svc.k8s.test. com.svc.k8s.test.",
                "!www.example.com.k8s.test. com.k8s.test.",
                "www.example.com.corp.test.",
                "www.example.com.",
            ],
            "each once"
        );
        let list = candidates("db.shop.svc.k8s.test", "k8s.test", &[]).unwrap();
        assert_eq!(list, ["db.shop.svc.k8s.test.", "db.svc.k8s.test.", "!db.k8s.test.", "db."]);
        let ports = candidates("_dns._udp.db.shop.svc.k8s.test", "k8s.test", &[]).unwrap();
        assert!(ports[..2].iter().all(|name| !name.starts_with('!')), "{ports:?}");
        let whole = candidates("a.b.svc.shop.svc.k8s.test", "k8s.test", &[]).unwrap();
        assert!(whole[2].starts_with("a.b.svc.k8s.test. svc.k8s.test."), "{whole:?}");
    }

    #[test]
    fn other_names_have_none() {
        for name in ["shop.svc.k8s.test", "svc.k8s.test", "k8s.test", "a.b.pod.k8s.test", "a.svc.b.k8s.test"] {
            assert_eq!(candidates(name, "k8s.test", &[]), None, "{name}");
        }
    }

    #[test]
    fn what_is_too_long_has_no_name() {
        let base = ["a".repeat(60), "b".repeat(60)].join(".");
        let long = format!("{}.corp.test", ["d".repeat(60), "e".repeat(60), "f".repeat(10)].join("."));
        let list = candidates(&format!("{base}.shop.svc.k8s.test"), "k8s.test", &[&long]).unwrap();
        assert_eq!(list[3], "-");
        assert_eq!(list.len(), 5);
    }

    #[test]
    fn what_may_follow_a_name_that_is_too_long_is_not_the_first() {
        let base = ["a".repeat(60), "b".repeat(60), "c".repeat(60)].join(".");
        assert_eq!(candidates(&format!("{base}.shop.svc.k8s.test"), "k8s.test", &[]), None);
    }

    #[test]
    fn names_are_cut_where_labels_begin() {
        // A label that holds the octets of another.
        let message = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x05a\x03svc\x04shop\x03svc\x03k8s\x04test\0\0\x01\0\x01";
        let query = Query::parse(message).unwrap();
        let zone = Name::parse("k8s.test").unwrap();
        let first = First::in_cluster(query.name(), query.label_offsets(), &zone).unwrap();
        assert_eq!((first.base, first.labels), (6, 1));
        assert!(Expanded::read(first.namespace(query.name()).unwrap(), 0).is_some());
    }
}
