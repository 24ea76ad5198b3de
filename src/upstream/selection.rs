//! Which upstream is asked next and when, as a state machine without I/O: it is told what happened and what time it
//! is, and says what to do.
//!
//! The order of the servers is given. The first is asked at once; when its patience (from its measured round-trip
//! time) runs out the next one is asked as well, while earlier attempts stay open, because a late answer is as good
//! as an early one. After the last server the list is gone through once more, with longer patience. A server is
//! asked at most twice over one transport (RFC 9520 section 3.1 allows two repeats) and a question leaves at most
//! [`MAX_ATTEMPTS`] times, so a closed port or a persistent RCODE cannot make a loop.

mod attempt;
mod terms;

use std::time::{Duration, Instant};

use super::spec::MAX_UPSTREAMS;
use attempt::{Attempt, Server, SetAside};
pub(crate) use terms::{Candidate, Rules, Step, Via, Why};

/// The most times one question leaves this host.
pub(crate) const MAX_ATTEMPTS: usize = 6;
/// The most attempts at one server over one transport.
const PER_SERVER: u8 = 2;
/// The most attempts at a question nobody waits for.
const BACKGROUND_ATTEMPTS: usize = 2;
/// The least patience with such a question.
const BACKGROUND_PATIENCE: Duration = Duration::from_secs(1);
/// A server that failed outright is left alone for this long.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest wait before the next attempt, however often patience has doubled.
const MAX_PATIENCE: Duration = Duration::from_secs(2);
/// A server silent over UDP for this long is asked over TCP once: large answers may get lost (RFC 9715 section 3).
const SILENT_FOR: Duration = Duration::from_millis(1500);
/// Patience with a follow-up over TCP, which may need a new connection.
const FOLLOW_UP: Duration = Duration::from_millis(1500);

/// One exchange in progress.
#[derive(Debug)]
pub(crate) struct Selection {
    rules: Rules,
    servers: [Server; MAX_UPSTREAMS],
    server_count: usize,
    attempts: [Attempt; MAX_ATTEMPTS],
    used: usize,
    started: Instant,
    /// When the next attempt is due.
    due: Instant,
    follow_up: Option<(usize, Via, Why)>,
    set_aside: SetAside,
}

impl Selection {
    /// Starts an exchange with `candidates` in the order in which they are to be asked; those beyond
    /// [`MAX_UPSTREAMS`] are left out.
    pub(crate) fn new(candidates: &[Candidate], rules: Rules, now: Instant) -> Selection {
        let none = Candidate { member: 0, via: Via::Datagram, patience: Duration::ZERO, trial: false };
        let mut servers = [Server::new(none, now); MAX_UPSTREAMS];
        for (server, candidate) in servers.iter_mut().zip(candidates) {
            server.candidate = *candidate;
        }
        let unused = Attempt { open: false, ..Attempt::new(0, Via::Datagram, Why::First, Duration::ZERO, now) };
        Selection {
            rules,
            servers,
            server_count: candidates.len().min(MAX_UPSTREAMS),
            attempts: [unused; MAX_ATTEMPTS],
            used: 0,
            started: now,
            due: now,
            follow_up: None,
            set_aside: SetAside::Nothing,
        }
    }

    /// What to do at `now`. `Send` counts as done, unless it is answered with [`Selection::withhold`],
    /// [`Selection::end`] or [`Selection::pass_by`]; report with [`Selection::failed`] if it could not be done.
    pub(crate) fn step(&mut self, now: Instant) -> Step {
        if now >= self.rules.deadline {
            return Step::Finish;
        }
        if let Some(attempt) = self.overdue(now) {
            self.close(attempt, now);
            return Step::GiveUp(attempt);
        }
        let late = self.attempts().position(|attempt| !attempt.late && attempt.is_silent(now));
        if let Some(attempt) = late {
            self.attempts[attempt].late = true;
            return Step::Late(attempt);
        }
        if let Some((server, via, why)) = self.follow_up.take()
            && now < self.rules.budget
        {
            return self.send(server, via, why, now);
        }
        let next = self.turn(now);
        match next {
            Some((server, via, why, due)) if due <= now => self.send(server, via, why, now),
            None if !self.attempts().any(|attempt| attempt.open) => Step::Finish,
            None if !self.waits_to_the_end() && self.due <= now => Step::Finish,
            _ => Step::Wait(self.wake(next.map(|(.., due)| due))),
        }
    }

    /// The attempt failed outright: refused, unreachable, closed, not sent.
    pub(crate) fn failed(&mut self, attempt: usize, now: Instant) {
        self.servers[self.attempts[attempt].server].not_before = now + PAUSE;
        self.close(attempt, now);
    }

    /// Somebody has begun to wait for the answer: what is left is done in the usual haste.
    pub(crate) fn awaited(&mut self) {
        self.rules.background = false;
        let Some(last) = self.attempts[..self.used].last_mut() else { return };
        if matches!(last.why, Why::First | Why::Again) {
            last.patience = last.patience.min(self.servers[last.server].candidate.patience);
            self.due = self.due.min(last.sent + last.patience);
        }
    }

    /// What [`Step::Send`] asked for was not done, to spare the upstreams. It is put off, each time for longer, where
    /// somebody is left who was not asked yet or may still answer; where nobody is, this is the end.
    pub(crate) fn withhold(&mut self, attempt: usize, now: Instant) {
        let Attempt { why, patience, .. } = self.attempts[attempt];
        self.take_back(attempt);
        if why == Why::First || self.attempts().any(|other| other.open && !other.spoiled) {
            self.due = now + patience.max(now.saturating_duration_since(self.started));
        } else {
            self.rules.attempts = 0;
        }
    }

    /// What [`Step::Send`] asked for was not done, and nothing more is to be sent: only what is open is waited for.
    pub(crate) fn end(&mut self, attempt: usize) {
        self.take_back(attempt);
        self.rules.attempts = 0;
    }

    /// What [`Step::Send`] asked for was not done, because that server is down: it is not asked again.
    pub(crate) fn pass_by(&mut self, attempt: usize, now: Instant) {
        self.servers[self.attempts[attempt].server].passed_by = true;
        self.take_back(attempt);
        self.due = now;
    }

    /// The attempt brought a response that somebody else may better; the caller keeps the response.
    pub(crate) fn set_aside(&mut self, attempt: usize, now: Instant) {
        self.attempts[attempt].open = false;
        self.servers[self.attempts[attempt].server].answered = true;
        if self.set_aside != SetAside::Truncated {
            self.set_aside = SetAside::Rcode;
        }
        if self.turn(now).is_some() {
            self.due = now;
        }
    }

    /// The attempt brought a truncated response. Whether the question goes over TCP or is on its way there; if not,
    /// that response is the best there is.
    pub(crate) fn truncated(&mut self, attempt: usize, now: Instant) -> bool {
        let server = self.attempts[attempt].server;
        self.attempts[attempt].open = false;
        self.servers[server].truncated = true;
        let whole_is_asked_for = self.set_aside == SetAside::Truncated;
        self.set_aside = SetAside::Truncated;
        let coming =
            |other: &Attempt| other.open && other.via == Via::Stream && (whole_is_asked_for || other.server == server);
        if self.follow_up.is_some() || self.attempts().any(coming) {
            return true;
        }
        if self.used < MAX_ATTEMPTS && now < self.rules.budget && !self.went_over_stream(server) {
            self.follow_up = Some((server, Via::Stream, Why::Truncated));
            return true;
        }
        self.turn(now).is_some()
    }

    /// The attempt brought word that the server does not know EDNS. Whether to wait for an attempt without, which is then
    /// made once, at once and over the same transport; if not, that word is the best there is.
    pub(crate) fn rejects_edns(&mut self, attempt: usize, now: Instant) -> bool {
        let Attempt { server, via, .. } = self.attempts[attempt];
        self.attempts[attempt].open = false;
        let half_is_here = self.set_aside == SetAside::Truncated;
        if self.servers[server].classic || (half_is_here && via == Via::Datagram) {
            return true;
        }
        if self.used == MAX_ATTEMPTS || now >= self.rules.budget {
            return half_is_here;
        }
        self.servers[server].classic = true;
        if self.set_aside == SetAside::Nothing {
            self.set_aside = SetAside::Rejection;
        }
        self.follow_up = Some((server, via, Why::WithoutEdns));
        true
    }

    /// Whether the server of an attempt has said that it does not know EDNS.
    pub(crate) fn is_classic(&self, attempt: usize) -> bool {
        self.servers[self.attempts[attempt].server].classic
    }

    /// The attempt brought an answer that cannot be read. A better one may follow, so it stays open.
    pub(crate) fn spoiled(&mut self, attempt: usize) {
        self.attempts[attempt].spoiled = true;
    }

    /// Too many wrong messages came over UDP: from here on this exchange goes over TCP (RFC 5452 section 9.3).
    pub(crate) fn forged(&mut self, attempt: usize) {
        for attempt in &mut self.attempts {
            attempt.open &= attempt.via == Via::Stream;
        }
        for (index, server) in self.servers.iter_mut().enumerate() {
            if server.candidate.via == Via::Datagram {
                let streams = |attempt: &&Attempt| attempt.server == index && attempt.via == Via::Stream;
                server.tries = self.attempts[..self.used].iter().filter(streams).count() as u8;
                server.candidate.via = Via::Stream;
                server.candidate.patience = FOLLOW_UP;
            }
        }
        let followed_up = self.attempts().any(|attempt| matches!(attempt.why, Why::Truncated | Why::Forged));
        if self.used < MAX_ATTEMPTS && !followed_up {
            self.follow_up = Some((self.attempts[attempt].server, Via::Stream, Why::Forged));
        }
    }

    /// Whether an answer to this attempt is still wanted.
    pub(crate) fn is_open(&self, attempt: usize) -> bool {
        self.attempts[attempt].open
    }

    /// Whether an attempt brought an answer that cannot be read.
    pub(crate) fn is_spoiled(&self, attempt: usize) -> bool {
        self.attempts[attempt].spoiled
    }

    /// The member an attempt went to.
    pub(crate) fn member(&self, attempt: usize) -> u8 {
        self.servers[self.attempts[attempt].server].candidate.member
    }

    /// Whether an attempt goes to a server that is on trial.
    pub(crate) fn is_trial(&self, attempt: usize) -> bool {
        self.servers[self.attempts[attempt].server].candidate.trial
    }

    /// Whether [`Step::Late`] was said of an attempt.
    pub(crate) fn was_late(&self, attempt: usize) -> bool {
        self.attempts[attempt].late
    }

    /// When an attempt was made.
    pub(crate) fn sent(&self, attempt: usize) -> Instant {
        self.attempts[attempt].sent
    }

    /// How many attempts were made.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Whether nothing has come from this attempt although patience with it has run out.
    pub(crate) fn is_silent(&self, attempt: usize, now: Instant) -> bool {
        self.attempts[attempt].is_silent(now)
    }

    fn overdue(&self, now: Instant) -> Option<usize> {
        let limit = self.rules.read_timeout?;
        self.attempts().position(|attempt| attempt.open && attempt.sent + limit <= now)
    }

    /// Ends an attempt that brought nothing, and goes on at once where somebody is left who was not asked yet or
    /// nobody is left to wait for.
    fn close(&mut self, attempt: usize, now: Instant) {
        self.attempts[attempt].open = false;
        let untried = match self.set_aside {
            SetAside::Truncated => self.candidate().is_some(),
            _ => self.servers().any(|server| server.tries == 0 && server.may_be_asked()),
        };
        if untried || !self.attempts().any(|attempt| attempt.open) {
            self.due = now;
        }
    }

    /// As if the last attempt had not been thought of.
    fn take_back(&mut self, attempt: usize) {
        debug_assert_eq!(attempt + 1, self.used, "only what was just asked for can be left undone");
        let Attempt { server, via, .. } = self.attempts[attempt];
        self.attempts[attempt].open = false;
        self.used = attempt;
        if self.servers[server].candidate.via == via {
            self.servers[server].tries -= 1;
        }
    }

    /// Whose turn it is next, over what, why, and when, while there is budget.
    fn turn(&self, now: Instant) -> Option<(usize, Via, Why, Instant)> {
        let end = match self.set_aside {
            SetAside::Truncated => self.rules.complete_by.min(self.rules.budget),
            _ => self.rules.budget,
        };
        self.candidate().filter(|(.., due)| (*due).max(now) < end)
    }

    fn candidate(&self) -> Option<(usize, Via, Why, Instant)> {
        let most = if self.rules.background { BACKGROUND_ATTEMPTS } else { MAX_ATTEMPTS };
        if self.used >= self.rules.attempts.min(most) {
            return None;
        }
        if self.set_aside == SetAside::Truncated {
            return self.completion();
        }
        // With a response in hand each remaining server gets one chance to give a better one.
        let limit = if self.set_aside == SetAside::Rcode { 1 } else { PER_SERVER };
        let turn = (0..self.server_count)
            .filter(|index| self.servers[*index].tries < limit && self.servers[*index].may_be_asked())
            .min_by_key(|index| (self.servers[*index].tries, *index));
        if let Some(index) = turn {
            let server = &self.servers[index];
            let why = if server.tries == 0 { Why::First } else { Why::Again };
            return Some((index, server.candidate.via, why, self.due.max(server.not_before)));
        }
        let tried = |attempt: &Attempt| matches!(attempt.why, Why::Silent | Why::Truncated | Why::Forged);
        if self.set_aside != SetAside::Nothing || self.attempts().any(tried) {
            return None;
        }
        let is_silent = |attempt: &&Attempt| {
            let left_out = attempt.spoiled || self.servers[attempt.server].passed_by;
            attempt.open && attempt.via == Via::Datagram && !left_out
        };
        let silent = self.attempts().find(is_silent)?;
        Some((silent.server, Via::Stream, Why::Silent, self.due.max(self.started + SILENT_FOR)))
    }

    /// With a truncated answer in hand: who is asked for the whole one after the server that it came from. Over a
    /// stream, because what was too long for one datagram is so for another; those first that are not known to be silent.
    fn completion(&self) -> Option<(usize, Via, Why, Instant)> {
        let index = (0..self.server_count)
            .filter(|index| self.servers[*index].may_be_asked() && !self.went_over_stream(*index))
            .min_by_key(|index| (self.servers[*index].tries != 0 && !self.servers[*index].truncated, *index))?;
        let server = &self.servers[index];
        let why = if server.candidate.via == Via::Stream { Why::First } else { Why::Truncated };
        Some((index, Via::Stream, why, self.due.max(server.not_before)))
    }

    fn went_over_stream(&self, server: usize) -> bool {
        self.attempts().any(|attempt| attempt.server == server && attempt.via == Via::Stream)
    }

    fn send(&mut self, server: usize, via: Via, why: Why, now: Instant) -> Step {
        let chosen = &mut self.servers[server];
        let patience = match why {
            Why::First | Why::Again => (chosen.candidate.patience * (1 << chosen.tries)).min(MAX_PATIENCE),
            Why::WithoutEdns if via == chosen.candidate.via => chosen.candidate.patience,
            Why::Truncated | Why::Forged | Why::Silent | Why::WithoutEdns => FOLLOW_UP,
        };
        let least = if self.rules.background { BACKGROUND_PATIENCE } else { Duration::ZERO };
        let patience = patience.max(least);
        if chosen.candidate.via == via {
            chosen.tries += 1;
        }
        let attempt = self.used;
        self.attempts[attempt] = Attempt::new(server, via, why, patience, now);
        self.used += 1;
        // A rejection comes at once, an answer may take its time.
        let last = why == Why::WithoutEdns && self.candidate().is_none();
        self.due = now + if last { FOLLOW_UP } else { patience };
        Step::Send { attempt, member: self.servers[server].candidate.member, via, why }
    }

    /// Whether all the time there is goes into waiting for open attempts. With a response set aside, or with every open
    /// attempt spoiled, patience with the last one is enough.
    fn waits_to_the_end(&self) -> bool {
        self.set_aside == SetAside::Nothing && self.attempts().any(|attempt| attempt.open && !attempt.spoiled)
    }

    /// When there is something to do again: the next attempt, the end of patience with one, the end of the wait for
    /// something better than the response set aside, `read_timeout` of an attempt, or the deadline.
    fn wake(&self, next: Option<Instant>) -> Instant {
        let waiting = if self.waits_to_the_end() { None } else { Some(self.due) };
        let given_up = self
            .rules
            .read_timeout
            .and_then(|limit| self.attempts().filter(|attempt| attempt.open).map(|attempt| attempt.sent + limit).min());
        let late = self.attempts().filter_map(Attempt::until_late).min();
        [next.or(waiting), given_up, late].into_iter().flatten().fold(self.rules.deadline, Instant::min)
    }

    fn servers(&self) -> impl Iterator<Item = &Server> {
        self.servers[..self.server_count].iter()
    }

    fn attempts(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts[..self.used].iter()
    }
}

#[cfg(test)]
mod tests;
