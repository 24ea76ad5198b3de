//! `explain`: what a pod's lookup does, step by step, without `autopath` and with it. The upstreams are really asked, by a
//! resolver of this process; a running agent is neither needed nor disturbed.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Parser};
use tokio::task::LocalSet;

use super::{Unheard, flags, options};
use crate::dns::name::MAX_NAME;
use crate::dns::{Name, NameError, Type};
use crate::life::aside::{self, Aside, Subject};
use crate::life::load::{Refused, load};
use crate::life::options::Options;
use crate::life::sources::Sources;
use crate::plugins::policy::autopath::List;
use crate::routes::Routes;

mod report;
mod stub;
mod walk;

use report::Report;
use stub::{End, Lookup};

/// Exit code of what cannot be explained as it was asked.
pub(super) const USAGE: u8 = 2;

/// The zone of most clusters.
const ZONE: &str = "cluster.local";

/// So many dots in a name, and it is asked for as it is before the list is gone through: what kubelet writes for pods.
const NDOTS: usize = 5;

/// What may be said to `explain` beside the flags of all commands.
#[derive(Debug, Parser)]
#[command(
    name = "dnslet",
    about = "Shows step by step what a pod's lookup of a name does, and asks the upstreams for it."
)]
#[command(disable_help_flag = true, disable_version_flag = true, args_override_self = true)]
#[command(override_usage = "dnslet explain NAME -ns NAMESPACE [flags]")]
pub(super) struct Explain {
    /// The pod's namespace
    #[arg(long = "ns", value_name = "NAMESPACE", help_heading = "Explain")]
    namespace: Option<String>,
    /// The type that is asked for [default: A and AAAA, as programs do]
    #[arg(long = "type", value_name = "TYPE", help_heading = "Explain")]
    qtype: Option<String>,
    /// Domains in the pod's search list behind those of the cluster [default: those of autopath, or of /etc/resolv.conf]
    #[arg(long, value_name = "SUFFIX,...", help_heading = "Explain")]
    search: Option<String>,
    /// The cluster's zone [default: that of the server block with autopath @query, or cluster.local]
    #[arg(long, value_name = "ZONE", help_heading = "Explain")]
    zone: Option<String>,
    /// Queries ask for DNSSEC's records, as those of clients that validate do
    #[arg(long = "do", value_name = "BOOL", default_value = "false", value_parser = flags::bool_parser(), action = ArgAction::Set, help_heading = "Explain")]
    dnssec: bool,
    #[command(flatten)]
    pub(super) common: flags::Flags,
}

/// What is to be explained.
#[derive(Debug)]
pub(super) struct Question {
    options: Options,
    name: Name,
    /// It ends with a dot: no search list.
    absolute: bool,
    namespace: Name,
    types: Vec<Type>,
    /// Queries have DO set.
    dnssec: bool,
    search: Option<Vec<Name>>,
    zone: Option<Name>,
}

impl Question {
    /// The error is a sentence for the operator.
    pub(super) fn new(flags: &Explain, words: &[String]) -> Result<Question, String> {
        let [word] = words else {
            return Err("say one name: dnslet explain NAME -ns NAMESPACE".to_owned());
        };
        let Some(namespace) = &flags.namespace else {
            return Err("say the pod's namespace: -ns NAMESPACE".to_owned());
        };
        let qtypes = match &flags.qtype {
            None => vec![Type::A, Type::AAAA],
            Some(text) => {
                vec![Type::from_name(text).ok_or_else(|| format!("-type: {text:?} is no type such as A or SRV"))?]
            }
        };
        let name = name("the name", word)?;
        if name == Name::root() {
            return Err("the root is asked for without any search list: say another name".to_owned());
        }
        let suffixes = |list: &String| list.split(',').map(|word| self::name("-search", word.trim())).collect();
        Ok(Question {
            options: options::options(&flags.common, &options::Machine::here())?,
            name,
            absolute: word.ends_with('.') && !word.ends_with("\\."),
            namespace: label(namespace)?,
            types: qtypes,
            dnssec: flags.dnssec,
            search: flags.search.as_ref().map(suffixes).transpose()?,
            zone: flags.zone.as_ref().map(|zone| self::name("-zone", zone)).transpose()?,
        })
    }
}

/// Prints the explanation. Success where the name resolves.
pub(super) fn explain(question: &Question) -> ExitCode {
    let mut sources = Sources::new(&question.options);
    let routes = match load(&mut sources, &question.options, |_| ()) {
        Ok(loaded) => loaded.routes,
        Err(Refused::Corefile(faults)) => {
            super::complain(&format!("the Corefile cannot be used\n{}", faults.rendered));
            return ExitCode::from(USAGE);
        }
        Err(Refused::Source(error)) => {
            super::complain(&error.to_string());
            return ExitCode::from(USAGE);
        }
    };
    let runtime = match super::runtime() {
        Ok(runtime) => runtime,
        Err(code) => return code,
    };
    match LocalSet::new().block_on(&runtime, run(question, &routes)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(Stop::Unheard(unheard)) => unheard.into(),
        Err(Stop::Unknown(why)) => {
            super::complain(&why);
            ExitCode::from(USAGE)
        }
    }
}

/// Why an explanation ends before its end.
enum Stop {
    /// With a sentence for the operator.
    Unknown(String),
    Unheard(Unheard),
}

impl From<String> for Stop {
    fn from(why: String) -> Stop {
        Stop::Unknown(why)
    }
}

impl From<Unheard> for Stop {
    fn from(unheard: Unheard) -> Stop {
        Stop::Unheard(unheard)
    }
}

/// Whether the name resolves.
async fn run(question: &Question, routes: &Routes) -> Result<bool, Stop> {
    let aside = Aside::read(routes).await?;
    let plain = aside.subject(&without_autopath(routes), &question.options)?;
    let walking = aside.subject(routes, &question.options)?;
    let place = Place::of(question, routes, &walking);
    for (path, fault) in &aside.unusable {
        if place.file.as_ref() == Some(path) {
            return Err(Stop::Unknown(fault.clone()));
        }
        super::complain(&format!("warning: {fault}; its block is explained as if it had no autopath"));
    }
    let lookup = |name: &Name| Lookup {
        types: question.types.clone(),
        list: place.names(name, question.absolute),
        listen: place.listen,
        dnssec: question.dnssec,
    };
    let asked = lookup(&question.name);
    let report = Report { question, routes, place: &place, lookup: &asked };
    super::tell(&report.head())?;
    let without = asked.run(&plain).await;
    super::tell(&report.plain(&without))?;
    let Some(route) = place.route else {
        super::tell(&report.off())?;
        return Ok(without.end == End::Found);
    };
    let with = asked.run(&walking).await;
    super::tell(&report.walked(route, &with))?;
    let behind = settled(&walking).await - with.upstream();
    let learnt = match place.top(question) {
        Some(top) => {
            let knowing = aside.subject(routes, &question.options)?;
            lookup(&top).run(&knowing).await;
            settled(&knowing).await;
            Some((top, asked.run(&knowing).await))
        }
        None => None,
    };
    super::tell(&report.sum(&without, &with, behind, learnt))?;
    Ok(with.end == End::Found)
}

/// Where the pod's queries go.
struct Place {
    /// The cluster's zone.
    zone: Name,
    /// The pod's search list.
    search: Vec<Name>,
    /// The listener that is asked.
    listen: u16,
    /// The route whose `autopath` concerns such a pod.
    route: Option<usize>,
    /// The file that this line takes the whole list from, where it is not the question that says it.
    file: Option<PathBuf>,
}

impl Place {
    /// The first block with `autopath @query` for the zone, or else, where no zone is named, with a list from a file.
    fn of(question: &Question, routes: &Routes, walking: &Subject) -> Place {
        let list = |route: usize| routes.routes[route].autopath.as_ref().map(|autopath| &autopath.list);
        let first = |fits: &dyn Fn(&Name, usize) -> bool| {
            routes.listens.iter().enumerate().find_map(|(listen, known)| {
                let (zone, route) = known.zones.entries().find(|(zone, route)| fits(zone, *route))?;
                Some((listen, zone.clone(), route))
            })
        };
        let of_zone = |zone: &Name| question.zone.as_ref().is_none_or(|wanted| wanted == zone);
        let found = first(&|zone, route| matches!(list(route), Some(List::Query(_))) && of_zone(zone));
        let of_file = |_: &Name, route| matches!(list(route), Some(List::File(_))) && question.zone.is_none();
        let found = found.or_else(|| first(&of_file));
        let route = found.as_ref().map(|(.., route)| *route);
        let autopath = route.and_then(|route| routes.routes[route].autopath.as_ref());
        let file = autopath.and_then(|autopath| match &autopath.list {
            List::File(path) => Some(path.clone()),
            List::Query(_) => None,
        });
        // A line of its own zones may stand in a larger block.
        let zones = autopath.filter(|_| file.is_none()).and_then(|autopath| autopath.zones.as_ref());
        let zone = match (zones.and_then(|zones| zones.first()), &found) {
            (Some(zone), _) => zone.clone(),
            (None, Some((_, zone, _))) if file.is_none() => zone.clone(),
            _ => question.zone.clone().unwrap_or_else(|| Name::parse(ZONE).expect("a name")),
        };
        let listen = found.map_or_else(|| best_listen(routes, &zone), |(listen, ..)| listen);
        let domains = match (&question.search, route) {
            (Some(search), _) => search.as_slice().into(),
            (None, Some(route)) => walking.resolver.search_domains(route).unwrap_or_default(),
            (None, None) => aside::search_of_node(&zone).into(),
        };
        let of_cluster = if file.is_none() { cluster_suffixes(&question.namespace, &zone) } else { Vec::new() };
        let search = of_cluster.into_iter().chain(domains.iter().cloned()).collect();
        Place { zone, search, listen: listen as u16, route, file }
    }

    /// The names that the stub resolver asks for, in order, as far as none has an answer.
    fn names(&self, name: &Name, absolute: bool) -> Vec<Option<Name>> {
        let as_it_is = Some(name.clone());
        if absolute {
            return vec![as_it_is];
        }
        let list = self.search.iter().map(|suffix| joined(name, suffix));
        match name.label_count() > NDOTS {
            true => std::iter::once(as_it_is).chain(list).collect(),
            false => list.chain([as_it_is]).collect(),
        }
    }

    /// The last label of the name, where other names that end so teach something about this one.
    fn top(&self, question: &Question) -> Option<Name> {
        let labels = question.name.label_count();
        let walked = self.file.is_none() && !question.absolute && (2..=NDOTS).contains(&labels);
        let wire = question.name.as_wire();
        let last = crate::dns::name::labels(wire).last().filter(|_| walked)?;
        Name::from_wire(&wire[wire.len() - last.len() - 2..])
    }
}

/// What is first in the search list of a namespace's pods.
fn cluster_suffixes(namespace: &Name, zone: &Name) -> Vec<Name> {
    let svc = Name::parse("svc").ok().and_then(|svc| joined(&svc, zone));
    let own = svc.as_ref().and_then(|svc| joined(namespace, svc));
    own.into_iter().chain(svc).chain([zone.clone()]).collect()
}

/// The listener that has the most to say about the cluster's zone; the first of equals.
fn best_listen(routes: &Routes, zone: &Name) -> usize {
    let depth = |listen: &crate::routes::Listen| {
        let zones = listen.zones.entries().map(|(known, _)| known).filter(|known| zone.is_under(known));
        zones.map(|known| known.label_count() + 1).max().unwrap_or(0)
    };
    let best = routes.listens.iter().map(depth).max().unwrap_or(0);
    routes.listens.iter().position(|listen| depth(listen) == best).unwrap_or(0)
}

fn without_autopath(routes: &Routes) -> Routes {
    let mut routes = routes.clone();
    routes.routes.iter_mut().for_each(|route| route.autopath = None);
    routes
}

/// All questions to upstreams, once the last of them, for which nobody may wait, has come to an end.
async fn settled(subject: &Subject) -> f64 {
    while subject.flights.aloft() > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    stub::upstream_queries(subject)
}

/// One name in front of another; `None` where that is too long.
fn joined(base: &Name, suffix: &Name) -> Option<Name> {
    let base = base.as_wire();
    Name::from_wire(&[&base[..base.len() - 1], suffix.as_wire()].concat())
}

fn name(what: &str, text: &str) -> Result<Name, String> {
    Name::parse(text).map_err(|error| match error {
        NameError::NameTooLong => format!("{what} is no name: it has more than {MAX_NAME} octets"),
        error => format!("{what}: {text:?} is no name: {error}"),
    })
}

/// A namespace is one label (RFC 1123).
fn label(text: &str) -> Result<Name, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
    match Name::parse(text) {
        Ok(name) if name.label_count() == 1 && text.chars().all(fits) => Ok(name),
        _ => Err(format!("-ns: {text:?} is no namespace: one label of letters, digits and '-'")),
    }
}

#[cfg(test)]
mod tests;
