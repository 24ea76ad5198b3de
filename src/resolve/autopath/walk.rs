//! A walk whose answer has to be awaited.

use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinSet;

use crate::cache::Key;
use crate::dns::{Name, Query};
use crate::resolve::asked::Asked;
use crate::resolve::miss::{self, Landed, Miss};
use crate::resolve::outcome::Outcome;
use crate::sys::clock;

use super::list::First;
use super::said::{Said, What};
use super::told::Told;
use super::walker::{About, End, Next, Walker};

/// A query for the first name of a search list whose answer has to be awaited.
pub struct Walk {
    /// The query as one for its own name: it has the message, and writes the reply.
    own: Miss,
    walker: Walker,
    first: First,
    /// The domains of the list that the question does not name.
    domains: Arc<[Name]>,
    /// Under which key the result is kept.
    key: Option<Key>,
    /// What is to be asked to begin with.
    asks: Vec<(About, Miss)>,
}

impl Walk {
    pub(super) fn new(
        own: Miss,
        walker: Walker,
        first: First,
        domains: Arc<[Name]>,
        key: Option<Key>,
        asks: Vec<(About, Miss)>,
    ) -> Walk {
        Walk { own, walker, first, domains, key, asks }
    }

    /// What the client asks.
    pub fn asked(&self) -> &Asked {
        self.own.asked()
    }

    /// Takes places among those who wait for all that is asked to begin with; see [`Miss::board`].
    pub fn board(&mut self) -> bool {
        self.asks.iter_mut().all(|(_, miss)| miss.board())
    }

    /// Writes the reply for a query that there is no room to wait for.
    pub fn shed(self, out: &mut Vec<u8>) {
        self.mark_later(clock::now());
        self.own.shed(out);
    }

    /// Walks to the end and writes the reply, a whole message, into `out`.
    pub async fn resolve(mut self, out: &mut Vec<u8>) {
        let ended = self.ended().await;
        self.leave(ended, out);
    }

    /// The same, and tells what is known of each name.
    pub async fn resolve_and_tell(mut self, out: &mut Vec<u8>) -> Told {
        let ended = self.ended().await;
        let told = self.walker.tell();
        self.leave(ended, out);
        told
    }

    /// Walks to the end, or to what to say in its place.
    async fn ended(&mut self) -> Result<End, Outcome> {
        let deadline = self.asked().deadline;
        match tokio::time::timeout_at(deadline.into(), self.walk()).await {
            Ok(Some(end)) => Ok(end),
            Ok(None) => Err(Outcome::aborted()),
            Err(_) => Err(miss::late()),
        }
    }

    fn leave(self, ended: Result<End, Outcome>, out: &mut Vec<u8>) {
        out.clear();
        let end = match ended {
            Ok(end) => end,
            Err(outcome) => {
                self.mark_later(clock::now());
                return self.own.finish(&outcome, out);
            }
        };
        for mut lesson in self.end(end, clock::now(), out) {
            if lesson.board() {
                tokio::task::spawn_local(async move { lesson.land().await });
            }
        }
    }

    /// What is to be asked next, each question once.
    pub fn questions(&mut self) -> Vec<(About, Miss)> {
        std::mem::take(&mut self.asks)
    }

    /// Takes in what came of a question. The end, when that is known; else there may be more questions.
    pub fn on(&mut self, about: About, landed: Landed, now: Instant) -> Option<End> {
        self.walker.told(about, landed, now);
        match self.walker.next(now) {
            Next::Done(end) => Some(end),
            Next::Ask(asks) => {
                self.asks.extend(asks);
                None
            }
        }
    }

    /// Writes the reply at the end, and gives the questions that are worth asking although nobody waits.
    pub fn end(self, end: End, now: Instant, out: &mut Vec<u8>) -> Vec<Miss> {
        if let (End::First, Some(said)) = (end, self.walker.said_of_first()) {
            self.walker.count_first();
            if !said.has(self.walker.qtype) {
                self.mark_later(now);
            }
            self.first(said, out);
            return Vec::new();
        }
        let query = Query::parse(self.own.message()).expect("it was parsed before it was walked for");
        let conclusion = self.walker.conclude(end, &query, self.key.as_ref(), self.asked().route, now);
        self.walker.count(end, &conclusion);
        if conclusion.goes_on {
            self.mark_later(now);
        }
        self.own.finish(&conclusion.outcome, out);
        self.walker.lessons(end, now)
    }

    /// Asks until the end is known; `None` where a task ended without having been told.
    async fn walk(&mut self) -> Option<End> {
        let mut running = JoinSet::new();
        loop {
            let mut asks = self.questions();
            let (about, landed) = match asks.pop() {
                // Most often one question decides, and needs no task of its own.
                Some((about, miss)) if asks.is_empty() && running.is_empty() => (about, miss.land().await),
                last => {
                    for (about, miss) in asks.into_iter().chain(last) {
                        running.spawn_local(async move { (about, miss.land().await) });
                    }
                    running.join_next().await?.ok()?
                }
            };
            if let Some(end) = self.on(about, landed, clock::now()) {
                return Some(end);
            }
        }
    }

    /// The client was not told of an address, and will go on with its list by itself.
    fn mark_later(&self, now: Instant) {
        let (asked, asker) = (self.own.asked(), &self.walker.asker);
        asker.mark_later(&self.first, &asked.name, &self.domains, asked.qtype, now);
    }

    /// The first name has the answer: the query is one like any other.
    fn first(mut self, said: Said, out: &mut Vec<u8>) {
        match said.what {
            What::Entry(entry) if said.stale => self.own.finish_landed(Landed::Stale(entry), out),
            What::Entry(entry) => self.own.finish(&Outcome::Kept(entry), out),
            What::Outcome(outcome) => self.own.finish(&outcome, out),
            What::Nothing => self.own.finish(&Outcome::aborted(), out),
        }
    }
}
