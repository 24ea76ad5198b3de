//! What a resolver with a cache has to do, written down from RFC 1035, 2181 and 2308 (what is kept and for how long),
//! 8020 (missing names and what is beneath them), 8767 (expired data) and 9520 (failures), and from docs/plugins/cache.md where these leave a choice. It is as simple as it
//! can be: maps, numbers, milliseconds since the start. It knows nothing of the code.

use std::collections::BTreeMap;

use super::world::{Limits, Question, Reply, Rules, Said, Word};
use crate::support::wire::{NOERROR, NXDOMAIN, SERVFAIL};

const WEEK: u32 = 604_800;
/// Extended DNS Errors (RFC 8914 section 4).
const STALE_ANSWER: u16 = 3;
const CACHED_ERROR: u16 = 13;
const STALE_NXDOMAIN: u16 = 19;
const NO_REACHABLE_AUTHORITY: u16 = 22;
/// Registered after RFC 8914.
const SYNTHESIZED: u16 = 29;
/// An answer counts for so long after its end against denials of names above.
const HOUR: u64 = 3_600_000;
/// After a pause and so long again, a failure is the first one.
const FORGIVEN: u64 = 30_000;

/// Everything that is kept under one configuration.
pub struct Reference {
    rules: Rules,
    kept: BTreeMap<Slot, Kept>,
    failed: BTreeMap<Question, Failed>,
    /// Until when a name is known to have others beneath it.
    above: BTreeMap<usize, u64>,
    last: u64,
}

/// What an entry answers: a type of a name, or, after NXDOMAIN, every type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    name: usize,
    kind: Option<u16>,
    dnssec_ok: bool,
    checking_disabled: bool,
}

struct Kept {
    id: u64,
    said: Said,
    since: u64,
    /// In seconds.
    life: u32,
    hits: u32,
    last_hit: u64,
    refreshing: bool,
    paused_until: u64,
}

struct Failed {
    reply: Reply,
    pause: u64,
    until: u64,
}

/// What is to be done with a question.
#[derive(Debug)]
pub enum Decision {
    /// This is the reply, at once.
    Now { reply: Reply, refresh: Refresh, entry: Option<u64> },
    /// An upstream has to be asked. With an expired entry: when the client has waited long enough, and what it gets then.
    Wait { expired: Option<Expired> },
}

/// Whether an upstream is asked although the client has its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    No,
    /// The rules leave it open.
    Maybe,
    Yes,
}

#[derive(Clone, Debug)]
pub struct Expired {
    pub entry: u64,
    pub reply: Reply,
    pub timer: u64,
}

/// How a question ended for those who wait.
#[derive(Debug)]
pub struct Ending {
    pub answered: bool,
    pub reply: Reply,
}

impl Reference {
    pub fn new(rules: Rules) -> Reference {
        Reference { rules, kept: BTreeMap::new(), failed: BTreeMap::new(), above: BTreeMap::new(), last: 0 }
    }

    /// A client asks.
    pub fn ask(&mut self, question: Question, now: u64) -> Decision {
        let remembered = self.remembered(question, now);
        for slot in [Slot::of_type(question), Slot::of_name(question)] {
            if let Some(kept) = self.kept.get_mut(&slot).filter(|kept| now < kept.end()) {
                let left = kept.life - ((now - kept.since) / 1000) as u32;
                let reply = kept.said.reply(if self.rules.keepttl { kept.life } else { left }, None);
                // What is asked without RD brings nobody to ask an upstream, and is no sign of popularity.
                let refresh = if question.recursion { kept.hit(&self.rules, left, now) } else { Refresh::No };
                let refresh = if remembered.is_none() { refresh } else { Refresh::No };
                return Decision::Now { reply, refresh, entry: Some(kept.id) };
            }
        }
        if let Some(reply) = self.cut(question, now) {
            return Decision::Now { reply, refresh: Refresh::No, entry: None };
        }
        // RFC 8767 section 5: not for queries without RD.
        let stale = self.rules.stale.filter(|_| question.recursion);
        if let Some((stale, kept)) = stale.and_then(|stale| Some((stale, self.expired(question, now)?))) {
            let is_gone = kept.said.rcode() == NXDOMAIN;
            let reply = kept.said.reply(stale.ttl, Some(if is_gone { STALE_NXDOMAIN } else { STALE_ANSWER }));
            let hopeless = remembered.is_some() || now < kept.paused_until;
            if stale.verify && !hopeless {
                return Decision::Wait { expired: Some(Expired { entry: kept.id, reply, timer: stale.timer }) };
            }
            let refresh = if hopeless || kept.refreshing { Refresh::No } else { Refresh::Yes };
            return Decision::Now { reply, refresh, entry: Some(kept.id) };
        }
        // What was known of the name only by one above it, without a memory of its own.
        if let Some(stale) = stale
            && let Some(reply) = self.cut_by_expired(question, now)
        {
            self.last += 1;
            let entry = self.last;
            if stale.verify && remembered.is_none() {
                return Decision::Wait { expired: Some(Expired { entry, reply, timer: stale.timer }) };
            }
            let refresh = if remembered.is_some() { Refresh::No } else { Refresh::Yes };
            return Decision::Now { reply, refresh, entry: Some(entry) };
        }
        match remembered {
            Some(reply) => Decision::Now { reply, refresh: Refresh::No, entry: None },
            None => Decision::Wait { expired: None },
        }
    }

    /// An upstream said something in reply to a question, or nobody did.
    pub fn hear(&mut self, question: Question, said: Said, late: bool, now: u64) -> Ending {
        if let Some(reply) = said.failure() {
            // That nothing came was noted when it was late; it is one failure, not two.
            if !(late && matches!(said.word, Word::Silence)) {
                self.fail(question, &reply, now);
            }
            return Ending { answered: false, reply };
        }
        self.failed.remove(&question);
        if let Word::Cut { .. } = said.word {
            self.exists(question, said, now);
            // Half an answer is better than none, but it is not kept (RFC 2181 section 9), nor better than a whole one.
            let reply = said.reply(said.life(&self.rules), None);
            let reply = if question.recursion { reply } else { Reply { ttls: said.ttls(), ..reply } };
            return Ending { answered: false, reply };
        }
        // What was asked without RD may be a referral: it is not kept, and its TTLs are passed on.
        if !question.recursion {
            return Ending { answered: true, reply: Reply { ttls: said.ttls(), ..said.reply(0, None) } };
        }
        self.exists(question, said, now);
        // Both slots are about the question; only what is heard now holds. The other types of a name that does not exist are
        // left to end by themselves.
        let (own, name) = (Slot::of_type(question), Slot::of_name(question));
        self.kept.remove(&own);
        self.kept.remove(&name);
        let life = said.life(&self.rules);
        if life > 0 {
            self.last += 1;
            let slot = if matches!(said.word, Word::Nxdomain { .. }) { name } else { own };
            self.kept.insert(slot, Kept::new(self.last, said, life, now));
        }
        Ending { answered: true, reply: said.reply(life, None) }
    }

    /// A refresh of this entry has begun.
    pub fn refreshes(&mut self, entry: u64) {
        if let Some(kept) = self.kept.values_mut().find(|kept| kept.id == entry) {
            kept.refreshing = true;
        }
    }

    /// It has ended, well or not (RFC 8767 section 5: then there is a pause).
    pub fn refreshed(&mut self, entry: u64, answered: bool, now: u64) {
        if let Some(kept) = self.kept.values_mut().find(|kept| kept.id == entry) {
            kept.refreshing = false;
            if !answered {
                kept.paused_until = now + self.rules.stale.map_or(30_000, |stale| stale.recheck);
            }
        }
    }

    /// Every entry.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.kept.keys().copied()
    }

    /// An entry has to make room.
    pub fn evict(&mut self, slot: Slot) {
        self.kept.remove(&slot);
    }

    /// Whether the rules leave it open if the name above still is known to have names beneath it: "about an hour".
    pub fn is_unsure(&self, question: Question, now: u64) -> bool {
        let until = question.above().and_then(|above| self.above.get(&above.name));
        until.is_some_and(|&until| (until..until + 1000).contains(&now))
    }

    /// RFC 8020 section 2: the denial of the name above, unless something beneath it was answered.
    fn cut(&self, question: Question, now: u64) -> Option<Reply> {
        let above = question.above().filter(|_| self.rules.cut)?;
        let kept = self.kept.get(&Slot::of_name(above)).filter(|kept| now < kept.end())?;
        let known = self.above.get(&above.name).is_some_and(|&until| now < until);
        let left = kept.life - ((now - kept.since) / 1000) as u32;
        (!known).then(|| kept.said.reply(if self.rules.keepttl { kept.life } else { left }, Some(SYNTHESIZED)))
    }

    /// The same of a denial that has expired, for a name of which nothing else is known.
    fn cut_by_expired(&self, question: Question, now: u64) -> Option<Reply> {
        let stale = self.rules.stale?;
        let above = question.above().filter(|_| self.rules.cut)?;
        let own = [Slot::of_type(question), Slot::of_name(question)];
        if own.iter().any(|slot| self.kept.contains_key(slot)) {
            return None;
        }
        let kept = self.kept.get(&Slot::of_name(above)).filter(|kept| now < kept.end() + stale.window)?;
        let known = self.above.get(&above.name).is_some_and(|&until| now < until);
        (!known).then(|| kept.said.reply(stale.ttl, Some(STALE_NXDOMAIN)))
    }

    /// Whatever is no denial of the name, or an alias that leads nowhere, shows that the name above has one beneath it.
    fn exists(&mut self, question: Question, said: Said, now: u64) {
        let denied = matches!(said.word, Word::Nxdomain { .. } | Word::Bare { rcode: NXDOMAIN });
        let Some(above) = question.above().filter(|_| question.recursion && !denied) else { return };
        let life = if matches!(said.word, Word::Cut { .. }) { 0 } else { said.life(&self.rules) };
        let until = self.above.entry(above.name).or_default();
        *until = (*until).max(now + u64::from(life) * 1000 + HOUR);
    }

    /// The newest thing known, expired as it may be, unless that is too long ago; a denial of the name is about every type.
    fn expired(&self, question: Question, now: u64) -> Option<&Kept> {
        let stale = self.rules.stale?;
        let usable = |kept: &&Kept| now < kept.end() + stale.window;
        let (own, name) = (self.kept.get(&Slot::of_type(question)), self.kept.get(&Slot::of_name(question)));
        if stale.prefer_positive
            && let Some(own) = own.filter(usable).filter(|own| own.said.is_positive())
        {
            return Some(own);
        }
        [own, name].into_iter().flatten().max_by_key(|kept| kept.id).filter(usable)
    }

    fn remembered(&self, question: Question, now: u64) -> Option<Reply> {
        let failed = self.failed.get(&question).filter(|failed| now < failed.until)?;
        Some(Reply { error: Some(CACHED_ERROR), ..failed.reply.clone() })
    }

    /// RFC 9520 section 3.2: a growing pause, here 1, 2, 4 ... s up to what `servfail` says.
    fn fail(&mut self, question: Question, reply: &Reply, now: u64) {
        let before = self.failed.get(&question).filter(|failed| now < failed.until + FORGIVEN);
        let pause = before.map_or(1_000, |failed| failed.pause * 2).min(self.rules.servfail);
        if pause > 0 {
            self.failed.insert(question, Failed { reply: reply.clone(), pause, until: now + pause });
        }
    }
}

impl Slot {
    pub fn of_type(question: Question) -> Slot {
        Slot { kind: Some(question.kind), ..Slot::of_name(question) }
    }

    pub fn of_name(question: Question) -> Slot {
        let Question { name, dnssec_ok, checking_disabled, .. } = question;
        Slot { name, kind: None, dnssec_ok, checking_disabled }
    }
}

impl Kept {
    fn new(id: u64, said: Said, life: u32, now: u64) -> Kept {
        Kept { id, said, since: now, life, hits: 0, last_hit: now, refreshing: false, paused_until: 0 }
    }

    fn end(&self) -> u64 {
        self.since + u64::from(self.life) * 1000
    }

    /// Notes a hit. Whether it is time to refresh: asked often enough, and near enough to the end. How often it was
    /// asked before it was renewed may count as well.
    fn hit(&mut self, rules: &Rules, left: u32, now: u64) -> Refresh {
        let Some(prefetch) = rules.prefetch else { return Refresh::No };
        self.hits = if now - self.last_hit > prefetch.pause { 1 } else { self.hits + 1 };
        self.last_hit = now;
        let share = u64::from(self.life) * prefetch.percentage;
        if self.refreshing || now < self.paused_until || u64::from(left) > share.div_ceil(100) {
            Refresh::No
        } else if self.hits >= prefetch.amount && u64::from(left) * 100 < share {
            Refresh::Yes
        } else {
            Refresh::Maybe
        }
    }
}

impl Said {
    fn rcode(self) -> u16 {
        match self.word {
            Word::Data { .. } | Word::Alias { .. } | Word::Cut { .. } | Word::Nodata { .. } => NOERROR,
            Word::Nxdomain { .. } | Word::Dangling { .. } => NXDOMAIN,
            Word::Bare { rcode } | Word::Failure { rcode } => rcode,
            Word::Silence => SERVFAIL,
        }
    }

    fn is_positive(self) -> bool {
        matches!(self.word, Word::Data { .. } | Word::Alias { .. } | Word::Cut { .. })
    }

    /// RFC 9520 section 2: what is no answer but the failure to give one, and what clients get first.
    fn failure(self) -> Option<Reply> {
        let error = match self.word {
            Word::Failure { .. } => None,
            Word::Silence => Some(NO_REACHABLE_AUTHORITY),
            _ => return None,
        };
        Some(Reply::failure(self.rcode(), error))
    }

    /// The TTL of each record, as the upstream sent it.
    fn ttls(self) -> Vec<u32> {
        match self.word {
            Word::Data { ttl } | Word::Cut { ttl } | Word::Nxdomain { ttl, .. } | Word::Nodata { ttl, .. } => vec![ttl],
            Word::Alias { ttl, target } => vec![ttl, target],
            Word::Dangling { alias, ttl, .. } => vec![alias, ttl],
            Word::Bare { .. } | Word::Failure { .. } | Word::Silence => Vec::new(),
        }
    }

    /// For how many seconds this is kept: the lowest TTL, for a denial the MINIMUM of its SOA as well (RFC 2308 section
    /// 5), within the limits of the configuration; zero is zero (RFC 1035 section 3.2.1).
    fn life(self, rules: &Rules) -> u32 {
        let minimum = match self.word {
            Word::Nxdomain { minimum, .. } | Word::Dangling { minimum, .. } | Word::Nodata { minimum, .. } => minimum,
            _ => u32::MAX,
        };
        let Limits { longest, shortest } = if self.is_positive() { rules.positive } else { rules.negative };
        match self.ttls().into_iter().min().map(|ttl| ttl.min(minimum)) {
            None | Some(0) => 0,
            Some(ttl) => ttl.max(shortest).min(longest).min(WEEK),
        }
    }

    /// The reply made of this: all its records have one TTL.
    fn reply(self, ttl: u32, error: Option<u16>) -> Reply {
        let ttls = self.ttls().iter().map(|_| ttl).collect();
        let truncated = matches!(self.word, Word::Cut { .. });
        let number = (!matches!(self.word, Word::Bare { .. })).then_some(self.number);
        Reply { rcode: self.rcode(), number, ttls, truncated, error }
    }
}
