//! The text of an explanation.

use std::fmt::Write;

use super::stub::{Course, End, Lookup, Reply, Sent, Turn};
use super::{NDOTS, Place, Question, walk};
use crate::cli::status::short;
use crate::dns::{Name, Rcode, Type};
use crate::observe::counters::{AAAA_OFF, AUTOPATH_PLAIN, AUTOPATH_WALKS};
use crate::plugins::policy::autopath::Autopath;
use crate::resolve::LONGEST_FIRST;
use crate::routes::Routes;

/// Everything the text is about.
pub(super) struct Report<'a> {
    pub(super) question: &'a Question,
    pub(super) routes: &'a Routes,
    pub(super) place: &'a Place,
    pub(super) lookup: &'a Lookup,
}

impl Report<'_> {
    /// Who looks for what, and where.
    pub(super) fn head(&self) -> String {
        let Report { question, place, .. } = self;
        let types: Vec<String> = question.types.iter().map(Type::to_string).collect();
        let (name, namespace) = (bare(&question.name), bare(&question.namespace));
        let mut text = format!("A pod in namespace {namespace} looks for {name} ({})", types.join(" and "));
        let listen = &self.routes.listens[usize::from(place.listen)];
        let _ = writeln!(text, " at {}.", if listen.explicit { listen.address.to_string() } else { listen.server() });
        let list: Vec<String> = place.search.iter().map(bare).collect();
        let _ = write!(text, "Its resolv.conf: search {}, ndots:{NDOTS}", list.join(" "));
        match &place.file {
            None => text += ".\n",
            Some(file) => {
                let _ = writeln!(text, "; that is the list in {}, whatever the namespace.", file.display());
            }
        }
        if question.absolute {
            text += "The name ends with a dot, so it is asked for as it is.\n";
        } else if question.name.label_count() > NDOTS {
            let _ = writeln!(
                text,
                "The name has {NDOTS} dots or more, so it is asked for as it is first; musl asks no more than that."
            );
        }
        for suffix in self.lookup.list.iter().zip(&place.search).filter(|(name, _)| name.is_none()) {
            let _ = writeln!(
                text,
                "Below {} the name would have more than 255 octets, so that is left out.",
                bare(suffix.1)
            );
        }
        text
    }

    /// The lookup without walks.
    pub(super) fn plain(&self, course: &Course) -> String {
        let mut text = "\nWithout autopath\n".to_owned();
        self.list(&mut text, course, |_, _| String::new());
        text += &self.musl(course);
        text + &result(course)
    }

    /// Why there is nothing to compare with.
    pub(super) fn off(&self) -> String {
        let zone = bare(&self.place.zone);
        let listen = &self.routes.listens[usize::from(self.place.listen)];
        let block = listen.zones.entries().find(|(known, _)| **known == self.place.zone);
        let to_do = match block {
            Some(_) => format!("To turn it on, write this line into the server block {zone}:\n    autopath @query\n"),
            None => format!(
                "To turn it on, write this line into a server block for {zone}, the cluster's zone, which this Corefile does not \
                 have:\n    autopath @query\nIf the zone is another one, say -zone ZONE.\n"
            ),
        };
        format!("\nautopath is off: no server block has `autopath @query`{}.\n{to_do}", self.of_zone())
    }

    fn of_zone(&self) -> String {
        self.question.zone.as_ref().map(|zone| format!(" for {}", bare(zone))).unwrap_or_default()
    }

    /// The lookup with walks, and what they did.
    pub(super) fn walked(&self, route: usize, course: &Course) -> String {
        let mut text = "\nWith autopath\n".to_owned();
        let autopath = self.routes.routes[route].autopath.as_ref();
        self.list(&mut text, course, |turn, sent| self.why(turn, sent, autopath));
        text + &result(course)
    }

    /// What was done about one query, and why.
    fn why(&self, turn: usize, sent: &Sent, autopath: Option<&Autopath>) -> String {
        let words = |metric, label| -> Vec<(String, f64)> {
            sent.grown.by(metric, label).into_iter().filter(|(_, count)| *count > 0.0).collect()
        };
        let mut text = sent.told.as_ref().map(walk::steps).unwrap_or_default();
        for (outcome, _) in words(&AUTOPATH_WALKS, "outcome") {
            let how = match outcome.as_str() {
                "found" if sent.told.is_none() => "from memory: the result of an earlier walk",
                "found" => "the reply is an alias of the first name that exists, with its records",
                "first" => "the name asked for is not denied, so what it has is the reply",
                "nodata" => {
                    "the reply is empty: a later name exists, without such records, and the pod goes on by itself"
                }
                "missing" => "the reply is NXDOMAIN: none of the names exists",
                "failed" => "the reply is the failure: it is passed on, not skipped",
                other => other,
            };
            let _ = writeln!(text, "       -> {how}");
        }
        for (reason, _) in words(&AUTOPATH_PLAIN, "reason") {
            let why = match reason.as_str() {
                "namespace" => {
                    format!("the namespace {} does not exist in the cluster's DNS", bare(&self.question.namespace))
                }
                "continued" => "the pod goes on with its list by itself".to_owned(),
                "except" => "`except` of the autopath line names it".to_owned(),
                "depth" => format!(
                    "the list has more than {} names (`max_depth`), and none of those exists",
                    autopath.map_or(0, |autopath| autopath.max_depth)
                ),
                "loop" => "its aliases lead back to the name asked for".to_owned(),
                "truncated" => "its upstream truncates the answer".to_owned(),
                "late" => "the upstreams were too slow, all together".to_owned(),
                other => other.to_owned(),
            };
            let _ = writeln!(text, "       -> answered plainly: {why}");
        }
        if text.is_empty() && turn == 0 {
            let _ = writeln!(text, "       -> answered plainly: {}", self.refusal(sent));
        }
        text
    }

    /// Why the first query is none that a list is walked for.
    fn refusal(&self, sent: &Sent) -> String {
        if self.question.absolute || self.question.name.label_count() > NDOTS {
            return "it is not the first name of a search list".to_owned();
        }
        if let (Some(None), Some(suffix)) = (self.lookup.list.first(), self.place.search.first()) {
            let first = bare(suffix);
            return format!(
                "the first name of the list, below {first}, is too long to be asked for, and this is another"
            );
        }
        let Some((route, zone)) = self.route_of(sent) else { return "there is no server block for it".to_owned() };
        let Some(autopath) = &self.routes.routes[route].autopath else {
            return format!("the server block {zone} has no autopath");
        };
        if autopath.zones.as_ref().is_some_and(|zones| !zones.iter().any(|zone| sent.name.is_under(zone))) {
            return "the autopath line of its server block is about other zones".to_owned();
        }
        match sent.qtype {
            _ if self.question.dnssec => {
                "the query has DO set: who validates can make nothing of an alias of ours".to_owned()
            }
            Type::AAAA if sent.grown.sum(&AAAA_OFF).is_some_and(|count| count > 0.0) => {
                "`aaaa off` has the answer".to_owned()
            }
            _ if self.place.file.is_none() && sent.name.as_wire().len() > LONGEST_FIRST => format!(
                "it has more than {LONGEST_FIRST} octets: before such a name there may be one in a list that is too long to be asked \
                 for, so it need not be the first"
            ),
            Type::A | Type::AAAA => "its server block answers it before any list is walked".to_owned(),
            qtype => format!("lists are not walked for type {qtype}"),
        }
    }

    fn list(&self, text: &mut String, course: &Course, more: impl Fn(usize, &Sent) -> String) {
        let width = course.queries().map(|sent| sent.name.to_string().chars().count()).max().unwrap_or(0);
        let mut number = 0;
        for (turn, all) in course.turns.iter().enumerate() {
            for sent in &all.sent {
                number += 1;
                let (name, qtype) = (sent.name.to_string(), sent.qtype.to_string());
                let (said, took) = (said(&sent.reply, sent.qtype), short(sent.took.as_secs_f64()));
                let block = match self.route_of(sent) {
                    Some((_, zone)) => format!("block {zone}"),
                    None => "no server block".to_owned(),
                };
                let _ = writeln!(text, "{number:>3}. {qtype:<5} {name:<width$}  {said}; {took}, {block}");
                *text += &more(turn, sent);
            }
            let _ = writeln!(text, "       {}", self.whence(all));
        }
    }

    /// The server block that a query meets.
    fn route_of(&self, sent: &Sent) -> Option<(usize, &Name)> {
        let wire = sent.name.as_wire();
        let mut offsets = Vec::new();
        let mut at = 0;
        for label in crate::dns::name::labels(wire) {
            offsets.push(at as u8);
            at += label.len() + 1;
        }
        let zones = &self.routes.listens[usize::from(self.place.listen)].zones;
        let (route, zone) = zones.find(wire, &offsets, sent.qtype)?;
        Some((route, zones.zone(zone)))
    }

    /// Who was asked for one name.
    fn whence(&self, turn: &Turn) -> String {
        if turn.asked.is_empty() {
            return "nobody was asked".to_owned();
        }
        let count = |(to, count): (&String, &f64)| match count {
            1.0 => to.clone(),
            _ => format!("{to} {count:.0} times"),
        };
        let asked: Vec<String> = turn.asked.iter().map(count).collect();
        // A walk asks in other blocks as well.
        let sent = turn.sent.first().filter(|_| turn.sent.iter().all(|sent| sent.told.is_none()));
        let line = sent.and_then(|sent| {
            let (route, _) = self.route_of(sent)?;
            self.routes.routes[route].forwards.iter().find(|forward| forward.matches(sent.name.as_wire()))
        });
        let line = line.map(|forward| {
            let targets: Vec<String> = forward.spec.targets.iter().map(ToString::to_string).collect();
            format!(" (forward {} {})", forward.from, targets.join(" "))
        });
        format!("asked {}{}", asked.join(" and "), line.unwrap_or_default())
    }

    /// Where musl, which asks for both families as well, would end before glibc does.
    fn musl(&self, course: &Course) -> String {
        if self.question.types != [Type::A, Type::AAAA] || self.question.absolute {
            return String::new();
        }
        let answered = |turn: &Turn| turn.sent.iter().any(|sent| sent.reply.answered);
        let mut turns = course.turns.iter().enumerate();
        let ends = turns.find(|(_, turn)| answered(turn) || turn.sent[0].reply.rcode != Rcode::NXDOMAIN);
        match ends {
            Some((at, turn)) if at + 1 < course.turns.len() || course.end == End::Found && !answered(turn) => {
                let why = match turn.sent[0].reply.rcode {
                    Rcode::NOERROR => "the name exists",
                    _ => "that is a failure",
                };
                format!("     musl ends after query {}: {why}.\n", 2 * at + 2)
            }
            _ => String::new(),
        }
    }

    /// What they cost: without, with, what was asked in the background for that, and with where more was known beforehand.
    pub(super) fn sum(&self, without: &Course, with: &Course, behind: f64, learnt: Option<(Name, Course)>) -> String {
        let last = learnt.as_ref().map(|(top, _)| format!("with autopath, other names in {} known", bare(top)));
        let width = last.as_ref().map_or(0, String::len).max(32);
        let mut text = format!("\n{:<width$}  queries of the pod  queries to upstreams\n", "");
        let mut row = |what: &str, pod: Option<&Course>, upstream: f64| {
            let pod = pod.map(|course| course.queries().count().to_string()).unwrap_or_default();
            let _ = writeln!(text, "{what:<width$}{pod:>20}{upstream:>22}");
        };
        row("without autopath", Some(without), without.upstream());
        row("with autopath", Some(with), with.upstream());
        if behind > 0.0 {
            row("  and later, for other names", None, behind);
        }
        if let (Some(what), Some((_, course))) = (&last, &learnt) {
            row(what, Some(course), course.upstream());
        }
        text += "Memory was empty at the start of each";
        text += &match &learnt {
            None => ".\n".to_owned(),
            Some((top, _)) => format!(
                " but the last, for which the agent had been asked for {0} below\neach suffix: what is known then of the \
                 namespace, and of {0} in the cluster, serves all names in {0}.\n",
                bare(top)
            ),
        };
        if without.end != with.end || learnt.is_some_and(|(_, course)| course.end != with.end) {
            text += "They ended differently: the upstreams did not say the same each time.\n";
        }
        text
    }
}

fn said(reply: &Reply, qtype: Type) -> String {
    let mut text = match (reply.rcode, reply.data.len()) {
        (Rcode::NOERROR, 0) if reply.answered => format!("an alias, no {qtype}"),
        (Rcode::NOERROR, 0) => "no data".to_owned(),
        (Rcode::NOERROR, 1) => "1 answer".to_owned(),
        (Rcode::NOERROR, count) => format!("{count} answers"),
        (rcode, _) => rcode.to_string(),
    };
    if let Some(error) = &reply.error {
        let _ = write!(text, " ({error})");
    }
    text
}

fn result(course: &Course) -> String {
    let data: Vec<&str> = course.queries().flat_map(|sent| &sent.reply.data).map(String::as_str).collect();
    let found = match course.end {
        End::Found => data.join(", "),
        End::NoData => "the name exists, without such records".to_owned(),
        End::Missing => "no such name".to_owned(),
        End::Failed => "nobody knows: a query failed, and the program is told to try again".to_owned(),
    };
    format!("     Result: {found}\n")
}

/// A name as people write it.
fn bare(name: &Name) -> String {
    let text = name.to_string();
    if text == "." { text } else { text.trim_end_matches('.').to_owned() }
}
