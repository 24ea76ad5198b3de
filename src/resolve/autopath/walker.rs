//! A search list being walked, as a state machine: told what was said about names, it says what to ask next. No I/O.

use std::time::{Duration, Instant};

use crate::dns::{Rcode, Type};
use crate::observe::Event;
use crate::resolve::miss::{Landed, Miss};

use super::asker::{Asker, Looked};
use super::conclusion::Conclusion;
use super::list::Candidate;
use super::said::Said;

/// For so long after a namespace's denial has expired it is not asked for again: nobody in it waits for walks, and a server
/// that denies every namespace is asked seldom.
const NO_NAMESPACE: Duration = Duration::from_secs(300);

/// Looks at memory for one candidate, each but the first because another worker has changed it since.
const LOOKS: usize = 4;

/// A search list being walked.
pub(in crate::resolve) struct Walker {
    pub(super) asker: Asker,
    pub(super) qtype: Type,
    pub(super) steps: Vec<Step>,
    /// The namespace that the question names, where it does.
    pub(super) namespace: Option<Namespace>,
    /// The list is longer than may be walked.
    cut_short: bool,
}

/// One candidate on the way.
pub(super) struct Step {
    pub(super) candidate: Candidate,
    pub(super) state: State,
    pub(super) top: Top,
    /// What was said is about a name above.
    pub(super) cut: bool,
    /// It is being asked for, and most likely denied.
    expected: bool,
    /// How it is known whether the name exists.
    pub(super) by: Option<Event>,
}

pub(super) enum State {
    Open,
    /// It would be too long for a name: no stub asks for it either.
    Skipped,
    Asking,
    Said(Said),
}

/// The name just below the suffix.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Top {
    /// It has not been asked for.
    Open,
    /// It has.
    Asked,
}

pub(super) struct Namespace {
    pub(super) name: Box<[u8]>,
    pub(super) state: Standing,
}

pub(super) enum Standing {
    Open,
    Asking,
    Exists,
    /// There is none, or nobody knows.
    Missing,
}

/// What a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// The candidate of this index.
    Candidate(usize),
    /// The name just below its suffix.
    Top(usize),
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
        let namespace = namespace.map(|name| Namespace { name: name.into(), state: Standing::Open });
        Walker { asker, qtype, steps: candidates.into_iter().map(Step::new).collect(), namespace, cut_short }
    }

    /// Goes as far as memory knows, and says whom to ask.
    pub(in crate::resolve) fn next(&mut self, now: Instant) -> Next {
        self.recall_namespace(now);
        let mut asks = Vec::new();
        // Whether every candidate so far is known not to exist.
        let mut certain = true;
        for index in 0..self.steps.len() {
            if index > 0
                && let Some(end) = self.look_at_namespace(certain, now, &mut asks)
            {
                return end.map_or(Next::Ask(asks), Next::Done);
            }
            self.look_or_ask(index, now, &mut asks);
            match &self.steps[index].state {
                State::Skipped => continue,
                State::Said(said) if said.is_denial() => continue,
                State::Said(said) if certain => {
                    let end = end(index, said, self.qtype);
                    return Next::Done(self.in_step(index, now).unwrap_or(end));
                }
                State::Said(_) => return Next::Ask(asks),
                State::Open | State::Asking => {}
            }
            certain = false;
            if !self.steps[index].expected {
                return Next::Ask(asks);
            }
        }
        match (certain, self.cut_short) {
            (false, _) => Next::Ask(asks),
            (true, true) => Next::Done(End::Plain(Event::PlainDepth)),
            (true, false) => Next::Done(self.in_step(self.steps.len(), now).unwrap_or(End::Missing)),
        }
    }

    /// The end at a candidate before this one that exists for the other family of addresses, although it was denied for this
    /// one: some servers do that (RFC 4074 section 4.2). A stub stops there, so it must not get addresses of a later one.
    fn in_step(&self, before: usize, now: Instant) -> Option<End> {
        let other = match self.qtype {
            Type::A => Type::AAAA,
            Type::AAAA => Type::A,
            _ => return None,
        };
        let exists =
            |step: &Step| !step.cut && step.said().is_some() && self.asker.has(&step.candidate.name, other, now);
        self.steps[..before].iter().position(exists).map(End::NoData)
    }

    /// Takes in what came of a question.
    pub(in crate::resolve) fn told(&mut self, about: About, landed: Landed, now: Instant) {
        let stale_ttl = self.asker.stale_ttl_of(self.name_of(about), self.qtype, now);
        let said = Said::landed(landed, stale_ttl, now);
        match about {
            About::Candidate(index) => {
                self.steps[index].by = Some(Event::StepAsked);
                self.steps[index].state = State::Said(said);
            }
            About::Top(index) if said.is_denial() && said.stale => self.steps[index].hear_above(said),
            // The cache has its denial. If it has none, the candidate is asked for itself.
            About::Top(index) => self.steps[index].state = State::Open,
            About::Namespace => {
                if let Some(namespace) = &mut self.namespace {
                    namespace.state = standing(&said);
                }
            }
        }
    }

    /// What was said of a candidate.
    pub(in crate::resolve) fn said(&self, index: usize) -> Option<&Said> {
        self.steps.get(index)?.said()
    }

    /// What was said of the first name itself.
    pub(super) fn said_of_first(&self) -> Option<Said> {
        self.steps.first().filter(|step| !step.cut)?.said().cloned()
    }

    /// Names just below suffixes that are worth asking for although nobody waits: their denials save the questions for
    /// all candidates beneath. They are those of candidates that this walk has asked for in vain, and no more of them than
    /// it got by such denials: so it never costs upstreams more than the client's own would have.
    pub(super) fn lessons(&self, end: End, now: Instant) -> Vec<Miss> {
        let End::Found(found) = end else { return Vec::new() };
        let free = self.steps[..found].iter().filter(|step| step.cut && step.by == Some(Event::StepKnown)).count();
        let in_vain = self.steps[..found].iter().filter(|step| step.by == Some(Event::StepAsked));
        let tops = in_vain.filter(|step| step.top == Top::Open).filter_map(|step| step.candidate.top.as_deref());
        let worth = tops.filter(|top| {
            let known = self.asker.remembers(top, Type::A, now);
            self.asker.cuts(top, now)
                && known.is_none_or(|(rcode, expired)| rcode == Rcode::NXDOMAIN && expired.is_some())
        });
        worth.filter_map(|top| self.asker.unasked(top, Type::A, now)).take(free).collect()
    }

    /// Sees to the namespace before a later candidate is looked at: that there is one shows that the question is the
    /// first of a list, and that the server does not deny names that only have names beneath them. `Some(None)`: it has to
    /// be waited for.
    fn look_at_namespace(&mut self, certain: bool, now: Instant, asks: &mut Vec<(About, Miss)>) -> Option<Option<End>> {
        let namespace = self.namespace.as_mut()?;
        match &namespace.state {
            Standing::Exists => return None,
            _ if !certain => return Some(None),
            Standing::Missing => return Some(Some(End::Plain(Event::PlainNamespace))),
            Standing::Asking => return Some(None),
            Standing::Open => {}
        }
        match self.asker.look(&namespace.name, Type::A, now) {
            Looked::Said(said) | Looked::Cut(said) => {
                namespace.state = standing(&said);
                self.look_at_namespace(certain, now, asks)
            }
            Looked::Open(old) => {
                namespace.state = Standing::Asking;
                let miss = self.asker.miss(&namespace.name, Type::A, old, now)?;
                asks.push((About::Namespace, miss.about_one_type()));
                Some(None)
            }
        }
    }

    fn recall_namespace(&mut self, now: Instant) {
        let Some(namespace) = &mut self.namespace else { return };
        if let Standing::Open = namespace.state {
            namespace.state = match self.asker.remembers(&namespace.name, Type::A, now) {
                // Namespaces seldom go, and nobody asks in one that has: an expired entry is enough.
                Some((Rcode::NOERROR, _)) => Standing::Exists,
                Some((Rcode::NXDOMAIN, expired)) if expired.is_none_or(|ago| ago < NO_NAMESPACE) => Standing::Missing,
                _ => Standing::Open,
            };
        }
    }

    /// What memory has for a candidate, or else the question about it. Another worker may get the answer between two looks,
    /// as for the other family of the same name: the next look finds it.
    fn look_or_ask(&mut self, index: usize, now: Instant, asks: &mut Vec<(About, Miss)>) {
        for _ in 0..LOOKS {
            self.look_at(index, now);
            if !matches!(self.steps[index].state, State::Open) {
                return;
            }
            asks.extend(self.ask(index, now));
        }
    }

    /// What memory has for a candidate.
    fn look_at(&mut self, index: usize, now: Instant) {
        let step = &mut self.steps[index];
        if !matches!(step.state, State::Open) {
            return;
        }
        if step.candidate.name.is_empty() {
            (step.state, step.by) = (State::Skipped, Some(Event::StepTooLong));
            return;
        }
        let (said, cut) = match self.asker.look(&step.candidate.name, self.qtype, now) {
            Looked::Said(said) => (said, false),
            Looked::Cut(said) => (said, true),
            Looked::Open(_) => return self.look_above(index, now),
        };
        step.by = Some(if step.top == Top::Asked && cut { Event::StepTop } else { Event::StepKnown });
        (step.cut, step.state) = (cut, State::Said(said));
    }

    /// What memory has for the name just below a candidate's suffix, where that one would be asked for.
    fn look_above(&mut self, index: usize, now: Instant) {
        if !self.asks_top(index, now) {
            return;
        }
        let step = &mut self.steps[index];
        let top = step.candidate.top.as_deref().unwrap_or_default();
        match self.asker.look(top, Type::A, now) {
            Looked::Said(said) | Looked::Cut(said) if said.is_denial() => step.hear_above(said),
            // It failed a moment ago: the candidate is asked for itself.
            Looked::Said(_) | Looked::Cut(_) => step.top = Top::Asked,
            Looked::Open(_) => {}
        }
    }

    /// The question that decides about a candidate of which memory knows nothing; `None` where it has come to know.
    fn ask(&mut self, index: usize, now: Instant) -> Option<(About, Miss)> {
        if self.asks_top(index, now) {
            let step = &mut self.steps[index];
            let top = step.candidate.top.as_deref()?;
            let Looked::Open(old) = self.asker.look(top, Type::A, now) else { return None };
            let miss = self.asker.miss(top, Type::A, old, now)?;
            (step.state, step.top, step.expected) = (State::Asking, Top::Asked, true);
            return Some((About::Top(index), miss));
        }
        let step = &mut self.steps[index];
        let name = &step.candidate.name;
        let known = self.asker.remembers(name, self.qtype, now);
        let Looked::Open(old) = self.asker.look(name, self.qtype, now) else { return None };
        (step.state, step.expected) = (State::Asking, known.is_some_and(|(rcode, _)| rcode == Rcode::NXDOMAIN));
        Some((About::Candidate(index), self.asker.miss(name, self.qtype, old, now)?))
    }

    /// Whether the name just below the suffix is asked for in place of the candidate: most likely it does not exist, and
    /// then nor do all other names that end like this one.
    fn asks_top(&self, index: usize, now: Instant) -> bool {
        let step = &self.steps[index];
        let trusted = matches!(&self.namespace, Some(Namespace { state: Standing::Exists, .. }));
        let Some(top) = step.candidate.top.as_deref().filter(|_| trusted && step.top == Top::Open) else {
            return false;
        };
        self.asker.cuts(top, now)
            && match self.asker.remembers(top, Type::A, now) {
                None => !step.candidate.possible,
                Some((rcode, expired)) => rcode == Rcode::NXDOMAIN && expired.is_some(),
            }
    }

    /// Counts how the walk ended, and how that is known.
    pub(super) fn count(&self, end: End, conclusion: &Conclusion) {
        let counts = self.asker.resolver.registry.worker(self.asker.worker);
        counts.count(conclusion.event);
        if let (End::Found(index), false) = (end, conclusion.goes_on) {
            counts.count_n(Event::WalkSaved, index as u64);
        }
        self.count_steps();
    }

    /// Counts a walk that the first name itself has ended.
    pub(super) fn count_first(&self) {
        self.asker.resolver.registry.worker(self.asker.worker).count(Event::WalkFirst);
        self.count_steps();
    }

    fn count_steps(&self) {
        let counts = self.asker.resolver.registry.worker(self.asker.worker);
        self.steps.iter().filter_map(|step| step.by).for_each(|event| counts.count(event));
    }

    fn name_of(&self, about: About) -> &[u8] {
        match about {
            About::Candidate(index) => &self.steps[index].candidate.name,
            About::Top(index) => self.steps[index].candidate.top.as_deref().unwrap_or_default(),
            About::Namespace => self.namespace.as_ref().map(|namespace| &*namespace.name).unwrap_or_default(),
        }
    }
}

impl Step {
    /// What was said of it.
    pub(super) fn said(&self) -> Option<&Said> {
        if let State::Said(said) = &self.state { Some(said) } else { None }
    }

    /// The denial of a name above is its own as well.
    fn hear_above(&mut self, said: Said) {
        (self.by, self.cut, self.state) = (Some(Event::StepTop), true, State::Said(said));
    }

    fn new(candidate: Candidate) -> Step {
        Step { candidate, state: State::Open, top: Top::Open, cut: false, expected: false, by: None }
    }
}

fn end(index: usize, said: &Said, qtype: Type) -> End {
    match index {
        0 => End::First,
        _ if !said.exists() => End::Failed(index),
        _ if said.has(qtype) => End::Found(index),
        _ => End::NoData(index),
    }
}

/// Without knowing, nothing is walked for: the plain answer is right in any case.
fn standing(said: &Said) -> Standing {
    if said.exists() { Standing::Exists } else { Standing::Missing }
}
