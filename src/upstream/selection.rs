//! Which upstream is asked next and when, as a state machine without I/O: it is told what happened and what time it
//! is, and says what to do.
//!
//! The order of the servers is given. The first is asked at once; when its patience (from its measured round-trip
//! time) runs out the next one is asked as well, while earlier attempts stay open, because a late answer is as good
//! as an early one. After the last server the list is gone through once more, with longer patience. A server is
//! asked at most twice over one transport (RFC 9520 section 3.1 allows two repeats) and a question leaves at most
//! [`MAX_ATTEMPTS`] times, so a closed port or a persistent RCODE cannot make a loop.

mod attempt;

use std::time::{Duration, Instant};

use super::spec::MAX_UPSTREAMS;
use attempt::{Attempt, Server, SetAside};

/// The most times one question leaves this host.
pub(crate) const MAX_ATTEMPTS: usize = 6;
/// The most attempts at one server over one transport.
const PER_SERVER: u8 = 2;
/// A server that failed outright is left alone for this long.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest wait before the next attempt, however often patience has doubled.
const MAX_PATIENCE: Duration = Duration::from_secs(2);
/// A server silent over UDP for this long is asked over TCP once: large answers may get lost (RFC 9715 section 3).
const SILENT_FOR: Duration = Duration::from_millis(1500);
/// Patience with a follow-up over TCP, which may need a new connection.
const FOLLOW_UP: Duration = Duration::from_millis(1500);

/// Over what an attempt goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// UDP.
    Datagram,
    /// TCP or TLS.
    Stream,
}

/// A server that may be asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    /// Its index among the members of the pool.
    pub(crate) member: u8,
    /// Over what it is asked.
    pub(crate) via: Via,
    /// How long to wait for it before the next one is asked as well.
    pub(crate) patience: Duration,
    /// It answers nearly everything with SERVFAIL and is asked to see whether that is over.
    pub(crate) trial: bool,
}

/// The limits of one exchange.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// The most attempts, follow-ups not counted.
    pub(crate) attempts: usize,
    /// An attempt is given up after this long.
    pub(crate) read_timeout: Option<Duration>,
    /// Nothing is sent from here on; what is open is waited for.
    pub(crate) budget: Instant,
    /// When the whole exchange ends.
    pub(crate) deadline: Instant,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask this member now; the attempt has this number from now on.
    Send {
        /// Number of the attempt, counting from 0.
        attempt: usize,
        /// Index of the member.
        member: u8,
        /// Over what.
        via: Via,
        /// What led to it.
        why: Why,
    },
    /// Patience with this attempt has run out. It stays open; said once.
    Late(usize),
    /// `read_timeout` has ended this attempt.
    GiveUp(usize),
    /// Nothing to do before this time unless an attempt brings something.
    Wait(Instant),
    /// There is nothing left to wait for.
    Finish,
}

/// Why an attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// It is this server's turn for the first time.
    First,
    /// It is this server's turn again.
    Again,
    /// Its UDP answer was truncated.
    Truncated,
    /// Too many wrong messages came over UDP.
    Forged,
    /// UDP brought nothing.
    Silent,
    /// It does not know EDNS.
    WithoutEdns,
}

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
    followed_up: bool,
    silence_tried: bool,
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
        let unused = Attempt { open: false, ..Attempt::new(0, Via::Datagram, Duration::ZERO, now) };
        Selection {
            rules,
            servers,
            server_count: candidates.len().min(MAX_UPSTREAMS),
            attempts: [unused; MAX_ATTEMPTS],
            used: 0,
            started: now,
            due: now,
            follow_up: None,
            followed_up: false,
            silence_tried: false,
            set_aside: SetAside::Nothing,
        }
    }

    /// What to do at `now`. `Send` counts as done: report with [`Selection::failed`] if it could not be.
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

    /// What [`Step::Send`] asked for was not done, to spare the upstreams: only what is open is waited for.
    pub(crate) fn withhold(&mut self, attempt: usize) {
        self.attempts[attempt].open = false;
        self.rules.attempts = 0;
    }

    /// What [`Step::Send`] asked for was not done, because that server is down: it is not asked again.
    pub(crate) fn pass_by(&mut self, attempt: usize, now: Instant) {
        self.attempts[attempt].open = false;
        self.servers[self.attempts[attempt].server].tries = PER_SERVER;
        self.due = now;
    }

    /// The attempt brought a response whose RCODE moves on to the next server; the caller keeps the response.
    pub(crate) fn set_aside(&mut self, attempt: usize, now: Instant) {
        self.attempts[attempt].open = false;
        self.servers[self.attempts[attempt].server].answered = true;
        self.set_aside = SetAside::Rcode;
        if self.turn(now).is_some() {
            self.due = now;
        }
    }

    /// The attempt brought a truncated response. Whether the question now goes over TCP; if not, that response is
    /// the best there is.
    pub(crate) fn truncated(&mut self, attempt: usize, now: Instant) -> bool {
        self.attempts[attempt].open = false;
        if self.followed_up || self.used == MAX_ATTEMPTS || now >= self.rules.budget {
            return false;
        }
        self.set_aside = SetAside::Truncated;
        self.follow_up(self.attempts[attempt].server, Why::Truncated);
        true
    }

    /// The attempt brought word that the server does not know EDNS. Whether to wait for an attempt without, which is then
    /// made once, at once and over the same transport; if not, that word is the best there is.
    pub(crate) fn rejects_edns(&mut self, attempt: usize, now: Instant) -> bool {
        let Attempt { server, via, .. } = self.attempts[attempt];
        self.attempts[attempt].open = false;
        if self.servers[server].classic || self.set_aside == SetAside::Truncated {
            return true;
        }
        if self.used == MAX_ATTEMPTS || now >= self.rules.budget {
            return false;
        }
        self.servers[server].classic = true;
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
        if self.used < MAX_ATTEMPTS && !self.followed_up {
            self.follow_up(self.attempts[attempt].server, Why::Forged);
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
        let untried = self.servers().any(|server| server.tries == 0);
        if untried || !self.attempts().any(|attempt| attempt.open) {
            self.due = now;
        }
    }

    fn follow_up(&mut self, server: usize, why: Why) {
        self.followed_up = true;
        self.follow_up = Some((server, Via::Stream, why));
    }

    /// Whose turn it is next, over what, why, and when, while there is budget.
    fn turn(&self, now: Instant) -> Option<(usize, Via, Why, Instant)> {
        self.candidate().filter(|(.., due)| (*due).max(now) < self.rules.budget)
    }

    fn candidate(&self) -> Option<(usize, Via, Why, Instant)> {
        if self.used >= self.rules.attempts.min(MAX_ATTEMPTS) || self.set_aside == SetAside::Truncated {
            return None;
        }
        // With a response in hand each remaining server gets one chance to give a better one.
        let limit = if self.set_aside == SetAside::Rcode { 1 } else { PER_SERVER };
        let turn = (0..self.server_count)
            .filter(|index| self.servers[*index].tries < limit && !self.servers[*index].answered)
            .min_by_key(|index| (self.servers[*index].tries, *index));
        if let Some(index) = turn {
            let server = &self.servers[index];
            let why = if server.tries == 0 { Why::First } else { Why::Again };
            return Some((index, server.candidate.via, why, self.due.max(server.not_before)));
        }
        if self.silence_tried || self.followed_up || self.set_aside != SetAside::Nothing {
            return None;
        }
        let silent =
            self.attempts().find(|attempt| attempt.open && !attempt.spoiled && attempt.via == Via::Datagram)?;
        Some((silent.server, Via::Stream, Why::Silent, self.due.max(self.started + SILENT_FOR)))
    }

    fn send(&mut self, server: usize, via: Via, why: Why, now: Instant) -> Step {
        let chosen = &mut self.servers[server];
        let patience = match why {
            Why::First | Why::Again => (chosen.candidate.patience * (1 << chosen.tries)).min(MAX_PATIENCE),
            Why::WithoutEdns => chosen.candidate.patience,
            Why::Truncated | Why::Forged | Why::Silent => FOLLOW_UP,
        };
        if chosen.candidate.via == via {
            chosen.tries += 1;
        }
        self.silence_tried |= why == Why::Silent;
        let attempt = self.used;
        self.attempts[attempt] = Attempt::new(server, via, patience, now);
        self.used += 1;
        self.due = now + patience;
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
