//! The text of an explanation.

use std::fmt::Write;

use super::stub::{End, Lookup, Reply, Sent};
use super::{NDOTS, Place, Question, walk};
use crate::cli::status::short;
use crate::dns::{Name, Rcode, Type};
use crate::observe::counters::{AUTOPATH_PLAIN, AUTOPATH_WALKS};
use crate::plugins::policy::autopath::Autopath;
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
        let list: Vec<String> = place.search(&question.namespace).iter().map(bare).collect();
        let _ = writeln!(text, "Its resolv.conf: search {}, ndots:{NDOTS}.", list.join(" "));
        if question.absolute {
            text += "The name ends with a dot, so it is asked for as it is.\n";
        } else if question.name.label_count() > NDOTS {
            let _ = writeln!(
                text,
                "The name has {NDOTS} dots or more, so it is asked for as it is first; musl asks no more than that."
            );
        }
        for suffix in self.lookup.list.iter().zip(place.search(&question.namespace)).filter(|(name, _)| name.is_none())
        {
            let _ = writeln!(
                text,
                "Below {} the name would have more than 255 octets, so that is left out.",
                bare(&suffix.1)
            );
        }
        text
    }

    /// The lookup without walks.
    pub(super) fn plain(&self, sent: &[Sent], end: End) -> String {
        let mut text = "\nWithout autopath\n".to_owned();
        self.list(&mut text, sent, |_, _| String::new());
        text += &self.musl(sent, end);
        text + &result(sent, end)
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
    pub(super) fn walked(&self, route: usize, sent: &[Sent], end: End) -> String {
        let mut text = "\nWith autopath\n".to_owned();
        let autopath = self.routes.routes[route].autopath.as_ref();
        self.list(&mut text, sent, |index, sent| self.why(index, sent, autopath));
        text + &result(sent, end)
    }

    /// What was done about one query, and why.
    fn why(&self, index: usize, sent: &Sent, autopath: Option<&Autopath>) -> String {
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
                other => other.to_owned(),
            };
            let _ = writeln!(text, "       -> answered plainly: {why}");
        }
        if text.is_empty() && index < self.question.types.len() {
            let _ = writeln!(text, "       -> answered plainly: {}", self.refusal(sent.qtype));
        }
        text
    }

    /// Why the first query is none that a list is walked for.
    fn refusal(&self, qtype: Type) -> String {
        if self.question.absolute || self.question.name.label_count() > NDOTS {
            return "it is not the first name of a search list".to_owned();
        }
        format!("lists are not walked for type {qtype}, or its server block has no autopath for it")
    }

    fn list(&self, text: &mut String, sent: &[Sent], more: impl Fn(usize, &Sent) -> String) {
        let width = sent.iter().map(|sent| sent.name.to_string().chars().count()).max().unwrap_or(0);
        for (index, sent) in sent.iter().enumerate() {
            let (name, qtype) = (sent.name.to_string(), sent.qtype.to_string());
            let (said, took) = (said(&sent.reply, sent.qtype), short(sent.took.as_secs_f64()));
            let _ =
                writeln!(text, "{:>3}. {qtype:<5} {name:<width$}  {said}; {took}, {}", index + 1, self.whence(sent));
            *text += &more(index, sent);
        }
    }

    /// Which server block a query met, and who was asked.
    fn whence(&self, sent: &Sent) -> String {
        let wire = sent.name.as_wire();
        let mut offsets = Vec::new();
        let mut at = 0;
        for label in crate::dns::name::labels(wire) {
            offsets.push(at as u8);
            at += label.len() + 1;
        }
        let zones = &self.routes.listens[usize::from(self.place.listen)].zones;
        let Some((route, zone)) = zones.find(wire, &offsets, sent.qtype) else {
            return "no server block".to_owned();
        };
        let block = format!("block {}", zones.zone(zone));
        if sent.asked.is_empty() {
            return format!("{block}, nobody was asked");
        }
        let count = |(to, count): (&String, &f64)| match count {
            1.0 => to.clone(),
            _ => format!("{to} {count:.0} times"),
        };
        let asked: Vec<String> = sent.asked.iter().map(count).collect();
        // A walk asks in other blocks as well.
        let lines = self.routes.routes[route].forwards.iter().filter(|_| sent.told.is_none());
        let line = lines.into_iter().find(|forward| forward.matches(wire));
        let line = line.map(|forward| {
            let targets: Vec<String> = forward.spec.targets.iter().map(ToString::to_string).collect();
            format!(" (forward {} {})", forward.from, targets.join(" "))
        });
        format!("{block}, asked {}{}", asked.join(" and "), line.unwrap_or_default())
    }

    /// Where musl, which asks for both families as well, would end before glibc does.
    fn musl(&self, sent: &[Sent], end: End) -> String {
        if self.question.types != [Type::A, Type::AAAA] || self.question.absolute {
            return String::new();
        }
        let pairs = || sent.chunks(2).enumerate();
        let ends = pairs()
            .find(|(_, pair)| pair.iter().any(|sent| sent.reply.answered) || pair[0].reply.rcode != Rcode::NXDOMAIN);
        match ends {
            Some((at, pair))
                if at + 1 < pairs().count() || end == End::Found && !pair.iter().any(|s| s.reply.answered) =>
            {
                let why = match pair[0].reply.rcode {
                    Rcode::NOERROR => "the name exists",
                    _ => "that is a failure",
                };
                format!("     musl ends after query {}: {why}.\n", 2 * at + 2)
            }
            _ => String::new(),
        }
    }

    /// What the two cost.
    pub(super) fn sum(&self, without: (&[Sent], End), with: (&[Sent], End), behind: f64) -> String {
        let upstream = |sent: &[Sent]| sent.iter().map(Sent::upstream).sum::<f64>();
        let mut text = format!("\n{:<34}{:>16}{:>16}\n", "", "without autopath", "with autopath");
        let mut row = |what: &str, without: f64, with: f64| {
            let _ = writeln!(text, "{what:<34}{without:>16}{with:>16}");
        };
        row("queries of the pod", without.0.len() as f64, with.0.len() as f64);
        row("queries to upstreams", upstream(without.0), upstream(with.0));
        if behind > 0.0 {
            let _ = writeln!(text, "{:<34}{:>16}{behind:>16}", "  and later, for other names", "");
        }
        text += "Memory was empty at the start of both. What stays there (the denials of the cluster's zone, the namespace)\n\
                 saves the next lookups those questions.\n";
        if without.1 != with.1 {
            text += "The two ended differently: the upstreams did not say the same twice.\n";
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

fn result(sent: &[Sent], end: End) -> String {
    let data: Vec<&str> = sent.iter().flat_map(|sent| &sent.reply.data).map(String::as_str).collect();
    let found = match end {
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
