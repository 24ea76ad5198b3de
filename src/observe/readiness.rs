//! Whether the agent may be sent queries: named parts, each ready or not, and the end.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The parts that must be ready before the agent is.
#[derive(Debug, Default)]
pub struct Readiness {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// A part and why it is not ready.
    parts: BTreeMap<String, Option<String>>,
    stopping: bool,
}

/// The answer to "may I send queries?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Ready,
    /// No: the parts that are not ready, and why.
    Waiting(Vec<(String, String)>),
    /// No, and never again.
    ShuttingDown,
}

impl Readiness {
    /// Nothing to wait for yet.
    pub fn new() -> Readiness {
        Readiness::default()
    }

    /// Says that a part is not ready, with a reason for a person; a part not known before is one to wait for from now on.
    pub fn unready(&self, part: &str, reason: impl Into<String>) {
        self.state().parts.insert(part.to_owned(), Some(reason.into()));
    }

    /// Says that a part is ready.
    pub fn ready(&self, part: &str) {
        self.state().parts.insert(part.to_owned(), None);
    }

    /// Forgets a part that a new configuration no longer has.
    pub fn remove(&self, part: &str) {
        self.state().parts.remove(part);
    }

    /// The agent is going away; nothing makes it ready again.
    pub fn shutting_down(&self) {
        self.state().stopping = true;
    }

    /// The state of all parts, by name.
    pub fn verdict(&self) -> Verdict {
        let state = self.state();
        if state.stopping {
            return Verdict::ShuttingDown;
        }
        let waiting: Vec<_> =
            state.parts.iter().filter_map(|(part, reason)| Some((part.clone(), reason.clone()?))).collect();
        if waiting.is_empty() { Verdict::Ready } else { Verdict::Waiting(waiting) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_part_is() {
        let readiness = Readiness::new();
        assert_eq!(readiness.verdict(), Verdict::Ready);
        readiness.unready("workers", "starting");
        readiness.unready("cache", "warming");
        readiness.ready("workers");
        assert_eq!(readiness.verdict(), Verdict::Waiting(vec![("cache".to_owned(), "warming".to_owned())]));
        readiness.remove("cache");
        assert_eq!(readiness.verdict(), Verdict::Ready);
    }

    #[test]
    fn nothing_undoes_a_shutdown() {
        let readiness = Readiness::new();
        readiness.unready("workers", "starting");
        readiness.shutting_down();
        readiness.ready("workers");
        assert_eq!(readiness.verdict(), Verdict::ShuttingDown);
    }
}
