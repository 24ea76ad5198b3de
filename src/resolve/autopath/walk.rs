//! A walk whose answer has to be awaited.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::cache::Key;
use crate::dns::{Name, Query};
use crate::observe::Event;
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
    /// What is to be asked.
    asks: Vec<(About, Miss)>,
    /// When the last question was asked.
    asked_at: Instant,
}

/// Who has not answered for so long is silent, and not slow.
const SILENCE: Duration = Duration::from_secs(2);

impl Walk {
    pub(super) fn new(
        own: Miss,
        walker: Walker,
        first: First,
        domains: Arc<[Name]>,
        key: Option<Key>,
        asks: Vec<(About, Miss)>,
    ) -> Walk {
        let asked_at = own.asked().started;
        Walk { own, walker, first, domains, key, asks, asked_at }
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
            // Every upstream answers, but all together take too long: the stub has more time for each of them.
            Err(_) if self.is_denied() && deadline < self.asked_at + SILENCE => Ok(End::Plain(Event::PlainLate)),
            Err(_) => Err(miss::late()),
        }
    }

    /// Whether the first name is known not to exist.
    fn is_denied(&self) -> bool {
        self.walker.said(0).is_some_and(Said::is_denial)
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
        for mut behind in self.end(end, clock::now(), out) {
            if behind.board() {
                tokio::task::spawn_local(async move { behind.land().await });
            } else {
                behind.shed(&mut Vec::new());
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
                if !asks.is_empty() {
                    self.asked_at = now;
                }
                self.asks.extend(asks);
                None
            }
        }
    }

    /// Writes the reply at the end, and gives the questions that are worth asking behind it. Each of them has to be seen
    /// through, or shed.
    pub fn end(mut self, end: End, now: Instant, out: &mut Vec<u8>) -> Vec<Miss> {
        let mut behind = self.walker.lessons(end, now);
        behind.extend(self.walker.asker.renewals(now));
        let query = Query::parse(self.own.message()).expect("it was parsed before it was walked for");
        let conclusion = self.walker.conclude(end, &query, self.key.as_ref(), now);
        self.walker.count(end, &conclusion);
        let goes_on = match &conclusion {
            Ok(conclusion) => conclusion.goes_on,
            Err(_) => !self.walker.said_of_first().is_some_and(|said| said.has(self.walker.qtype)),
        };
        if goes_on {
            self.mark_later(now);
        }
        match (conclusion, self.walker.said_of_first().cloned()) {
            (Ok(conclusion), _) => self.own.finish(&conclusion.outcome, out),
            (Err(_), Some(said)) => self.first(said, now, out),
            (Err(_), None) => self.own.finish(&self.walker.plain(&query), out),
        }
        behind
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
                    for (about, mut miss) in asks.into_iter().chain(last) {
                        // At once: a task begins later, and what was not known then may have been asked and told meanwhile.
                        miss.board();
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

    /// The plain reply, as for any other query.
    fn first(mut self, said: Said, now: Instant, out: &mut Vec<u8>) {
        match said.what {
            What::Entry(entry) if said.stale => self.own.finish_landed(Landed::Stale(entry), out),
            What::Entry(entry) => self.own.finish_kept(&entry, now, out),
            What::Outcome(outcome) => self.own.finish(&outcome, out),
            What::Nothing => self.own.finish(&Outcome::aborted(), out),
        }
    }
}
