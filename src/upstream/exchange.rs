//! One question on its way through a pool: performs what the selection says, waits on all open attempts at once, and
//! tells upstreams' health, round-trip time and counts what it saw.

use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::{Sleep, sleep_until};

use super::Upstream;
use super::edns;
use super::failure::{Failure, Leg, Network, Stage};
use super::pool::{Ask, Exchanged, Place, Pool};
use super::selection::{MAX_ATTEMPTS, Selection, Step, Via, Why};
use super::tally::Fallback;
use super::transport::{Attempt, Event};
use crate::dns::{Protocol, Rcode, header};
use crate::sys::clock;

/// One question on its way through a pool, with everything that was sent for it and not answered yet.
pub struct Exchange<'a> {
    pool: &'a Pool,
    members: Arc<Vec<Arc<Upstream>>>,
    ask: Ask<'a>,
    started: Instant,
    selection: Selection,
    attempts: [Option<Attempt>; MAX_ATTEMPTS],
    /// Whether each attempt was made without EDNS.
    classic: [bool; MAX_ATTEMPTS],
    /// Messages that were not the answer, over all attempts.
    wrong: u32,
    /// A response to return if nothing better comes, and the attempt it came from.
    kept: Option<(usize, Vec<u8>)>,
    last: Option<Failure>,
    /// Whether somebody is known to wait for the answer.
    awaited: bool,
    /// A further try had to wait for others.
    held_back: bool,
    /// The attempt over TCP that was made because UDP brought nothing.
    after_silence: Option<usize>,
    /// A single packet to see whether an upstream is still down.
    probe: bool,
    /// Until it lingers.
    place: Option<Place<'a>>,
}

impl<'a> Exchange<'a> {
    pub(crate) fn new(
        pool: &'a Pool,
        members: Arc<Vec<Arc<Upstream>>>,
        ask: Ask<'a>,
        (selection, probe): (Selection, bool),
        started: Instant,
        place: Place<'a>,
    ) -> Exchange<'a> {
        let attempts = Default::default();
        Exchange {
            pool,
            members,
            ask,
            started,
            selection,
            attempts,
            classic: [false; MAX_ATTEMPTS],
            wrong: 0,
            kept: None,
            last: None,
            awaited: ask.is_awaited(),
            held_back: false,
            after_silence: None,
            probe,
            place: Some(place),
        }
    }

    /// Asks until there is a response, nobody is left to ask, or the budget is spent. Runs once. Borrowed, because a
    /// future that owned the exchange would hold it twice.
    pub async fn run(&mut self) -> Result<Exchanged, Failure> {
        let answer = self.wait(self.started, self.ask.budget).await;
        let now = clock::now();
        match answer {
            Some((attempt, wire)) => Ok(self.answer(attempt, wire, now)),
            None => self.end(now),
        }
    }

    /// Whether an answer may still come, after [`Exchange::run`] has failed.
    pub fn is_open(&self) -> bool {
        let waits = |attempt| self.selection.is_open(attempt) && !self.selection.is_spoiled(attempt);
        (0..self.selection.used()).any(waits)
    }

    /// Waits on, until the deadline, for an answer that is only late. Nothing is sent.
    pub async fn linger(&mut self) -> Option<Vec<u8>> {
        // It costs its upstream nothing any more, so it does not stand in the way of others.
        self.place = None;
        self.wait(clock::now(), self.ask.deadline).await.map(|(_, wire)| wire)
    }

    /// Performs what the selection says until there is an answer; `None` when none will come, or none has by `limit`.
    async fn wait(&mut self, mut now: Instant, limit: Instant) -> Option<(usize, Vec<u8>)> {
        let mut alarm = pin!(sleep_until(limit.into()));
        while now < limit {
            if !self.awaited && self.ask.is_awaited() {
                self.awaited = true;
                self.selection.awaited();
            }
            match self.selection.step(now) {
                Step::Send { attempt, member, .. } if attempt != 0 && self.is_down(member) => {
                    self.selection.pass_by(attempt, now);
                }
                Step::Send { attempt, member, via, why } => match self.permit(attempt, why, now) {
                    Permit::Granted => self.send(attempt, member, via, why, now),
                    Permit::Later => self.selection.withhold(attempt, now),
                    Permit::Denied => self.selection.end(attempt),
                },
                Step::Late(attempt) => self.pool.check().lost(self.upstream(attempt)),
                Step::GiveUp(attempt) => self.give_up(attempt),
                Step::Finish => return None,
                Step::Wait(until) => {
                    let until = until.min(limit);
                    if alarm.deadline().into_std() != until {
                        alarm.as_mut().reset(until.into());
                    }
                    let event = poll_fn(|cx| self.poll(cx, alarm.as_mut())).await;
                    now = clock::now();
                    if let Some((attempt, event)) = event
                        && let Some(wire) = self.take(attempt, event, now)
                    {
                        return Some((attempt, wire));
                    }
                }
            }
        }
        None
    }

    /// Whether the upstream went down while this exchange was under way.
    fn is_down(&self, member: u8) -> bool {
        self.pool.check().is_down(&self.members[usize::from(member)])
    }

    /// Whether the attempt may be made: what all exchanges send together is bounded.
    fn permit(&mut self, attempt: usize, why: Why, now: Instant) -> Permit {
        let upstreams = self.pool.upstreams();
        let (budget, background) = (upstreams.budget(), !self.awaited);
        // What a response leads to, TCP after TC=1 or the next server of `failover`, is no repetition.
        let affordable = match why {
            _ if attempt == 0 || self.kept.is_some() => true,
            Why::First => budget.elsewhere(background, now),
            Why::Again | Why::Silent => budget.again(background, now),
            Why::Truncated | Why::Forged | Why::WithoutEdns => true,
        };
        if !affordable {
            if !self.held_back {
                upstreams.totals().refuse_retry();
            }
            self.held_back = true;
            return Permit::Later;
        }
        if !budget.packet(background, now) {
            budget.pace();
            self.last.get_or_insert(Failure::Paced);
            return Permit::Denied;
        }
        if attempt == 0 {
            budget.first(now);
        }
        Permit::Granted
    }

    fn send(&mut self, attempt: usize, member: u8, via: Via, why: Why, now: Instant) {
        let upstream = &self.members[usize::from(member)];
        match why {
            Why::First => {}
            Why::Again => upstream.tally().retry(),
            Why::Truncated => upstream.tally().fallback(Fallback::Truncated),
            Why::Forged => upstream.tally().fallback(Fallback::Mismatches),
            Why::Silent => {
                upstream.tally().fallback(Fallback::Silence);
                self.after_silence = Some(attempt);
            }
            Why::WithoutEdns => upstream.tally().without_edns(),
        }
        if why == Why::Again && via == Via::Stream {
            for earlier in self.attempts[..attempt].iter().flatten() {
                if let Attempt::Stream(question) = earlier {
                    upstream.streams().distrust(question);
                }
            }
        }
        let classic = self.selection.is_classic(attempt) || upstream.edns().is_set(now);
        self.classic[attempt] = classic;
        let query = if classic { Cow::Owned(edns::without_opt(self.ask.query)) } else { Cow::Borrowed(self.ask.query) };
        match upstream.attempt(&query, via, self.pool.keeping(), why != Why::Again && !self.probe) {
            Ok(question) => {
                upstream.tally().query();
                self.attempts[attempt] = Some(question);
            }
            Err(failure) => self.failed(attempt, failure, now),
        }
    }

    /// Waits for any open attempt, or for the alarm.
    fn poll(&mut self, cx: &mut Context<'_>, alarm: Pin<&mut Sleep>) -> Poll<Option<(usize, Event)>> {
        for (index, slot) in self.attempts[..self.selection.used()].iter_mut().enumerate() {
            let Some(attempt) = slot.as_mut().filter(|_| self.selection.is_open(index)) else { continue };
            let upstream = &self.members[usize::from(self.selection.member(index))];
            if let Poll::Ready(event) = attempt.poll(cx, self.ask.query, upstream.tally(), &mut self.wrong) {
                return Poll::Ready(Some((index, event)));
            }
        }
        alarm.poll(cx).map(|()| None)
    }

    /// Digests what an attempt brought; returns the response if it is the one to return.
    fn take(&mut self, attempt: usize, event: Event, now: Instant) -> Option<Vec<u8>> {
        let wire = match event {
            Event::Answer(wire) => wire,
            Event::Spoiled => {
                self.selection.spoiled(attempt);
                return None;
            }
            Event::Forged => {
                self.selection.forged(attempt);
                return None;
            }
            Event::Failed(failure) => {
                self.failed(attempt, failure, now);
                return None;
            }
        };
        let upstream = self.upstream(attempt);
        let took = now.duration_since(self.selection.sent(attempt));
        let rcode = header::rcode(&wire);
        upstream.measured(took);
        let datagram = matches!(self.attempts[attempt], Some(Attempt::Datagram(_)));
        self.pool.check().answered(upstream, if datagram { Via::Datagram } else { Via::Stream }, now);
        if self.after_silence == Some(attempt) {
            upstream.silence().begin(self.started, now);
        }
        upstream.health().rcode(rcode);
        upstream.tally().exchanged(rcode, took);
        if !self.classic[attempt]
            && edns::is_rejected(self.ask.query, &wire)
            && self.selection.rejects_edns(attempt, now)
        {
            self.kept.get_or_insert((attempt, wire));
            return None;
        }
        if self.classic[attempt] && self.selection.is_classic(attempt) && edns::shows_service(&wire) {
            self.upstream(attempt).edns().set(now);
        }
        if datagram && header::truncated(&wire) && self.selection.truncated(attempt, now) {
            self.keep(attempt, wire);
            return None;
        }
        let on_trial = rcode == Rcode::SERVFAIL && self.selection.is_trial(attempt);
        if self.pool.fails_over(rcode) || on_trial || (self.holds_half() && !edns::shows_service(&wire)) {
            self.selection.set_aside(attempt, now);
            self.keep(attempt, wire);
            return None;
        }
        Some(wire)
    }

    /// Whether part of a good answer is there already.
    fn holds_half(&self) -> bool {
        self.kept.as_ref().is_some_and(|(_, wire)| header::truncated(wire))
    }

    /// Sets a response aside in place of an earlier one. A client over UDP is better off with half an answer than with an
    /// error; any other has no use for it.
    fn keep(&mut self, attempt: usize, wire: Vec<u8>) {
        let half = header::truncated(&wire);
        if self.kept.is_none() || half == self.holds_half() || half == (self.ask.client == Protocol::Udp) {
            self.kept = Some((attempt, wire));
        }
    }

    fn failed(&mut self, attempt: usize, failure: Failure, now: Instant) {
        self.blame(attempt, &failure);
        self.last = Some(failure);
        self.selection.failed(attempt, now);
    }

    fn give_up(&mut self, attempt: usize) {
        let failure = self.without_answer(attempt);
        self.blame(attempt, &failure);
        self.last = Some(failure);
    }

    /// What to say of an attempt that is still open when nothing is waited for any more.
    fn without_answer(&self, attempt: usize) -> Failure {
        let leg = self.leg(attempt);
        if self.selection.is_spoiled(attempt) { Failure::Malformed(leg) } else { Failure::Timeout(leg) }
    }

    fn blame(&self, attempt: usize, failure: &Failure) {
        let upstream = self.upstream(attempt);
        upstream.tally().failure(failure.cause());
        if failure.blames_upstream() {
            if !self.selection.was_late(attempt) {
                self.pool.check().lost(upstream);
            }
            self.pool.check().start(upstream);
        }
    }

    /// The exchange has its response. Servers that were asked and stayed silent are blamed all the same.
    fn answer(&self, attempt: usize, wire: Vec<u8>, now: Instant) -> Exchanged {
        let answered = self.selection.member(attempt);
        for index in 0..self.selection.used() {
            if self.selection.member(index) != answered && self.selection.is_silent(index, now) {
                self.blame(index, &Failure::Timeout(self.leg(index)));
            }
        }
        Exchanged { wire, upstream: self.upstream(attempt).clone(), took: now.duration_since(self.started) }
    }

    /// Nothing more will come: the response set aside, or the last failure.
    fn end(&mut self, now: Instant) -> Result<Exchanged, Failure> {
        let kept = self.kept.take();
        let open = |index: &usize| self.selection.is_open(*index);
        // That somebody answered, though badly, tells more than that somebody else did not.
        let spoiled = (0..self.selection.used()).rev().filter(open).find(|index| self.selection.is_spoiled(*index));
        let unanswered = spoiled.or_else(|| (0..self.selection.used()).rev().find(open));
        let unanswered = unanswered.map(|index| self.without_answer(index));
        if let Some((attempt, wire)) = kept
            && (self.ask.client == Protocol::Udp || !header::truncated(&wire))
        {
            return Ok(self.answer(attempt, wire, now));
        }
        for index in (0..self.selection.used()).filter(|index| self.selection.is_open(*index)) {
            self.blame(index, &self.without_answer(index));
        }
        Err(unanswered.or(self.last.take()).unwrap_or_else(|| Failure::Timeout(self.members[0].stream_leg())))
    }

    fn upstream(&self, attempt: usize) -> &Arc<Upstream> {
        &self.members[usize::from(self.selection.member(attempt))]
    }

    fn leg(&self, attempt: usize) -> Leg {
        match &self.attempts[attempt] {
            Some(attempt) => attempt.leg(),
            None => {
                let remote = self.upstream(attempt).address().socket;
                Leg { stage: Stage::Dial, network: Network::Udp, local: None, remote }
            }
        }
    }
}

/// Whether an attempt may be made.
enum Permit {
    Granted,
    /// Others have used up what there is for further tries.
    Later,
    /// Too many packets leave already.
    Denied,
}
