//! `explain`: what a pod's lookup does, step by step, without `autopath` and with it. The upstreams are really asked, by a
//! resolver of this process; a running agent is neither needed nor disturbed.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
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
use stub::{End, Lookup, Sent};

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
    let lookup = Lookup { types: question.types.clone(), list: names(question, &place), listen: place.listen };
    let report = Report { question, routes, place: &place, lookup: &lookup };
    super::tell(&report.head())?;
    let without = lookup.run(&plain).await;
    super::tell(&report.plain(&without.0, without.1))?;
    let Some(route) = place.route else {
        super::tell(&report.off())?;
        return Ok(without.1 == End::Found);
    };
    let with = lookup.run(&walking).await;
    let behind = behind(&walking, &with.0).await;
    super::tell(&report.walked(route, &with.0, with.1))?;
    super::tell(&report.sum((&without.0, without.1), (&with.0, with.1), behind))?;
    Ok(with.1 == End::Found)
}

/// Where the pod's queries go.
struct Place {
    /// The cluster's zone.
    zone: Name,
    /// The domains behind it.
    domains: Arc<[Name]>,
    /// The listener that is asked.
    listen: u16,
    /// The route whose `autopath` concerns such a pod.
    route: Option<usize>,
}

impl Place {
    fn of(question: &Question, routes: &Routes, walking: &Subject) -> Place {
        let walks = |route: &usize| match &routes.routes[*route].autopath {
            Some(autopath) => matches!(autopath.list, List::Query(_)),
            None => false,
        };
        let found = routes.listens.iter().enumerate().find_map(|(listen, known)| {
            let of_zone = |zone: &Name| question.zone.as_ref().is_none_or(|wanted| wanted == zone);
            let (zone, route) = known.zones.entries().find(|(zone, route)| walks(route) && of_zone(zone))?;
            let zones = routes.routes[route].autopath.as_ref().and_then(|autopath| autopath.zones.as_ref());
            // A line of its own zones may stand in a larger block.
            let zone = zones.and_then(|zones| zones.first()).unwrap_or(zone);
            Some((listen, zone.clone(), route))
        });
        let default = || question.zone.clone().unwrap_or_else(|| Name::parse(ZONE).expect("a name"));
        let (zone, route) = found.as_ref().map_or((default(), None), |(_, zone, route)| (zone.clone(), Some(*route)));
        let listen = found.map_or_else(|| best_listen(routes, &zone), |(listen, ..)| listen);
        let domains = match (&question.search, route) {
            (Some(search), _) => search.as_slice().into(),
            (None, Some(route)) => walking.resolver.search_domains(route).unwrap_or_default(),
            (None, None) => aside::search_of_node(&zone).into(),
        };
        Place { zone, domains, listen: listen as u16, route }
    }

    /// The pod's search list.
    fn search(&self, namespace: &Name) -> Vec<Name> {
        let svc = Name::parse("svc").ok().and_then(|svc| joined(&svc, &self.zone));
        let own = svc.as_ref().and_then(|svc| joined(namespace, svc));
        own.into_iter().chain(svc).chain([self.zone.clone()]).chain(self.domains.iter().cloned()).collect()
    }
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

/// The names that the stub resolver asks for, in order, as far as none has an answer.
fn names(question: &Question, place: &Place) -> Vec<Option<Name>> {
    let as_it_is = Some(question.name.clone());
    if question.absolute {
        return vec![as_it_is];
    }
    let list = place.search(&question.namespace);
    let list = list.iter().map(|suffix| joined(&question.name, suffix));
    match question.name.label_count() > NDOTS {
        true => std::iter::once(as_it_is).chain(list).collect(),
        false => list.chain([as_it_is]).collect(),
    }
}

fn without_autopath(routes: &Routes) -> Routes {
    let mut routes = routes.clone();
    routes.routes.iter_mut().for_each(|route| route.autopath = None);
    routes
}

/// Questions to upstreams that nobody waited for, once the last of them has come to an end.
async fn behind(subject: &Subject, sent: &[Sent]) -> f64 {
    while subject.flights.aloft() > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    stub::upstream_queries(subject) - sent.iter().map(Sent::upstream).sum::<f64>()
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
