//! What is known of a walk when it is over, for who wants to see it.

use crate::dns::Rcode;
use crate::observe::Event;

use super::namespace::Standing;
use super::step::Step;
use super::walker::Walker;

/// What is known of a walk.
#[derive(Debug)]
pub struct Told {
    /// The candidates in order.
    pub names: Vec<Name>,
    /// The namespace, and whether there is one, where that had to be known.
    pub namespace: Option<(Box<[u8]>, Option<bool>)>,
}

/// What is known of one candidate.
#[derive(Debug)]
pub struct Name {
    /// Lower-case wire form; empty where it would be too long.
    pub name: Box<[u8]>,
    /// How it is known: one of the events of steps; nothing where nobody had to know.
    pub by: Option<Event>,
    /// The name just below its suffix, where that was asked for.
    pub top: Option<Box<[u8]>>,
    /// A cluster could have such a name.
    pub possible: bool,
    /// Its denial is that of a name above.
    pub cut: bool,
    /// The RCODE, and whether it has what is asked for.
    pub said: Option<(Rcode, bool)>,
}

impl Walker {
    /// What is known by now.
    pub(super) fn tell(&self) -> Told {
        let name = |step: &Step| Name {
            name: step.candidate.name.clone(),
            by: step.by,
            top: step.candidate.top.clone().filter(|_| step.top_asked),
            possible: step.candidate.possible,
            cut: step.cut,
            said: step.said().map(|said| (said.rcode(), said.has(self.qtype))),
        };
        let namespace = self.namespace.as_ref().and_then(|namespace| {
            let exists = match namespace.state {
                Standing::Open => return None,
                Standing::Asking => None,
                Standing::Exists => Some(true),
                Standing::Missing => Some(false),
            };
            Some((namespace.name.clone(), exists))
        });
        Told { names: self.steps.iter().map(name).collect(), namespace }
    }
}
