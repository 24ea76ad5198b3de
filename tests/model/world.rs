//! What may happen in a world of five names: questions, what upstreams say, configurations, and chance.

use std::fmt::Write;

use crate::support::answer::Answer;
use crate::support::chance::Chance;
use crate::support::wire::*;
use crate::support::{Message, Query};

const NAMES: [&str; 5] = ["a.test.", "b.test.", "c.sub.test.", "d.sub.test.", "sub.test."];
/// Which of them lie beneath the last one.
const BENEATH: [usize; 2] = [2, 3];
const TTLS: [u32; 11] = [0, 1, 2, 5, 10, 30, 60, 300, 3_600, 604_800, 3_000_000_000];

/// A question with the flags that its answer depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question {
    pub name: usize,
    pub kind: u16,
    pub dnssec_ok: bool,
    pub checking_disabled: bool,
    pub recursion: bool,
}

/// What an upstream says, or that it says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Data {
        ttl: u32,
    },
    /// An alias and the record it leads to.
    Alias {
        ttl: u32,
        target: u32,
    },
    Nxdomain {
        ttl: u32,
        minimum: u32,
    },
    /// An alias to a name that does not exist.
    Dangling {
        alias: u32,
        ttl: u32,
        minimum: u32,
    },
    Nodata {
        ttl: u32,
        minimum: u32,
    },
    /// Data, marked as not all of it.
    Cut {
        ttl: u32,
    },
    /// NXDOMAIN or NOERROR without any record.
    Bare {
        rcode: u16,
    },
    Failure {
        rcode: u16,
    },
    Silence,
}

/// A word with a number that no other has: replies show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    pub number: u32,
    pub word: Word,
}

/// A reply as far as it may differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub rcode: u16,
    /// Which [`Said`] it is made of, where it has records.
    pub number: Option<u32>,
    pub ttls: Vec<u32>,
    pub truncated: bool,
    /// The Extended DNS Error, for clients with EDNS.
    pub error: Option<u16>,
}

/// Limits of one class of answers, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub longest: u32,
    pub shortest: u32,
}

/// What `serve_stale` says; times in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Stale {
    pub window: u64,
    pub verify: bool,
    pub timer: u64,
    pub ttl: u32,
    pub recheck: u64,
    pub prefer_positive: bool,
}

/// What `prefetch` says; the pause in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Prefetch {
    pub amount: u32,
    pub pause: u64,
    pub percentage: u64,
}

/// A configuration, in numbers and as the lines of a Corefile.
#[derive(Clone, Debug)]
pub struct Rules {
    pub text: String,
    pub positive: Limits,
    pub negative: Limits,
    pub stale: Option<Stale>,
    pub prefetch: Option<Prefetch>,
    /// The longest pause after a failure, in milliseconds.
    pub servfail: u64,
    pub keepttl: bool,
    /// `denial_cut test`.
    pub cut: bool,
}

impl Question {
    pub fn any(chance: &mut Chance) -> Question {
        Question {
            name: chance.below(NAMES.len()),
            kind: chance.of(&[A, A, AAAA]),
            dnssec_ok: chance.percent(10),
            checking_disabled: chance.percent(6),
            recursion: chance.percent(90),
        }
    }

    /// Whether there are names beneath it in this world.
    pub fn is_above(self) -> bool {
        self.name == NAMES.len() - 1
    }

    /// The same of the name above, where it is one of this world.
    pub fn above(self) -> Option<Question> {
        BENEATH.contains(&self.name).then_some(Question { name: NAMES.len() - 1, ..self })
    }

    /// A client's message; DO needs EDNS.
    pub fn message(self, edns: bool) -> Query {
        let query = Query::new(NAMES[self.name], self.kind).flag(RD, self.recursion).flag(CD, self.checking_disabled);
        match (self.dnssec_ok, edns) {
            (true, _) => query.dnssec_ok(),
            (false, true) => query.edns(1232),
            (false, false) => query,
        }
    }
}

impl Word {
    /// In an outage hardly anything but failures.
    pub fn any(chance: &mut Chance, outage: bool) -> Word {
        let (ttl, other) = (chance.of(&TTLS), chance.of(&TTLS));
        // Where the MINIMUM is zero the record's own TTL would say something else to clients.
        let minimum = if ttl == 0 { 0 } else { chance.of(&TTLS[1..]) };
        let from = if outage { 70 } else { 0 };
        match from + chance.below(100 - from) {
            0..38 => Word::Data { ttl },
            38..43 => Word::Alias { ttl, target: other },
            43..57 => Word::Nxdomain { ttl, minimum },
            57..61 => Word::Dangling { alias: chance.of(&TTLS[1..]), ttl: ttl.max(1), minimum: minimum.max(1) },
            61..70 => Word::Nodata { ttl, minimum },
            70..74 => Word::Bare { rcode: chance.of(&[NOERROR, NXDOMAIN]) },
            74..77 => Word::Cut { ttl },
            77..92 => Word::Failure { rcode: chance.of(&[SERVFAIL, SERVFAIL, REFUSED, FORMERR, NOTIMP]) },
            _ => Word::Silence,
        }
    }
}

impl Said {
    /// The message with which an upstream says this in reply to a query; `None` for silence.
    pub fn to_wire(self, query: &[u8]) -> Option<Vec<u8>> {
        let query = Message::parse(query).expect("an upstream gets well-formed queries");
        let kind = query.questions[0].kind;
        let (answer, target) = (Answer::to(&query), name("alias.test."));
        let soa = |minimum: u32| {
            let numbers = [self.number, 3600, 600, 86_400, minimum];
            [name("ns.test."), name("host.test.")]
                .concat()
                .into_iter()
                .chain(numbers.into_iter().flat_map(u32::to_be_bytes))
        };
        let answer = match self.word {
            Word::Data { ttl } => answer.own(kind, ttl, &self.address(kind)),
            Word::Cut { ttl } => answer.flag(TC).own(kind, ttl, &self.address(kind)),
            Word::Alias { ttl, target: end } => {
                answer.own(CNAME, ttl, &target).add(0, &target, kind, end, &self.address(kind))
            }
            Word::Nxdomain { ttl, minimum } => {
                answer.rcode(NXDOMAIN).add(1, &name("test."), SOA, ttl, &soa(minimum).collect::<Vec<_>>())
            }
            Word::Dangling { alias, ttl, minimum } => answer.rcode(NXDOMAIN).own(CNAME, alias, &target).add(
                1,
                &name("test."),
                SOA,
                ttl,
                &soa(minimum).collect::<Vec<_>>(),
            ),
            Word::Nodata { ttl, minimum } => answer.add(1, &name("test."), SOA, ttl, &soa(minimum).collect::<Vec<_>>()),
            Word::Bare { rcode } | Word::Failure { rcode } => answer.rcode(rcode),
            Word::Silence => return None,
        };
        Some(answer.bytes())
    }

    fn address(self, kind: u16) -> Vec<u8> {
        let mut octets = if kind == AAAA { vec![0xfd; 12] } else { Vec::new() };
        octets.extend(self.number.to_be_bytes());
        octets
    }
}

impl Reply {
    /// What a client gets who has waited long enough for somebody else's flight.
    pub fn timeout() -> Reply {
        Reply::failure(SERVFAIL, Some(22))
    }

    pub fn failure(rcode: u16, error: Option<u16>) -> Reply {
        Reply { rcode, number: None, ttls: Vec::new(), truncated: false, error }
    }

    pub fn read(message: &Message) -> Reply {
        let last = |data: &[u8]| u32_at(data, data.len() - 4);
        let address = message.answers.iter().find(|record| matches!(record.kind, A | AAAA));
        let soa = message.authority.iter().find(|record| record.kind == SOA);
        let serial = |data: &[u8]| u32_at(data, data.len() - 20);
        let errors = message.errors();
        assert!(errors.len() <= 1, "one reason is enough: {errors:?}");
        Reply {
            rcode: message.rcode,
            number: address.and_then(|record| last(&record.data)).or(soa.and_then(|record| serial(&record.data))),
            ttls: message.ttls(),
            truncated: message.truncated(),
            error: errors.first().copied(),
        }
    }
}

impl Rules {
    pub fn any(chance: &mut Chance) -> Rules {
        let mut text = String::from("cache {\n");
        let mut limits = |class: &str, longest: &[u32]| {
            let limits = Limits { longest: chance.of(longest), shortest: chance.of(&[5, 5, 0, 20]) };
            writeln!(text, "{class} 9984 {} {}", limits.longest, limits.shortest).expect("memory");
            limits
        };
        let (positive, negative) = (limits("success", &[30, 300, 3600, 2_000_000]), limits("denial", &[5, 30, 1800]));
        let stale = chance.percent(85).then(|| Stale::any(chance, &mut text));
        let prefetch = chance.percent(40).then(|| {
            let prefetch = Prefetch {
                amount: chance.of(&[1, 2, 3]),
                pause: chance.of(&[1_000, 60_000]),
                percentage: chance.of(&[10, 50, 90]),
            };
            writeln!(text, "prefetch {} {}ms {}%", prefetch.amount, prefetch.pause, prefetch.percentage)
                .expect("memory");
            prefetch
        });
        let servfail = chance.of(&[None, None, None, Some(0), Some(500), Some(1_500), Some(5_000), Some(300_000)]);
        if let Some(longest) = servfail {
            writeln!(text, "servfail {longest}ms").expect("memory");
        }
        let (keepttl, cut) = (chance.percent(10), chance.percent(50));
        text.push_str(if cut { "denial_cut test\n" } else { "" });
        text.push_str(if keepttl { "keepttl\n}" } else { "}" });
        Rules { text, positive, negative, stale, prefetch, servfail: servfail.unwrap_or(30_000), keepttl, cut }
    }
}

impl Stale {
    fn any(chance: &mut Chance, text: &mut String) -> Stale {
        let window = chance.of(&[10_000, 300_000, 3_600_000, 86_400_000]);
        let verify = chance.percent(60);
        let timer = chance.of(&[0, 0, 100, 3_000, 20_000]);
        let ttl = chance.of(&[0, 0, 1, 45]);
        let recheck = chance.of(&[None, None, Some(0), Some(2_000), Some(300_000)]);
        let mode = if verify { format!("verify {timer}ms") } else { "immediate".to_owned() };
        write!(text, "serve_stale {window}ms {mode} {ttl}s").expect("memory");
        writeln!(text, "{}", recheck.map_or_else(String::new, |pause| format!(" {pause}ms"))).expect("memory");
        let prefer_positive = chance.percent(20);
        if prefer_positive {
            text.push_str("serve_stale_policy prefer_positive\n");
        }
        Stale {
            window,
            verify,
            // RFC 8767 section 5: 1.8 s, a TTL of 30 s, a pause of 30 s.
            timer: if timer == 0 { 1_800 } else { timer },
            ttl: if ttl == 0 { 30 } else { ttl },
            recheck: recheck.unwrap_or(30_000),
            prefer_positive,
        }
    }
}
