//! One candidate of a search list: what memory has for it, or the question that decides.

use std::time::Instant;

use crate::dns::{Rcode, Type};
use crate::observe::Event;
use crate::resolve::miss::Miss;

use super::asker::{Asker, Looked};
use super::list::{Candidate, Kind};
use super::said::Said;

/// One candidate on the way.
pub(super) struct Step {
    pub(super) candidate: Candidate,
    pub(super) state: State,
    /// The name just below the suffix has been asked for, or is of no use.
    pub(super) top_asked: bool,
    /// What was said is about a name above.
    pub(super) cut: bool,
    /// It is being asked for, and most likely denied.
    pub(super) expected: bool,
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

/// Which question decides about a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// That for itself.
    Itself,
    /// That for the name just below its suffix.
    Top,
    /// That for its IPv4 addresses.
    Family,
}

/// A question and what it is about.
pub(super) type Question = (Subject, Miss);

impl Step {
    pub(super) fn new(candidate: Candidate) -> Step {
        Step { candidate, state: State::Open, top_asked: false, cut: false, expected: false, by: None }
    }

    /// What was said of it.
    pub(super) fn said(&self) -> Option<&Said> {
        if let State::Said(said) = &self.state { Some(said) } else { None }
    }

    /// Takes what memory has, or gives the question that decides. `trusted`: the server is known not to deny names that
    /// only have names beneath them.
    pub(super) fn look(&mut self, asker: &mut Asker, qtype: Type, trusted: bool, now: Instant) -> Option<Question> {
        if !matches!(self.state, State::Open) {
            return None;
        }
        if self.candidate.name.is_empty() {
            (self.state, self.by) = (State::Skipped, Some(Event::StepTooLong));
            return None;
        }
        let miss = match asker.look(&self.candidate.name, qtype, now) {
            Looked::Said(said) => {
                self.by = Some(Event::StepKnown);
                return self.weigh(said, asker, qtype, now);
            }
            Looked::Cut(said) => {
                self.by = Some(if self.top_asked { Event::StepTop } else { Event::StepKnown });
                self.hear_above(said);
                return None;
            }
            Looked::Open(miss) => miss,
        };
        if trusted && self.asks_top(asker, qtype, now) {
            match self.look_above(asker, now) {
                Some(question) => return Some(question),
                None if self.said().is_some() => return None,
                None => {}
            }
        }
        let denied =
            asker.remembers(&self.candidate.name, qtype, now).is_some_and(|(rcode, _)| rcode == Rcode::NXDOMAIN);
        (self.state, self.expected) = (State::Asking, denied);
        // Outside, a denial for AAAA is kept as one of AAAA alone.
        let alone = self.candidate.kind == Kind::Other && qtype == Type::AAAA;
        Some((Subject::Itself, if alone { miss.about_one_type() } else { miss }))
    }

    /// Takes what came of a question.
    pub(super) fn hear(
        &mut self,
        subject: Subject,
        said: Said,
        asker: &mut Asker,
        qtype: Type,
        now: Instant,
    ) -> Option<Question> {
        match subject {
            Subject::Itself => {
                self.by = Some(Event::StepAsked);
                self.weigh(said, asker, qtype, now)
            }
            Subject::Top if said.is_denial() && said.stale => {
                self.by = Some(Event::StepTop);
                self.hear_above(said);
                None
            }
            // The cache has its denial. If it has none, the candidate is asked for itself.
            Subject::Top => {
                self.state = State::Open;
                None
            }
            Subject::Family => {
                let exists = said.exists();
                self.state = State::Said(if exists { said.without_data() } else { said });
                None
            }
        }
    }

    /// Takes what was said of the candidate itself, unless it has to be asked about once more: some servers deny a name for
    /// AAAA that has A (RFC 4074 section 4.2). A stub stops at that name, and must not get addresses of a later one, so for
    /// names outside nothing but the word about A denies it.
    fn weigh(&mut self, said: Said, asker: &mut Asker, qtype: Type, now: Instant) -> Option<Question> {
        let doubtful = said.is_denial() && !said.stale && said.qtype() == Some(Type::AAAA);
        if !doubtful || self.candidate.kind != Kind::Other || !matches!(qtype, Type::A | Type::AAAA) {
            self.state = State::Said(said);
            return None;
        }
        let name = &self.candidate.name;
        let miss = match asker.look(name, Type::A, now) {
            Looked::Open(miss) => miss,
            Looked::Said(word) if word.is_denial() && word.qtype() == Some(Type::AAAA) => {
                asker.miss(name, Type::A, now)?
            }
            Looked::Said(word) | Looked::Cut(word) => {
                let exists = word.exists();
                self.state = State::Said(if exists && qtype == Type::AAAA { word.without_data() } else { word });
                return None;
            }
        };
        (self.state, self.expected) = (State::Asking, false);
        Some((if qtype == Type::A { Subject::Itself } else { Subject::Family }, miss))
    }

    /// What memory has for the name just below the suffix, or the question for it.
    fn look_above(&mut self, asker: &mut Asker, now: Instant) -> Option<Question> {
        self.top_asked = true;
        let top = self.candidate.top.as_deref()?;
        match asker.look(top, Type::A, now) {
            Looked::Open(miss) => {
                (self.state, self.expected) = (State::Asking, true);
                return Some((Subject::Top, miss));
            }
            Looked::Said(said) | Looked::Cut(said) if said.is_denial() => {
                self.by = Some(Event::StepTop);
                self.hear_above(said);
            }
            // It exists, or has failed a moment ago: the candidate is asked for itself.
            Looked::Said(_) | Looked::Cut(_) => {}
        }
        None
    }

    /// Whether the name just below the suffix is asked for in place of the candidate: most likely it does not exist, and
    /// then nor do all other names that end like this one.
    fn asks_top(&self, asker: &Asker, qtype: Type, now: Instant) -> bool {
        let Some(top) = self.candidate.top.as_deref().filter(|_| !self.top_asked) else { return false };
        asker.could_cut(&self.candidate.name, top, qtype, now)
            && match asker.remembers(top, Type::A, now) {
                None => !self.candidate.possible,
                Some((rcode, expired)) => rcode == Rcode::NXDOMAIN && expired.is_some(),
            }
    }

    /// The denial of a name above is its own as well.
    fn hear_above(&mut self, said: Said) {
        (self.cut, self.state) = (true, State::Said(said));
    }
}
