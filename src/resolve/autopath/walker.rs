//! A search list being walked, as a state machine: told what was said about names, it says what to ask next. No I/O.

use std::time::Instant;

use crate::dns::{Rcode, Type};
use crate::observe::Event;
use crate::resolve::miss::{Landed, Miss};

use super::asker::Asker;
use super::list::Candidate;
use super::namespace::{Namespace, Standing};
use super::said::Said;
use super::step::{State, Step, Subject};

/// A search list being walked.
pub(in crate::resolve) struct Walker {
    pub(super) asker: Asker,
    pub(super) qtype: Type,
    pub(super) steps: Vec<Step>,
    /// The namespace that the question names, where it does.
    pub(super) namespace: Option<Namespace>,
    /// The list is longer than may be walked.
    cut_short: bool,
    /// Questions that what was told has led to.
    asks: Vec<(About, Miss)>,
}

/// What a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// The candidate of this index.
    Candidate(usize, Subject),
    /// The namespace.
    Namespace,
}

/// What to do next.
pub(in crate::resolve) enum Next {
    /// Ask these as well, and wait for one of all that have been asked.
    Ask(Vec<(About, Miss)>),
    /// It is over.
    Done(End),
}

/// How a walk ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// What the first name has is the answer, or the failure.
    First,
    /// This candidate has what was asked for.
    Found(usize),
    /// This candidate exists, without that.
    NoData(usize),
    /// None of them exists.
    Missing,
    /// Nobody knows whether this candidate exists.
    Failed(usize),
    /// The walk is given up.
    Plain(Event),
}

impl Walker {
    pub(super) fn new(
        asker: Asker,
        qtype: Type,
        mut candidates: Vec<Candidate>,
        namespace: Option<&[u8]>,
        max_depth: usize,
    ) -> Walker {
        let cut_short = candidates.len() > max_depth;
        candidates.truncate(max_depth);
        let steps = candidates.into_iter().map(Step::new).collect();
        Walker { asker, qtype, steps, namespace: namespace.map(Namespace::new), cut_short, asks: Vec::new() }
    }

    /// Goes as far as memory knows, and says whom to ask.
    pub(in crate::resolve) fn next(&mut self, now: Instant) -> Next {
        match self.go(now) {
            Some(end) => Next::Done(end),
            None => Next::Ask(std::mem::take(&mut self.asks)),
        }
    }

    /// The end, where that is known.
    fn go(&mut self, now: Instant) -> Option<End> {
        if let Some(namespace) = &mut self.namespace {
            namespace.recall(&self.asker, now);
        }
        // Whether every candidate so far is known not to exist.
        let mut certain = true;
        for index in 0..self.steps.len() {
            if index > 0 && !self.has_namespace(certain, now) {
                let missing = self.standing() == Some(Standing::Missing);
                return (certain && missing).then_some(End::Plain(Event::PlainNamespace));
            }
            let trusted = self.standing() == Some(Standing::Exists);
            let step = &mut self.steps[index];
            if let Some((subject, miss)) = step.look(&mut self.asker, self.qtype, trusted, now) {
                self.asks.push((About::Candidate(index, subject), miss));
            }
            match &step.state {
                State::Skipped => continue,
                State::Said(said) if said.is_denial() => continue,
                State::Said(said) => return certain.then(|| end(index, said, self.qtype)),
                State::Open | State::Asking => certain = false,
            }
            if !step.expected {
                return None;
            }
        }
        let end = if self.cut_short { End::Plain(Event::PlainDepth) } else { End::Missing };
        certain.then_some(end)
    }

    /// Whether later candidates may be looked at: the namespace exists, or the list is not that of one. It is asked for
    /// when the first name is known not to exist.
    fn has_namespace(&mut self, certain: bool, now: Instant) -> bool {
        let Some(namespace) = &mut self.namespace else { return true };
        if certain
            && namespace.state == Standing::Open
            && let Some(miss) = namespace.ask(&mut self.asker, now)
        {
            self.asks.push((About::Namespace, miss));
        }
        namespace.state == Standing::Exists
    }

    fn standing(&self) -> Option<Standing> {
        self.namespace.as_ref().map(|namespace| namespace.state)
    }

    /// Takes in what came of a question.
    pub(in crate::resolve) fn told(&mut self, about: About, landed: Landed, now: Instant) {
        let said = Said::landed(landed, self.asker.stale_ttl(self.name_of(about), self.qtype, now), now);
        match about {
            About::Namespace => {
                if let Some(namespace) = &mut self.namespace {
                    namespace.hear(&said);
                }
            }
            About::Candidate(index, subject) => {
                let question = self.steps[index].hear(subject, said, &mut self.asker, self.qtype, now);
                self.asks.extend(question.map(|(subject, miss)| (About::Candidate(index, subject), miss)));
            }
        }
    }

    /// What was said of a candidate.
    pub(in crate::resolve) fn said(&self, index: usize) -> Option<&Said> {
        self.steps.get(index)?.said()
    }

    /// What was said of the first name itself.
    pub(super) fn said_of_first(&self) -> Option<&Said> {
        self.steps.first().filter(|step| !step.cut)?.said()
    }

    /// Names just below suffixes that are worth asking for although nobody waits: their denials save the questions for
    /// all candidates beneath. They are those of candidates that this walk has asked for in vain, and no more of them than
    /// it got by such denials: so it never costs upstreams more than the client's own would have.
    pub(super) fn lessons(&self, end: End, now: Instant) -> Vec<Miss> {
        let End::Found(found) = end else { return Vec::new() };
        let free = self.steps[..found].iter().filter(|step| step.cut && step.by == Some(Event::StepKnown)).count();
        let in_vain = self.steps[..found].iter().filter(|step| step.by == Some(Event::StepAsked));
        let worth = in_vain.filter(|step| !step.top_asked).filter_map(|step| {
            let top = step.candidate.top.as_deref()?;
            let known = self.asker.remembers(top, Type::A, now);
            let open = known.is_none_or(|(rcode, expired)| rcode == Rcode::NXDOMAIN && expired.is_some());
            (open && self.asker.could_cut(&step.candidate.name, top, self.qtype, now)).then_some(top)
        });
        worth.filter_map(|top| self.asker.unasked(top, Type::A, now)).take(free).collect()
    }

    /// Counts how it is known whether candidates exist.
    pub(super) fn count_steps(&self) {
        let counts = self.asker.resolver.registry.worker(self.asker.worker);
        self.steps.iter().filter_map(|step| step.by).for_each(|event| counts.count(event));
    }

    fn name_of(&self, about: About) -> &[u8] {
        match about {
            About::Candidate(index, Subject::Top) => self.steps[index].candidate.top.as_deref().unwrap_or_default(),
            About::Candidate(index, _) => &self.steps[index].candidate.name,
            About::Namespace => self.namespace.as_ref().map(|namespace| &*namespace.name).unwrap_or_default(),
        }
    }
}

fn end(index: usize, said: &Said, qtype: Type) -> End {
    match index {
        0 => End::First,
        _ if said.is_truncated() => End::Plain(Event::PlainTruncated),
        _ if !said.exists() => End::Failed(index),
        _ if said.has(qtype) => End::Found(index),
        _ => End::NoData(index),
    }
}
