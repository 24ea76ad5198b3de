//! The stub resolver of a pod with `ndots:5`, by glibc's rules: each name of the search list is asked for A and AAAA at
//! once, and the next one when neither has data. Names of the bench have fewer than five dots, so the list comes first
//! and the name as it is last.

use crate::workload::{A, AAAA};

/// What is asked at each step.
pub(crate) const FAMILIES: [u16; 2] = [A, AAAA];
/// Names of a search list, the bare one among them.
pub(crate) const STEPS: usize = 4;

/// What an application in a pod looks up, and which families have addresses in the end.
pub(crate) struct Name {
    labels: Box<[u8]>,
    has: [bool; 2],
}

impl Name {
    pub(crate) fn new(text: &str, has: [bool; 2]) -> Self {
        Self { labels: wire(text).into(), has }
    }
}

/// The search list of a namespace.
pub(crate) struct Search([Vec<u8>; STEPS]);

impl Search {
    pub(crate) fn of(namespace: usize) -> Self {
        let own = format!("team-{namespace}.svc.cluster.local");
        Self([wire(&own), wire("svc.cluster.local"), wire("cluster.local"), Vec::new()])
    }
}

/// One lookup under way.
#[derive(Clone, Copy)]
pub(crate) struct Lookup<'a> {
    name: &'a Name,
    search: &'a Search,
    step: usize,
    open: [bool; 2],
    data: [bool; 2],
    right: bool,
}

/// What the stub does after a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Wait,
    /// Asks both families for the next name.
    Ask,
    /// The lookup is over, with the right result or a wrong one.
    Done {
        right: bool,
    },
}

impl<'a> Lookup<'a> {
    /// At its first name, with nothing asked yet.
    pub(crate) fn new(name: &'a Name, search: &'a Search) -> Self {
        Self { name, search, step: 0, open: [true; 2], data: [false; 2], right: true }
    }

    /// How long its queries are.
    pub(crate) fn query_length(&self) -> usize {
        12 + self.name.labels.len() + self.search.0[self.step].len() + 5
    }

    /// Writes the query for the current name to `out`, which has that length: RD set, no EDNS.
    pub(crate) fn write_query(&self, family: usize, id: u16, out: &mut [u8]) {
        let (header, question) = out.split_at_mut(12);
        header.copy_from_slice(&[0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        header[..2].copy_from_slice(&id.to_be_bytes());
        let (name, suffix) = (&self.name.labels, &self.search.0[self.step]);
        question[..name.len()].copy_from_slice(name);
        question[name.len()..name.len() + suffix.len()].copy_from_slice(suffix);
        let [high, low] = FAMILIES[family].to_be_bytes();
        question[name.len() + suffix.len()..].copy_from_slice(&[0, high, low, 0, 1]);
    }

    /// Takes the response for one family of the current name.
    pub(crate) fn hear(&mut self, family: usize, message: &[u8]) -> Next {
        if !self.open[family] {
            return Next::Wait;
        }
        self.open[family] = false;
        self.right &= self.is_response(family, message);
        self.data[family] = message.get(3).is_some_and(|flags| flags & 0x0f == 0) && message.get(6..8) != Some(&[0, 0]);
        if self.open != [false; 2] {
            return Next::Wait;
        }
        if self.data == [false; 2] && self.step + 1 < STEPS {
            self.step += 1;
            self.open = [true; 2];
            return Next::Ask;
        }
        Next::Done { right: self.right && self.data == self.name.has }
    }

    /// Whether it repeats the question and says yes or no.
    fn is_response(&self, family: usize, message: &[u8]) -> bool {
        let mut query = [0; 512];
        let query = &mut query[..self.query_length()];
        self.write_query(family, 0, query);
        let repeats = message.len() >= query.len() && message[12..query.len()] == query[12..];
        repeats && message[2] & 0x82 == 0x80 && matches!(message[3] & 0x0f, 0 | 3)
    }
}

/// The labels of a name without the root's.
fn wire(text: &str) -> Vec<u8> {
    let mut wire = Vec::with_capacity(text.len() + 1);
    for label in text.split('.') {
        wire.push(label.len() as u8);
        wire.extend_from_slice(label.as_bytes());
    }
    wire
}
