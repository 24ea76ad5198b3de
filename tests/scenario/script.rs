//! The language of `tests/scenarios/*.rpl`:
//!
//! ```text
//! ; A comment. The configuration comes first: lines of the root block.
//! CONFIG
//! cache 30
//! CONFIG_END
//!
//! STEP 1 UPSTREAM www.test. A           ; from now on this question is answered so
//! NOERROR RA                            ; RCODE and flags besides QR, RD and CD; or: TIMEOUT
//! ANSWER www.test. 300 A 192.0.2.1      ; also AUTHORITY, ADDITIONAL, EDE code, IF_DO ANSWER ...
//!
//! STEP 2 QUERY www.test. A RD           ; flags, EDNS size, DO, TCP, COOKIE, as needed
//! STEP 3 EXPECT                         ; the whole reply to the query before
//! NOERROR RD RA
//! ANSWER www.test. 30 A 192.0.2.1
//!
//! STEP 4 ASKED                          ; all upstream queries since the ASKED before, here one
//! www.test. A RD EDNS 1232
//!
//! STEP 5 TIME_PASSES 1.2                ; seconds
//! STEP 6 REFRESH                        ; what runs in the background runs now; it must have something to do
//! STEP 7 CHECK coredns_cache_hits_total 1
//! ```

use std::time::Duration;

use crate::support::wire::COOKIE;
use crate::support::{Message, Query, answer::Answer};

use super::text;

/// A scenario: the lines of the root block, and what happens.
pub struct Script {
    pub config: String,
    pub steps: Vec<(String, Step)>,
}

pub enum Step {
    Upstream { name: String, kind: u16, entry: Entry },
    Query { query: Query, tcp: bool },
    Expect(Vec<String>),
    Asked(Vec<String>),
    TimePasses(Duration),
    Refresh,
    Check { metric: String, value: f64 },
}

/// How the upstream answers one question.
#[derive(Clone)]
pub enum Entry {
    Timeout,
    Reply { rcode: u16, flags: u16, lines: Vec<Line> },
}

/// One line of an upstream's reply.
#[derive(Clone)]
pub struct Line {
    only_with_do: bool,
    what: What,
}

#[derive(Clone)]
enum What {
    Record(usize, Vec<u8>, u16, u32, Vec<u8>),
    Error(u16),
}

impl Script {
    /// Reads a scenario; panics where it is not one.
    pub fn parse(text: &str) -> Script {
        let lines = text.lines().map(|line| line.split(';').next().unwrap_or_default().trim());
        let mut lines = lines.filter(|line| !line.is_empty());
        assert_eq!(lines.next(), Some("CONFIG"), "a scenario starts with its configuration");
        let config: Vec<&str> = lines.by_ref().take_while(|line| *line != "CONFIG_END").collect();
        let mut steps: Vec<(&str, Vec<&str>)> = Vec::new();
        for line in lines {
            match line.strip_prefix("STEP ") {
                Some(head) => steps.push((head, Vec::new())),
                None => steps.last_mut().expect("a line belongs to a step").1.push(line),
            }
        }
        let mut last = 0;
        let steps = steps.into_iter().map(|(head, body)| {
            let number: u32 = head.split(' ').next().and_then(|word| word.parse().ok()).expect("a step has a number");
            assert!(number > last, "step {number} comes after step {last}");
            last = number;
            (head.to_owned(), Step::parse(head, &body))
        });
        Script { steps: steps.collect(), config: config.join("\n") }
    }
}

impl Step {
    fn parse(head: &str, body: &[&str]) -> Step {
        let words: Vec<&str> = head.split_whitespace().skip(1).collect();
        let takes_no_body = |step: Step| {
            assert!(body.is_empty(), "{head} has no lines of its own: {body:?}");
            step
        };
        let own_lines = || body.iter().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        match words[..] {
            ["UPSTREAM", name, kind] => {
                Step::Upstream { name: name.to_owned(), kind: text::kind(kind), entry: Entry::parse(body) }
            }
            ["QUERY", name, kind, ref rest @ ..] => takes_no_body(query(Query::new(name, text::kind(kind)), rest)),
            ["EXPECT"] => Step::Expect(own_lines()),
            ["ASKED"] => Step::Asked(own_lines()),
            ["TIME_PASSES", seconds] => {
                takes_no_body(Step::TimePasses(Duration::from_secs_f64(seconds.parse().expect("seconds"))))
            }
            ["REFRESH"] => takes_no_body(Step::Refresh),
            ["CHECK", metric, value] => {
                takes_no_body(Step::Check { metric: metric.to_owned(), value: value.parse().expect("a number") })
            }
            _ => panic!("no such step: {head}"),
        }
    }
}

fn query(query: Query, words: &[&str]) -> Step {
    let mut query = query.flag(0xffff, false);
    let mut tcp = false;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        query = match *word {
            "TCP" => {
                tcp = true;
                query
            }
            "EDNS" => query.edns(words.next().and_then(|size| size.parse().ok()).expect("a size after EDNS")),
            "DO" => query.edns_flags(0x8000),
            "COOKIE" => query.option(COOKIE, b"12345678"),
            flag => query.flag(text::flag(flag).unwrap_or_else(|| panic!("no flag is called {flag}")), true),
        };
    }
    Step::Query { query, tcp }
}

impl Entry {
    fn parse(body: &[&str]) -> Entry {
        let mut lines = body.iter().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let head = lines.next().expect("an upstream entry says something");
        if head == ["TIMEOUT"] {
            return Entry::Timeout;
        }
        let rcode = text::rcode(head[0]).unwrap_or_else(|| panic!("no RCODE is called {}", head[0]));
        let flags = head[1..].iter().map(|word| text::flag(word).unwrap_or_else(|| panic!("no flag is called {word}")));
        Entry::Reply { rcode, flags: flags.fold(0, |all, bit| all | bit), lines: lines.map(Line::parse).collect() }
    }

    /// The bytes of the answer to this query; `None` for silence.
    pub fn answer(&self, query: &Message) -> Option<Vec<u8>> {
        let Entry::Reply { rcode, flags, lines } = self else { return None };
        let answer = Answer::to(query).flags(*flags).rcode(*rcode);
        let lines = lines.iter().filter(|line| !line.only_with_do || query.dnssec_ok());
        let answer = lines.fold(answer, |answer, line| match &line.what {
            What::Record(section, owner, kind, ttl, data) => answer.add(*section, owner, *kind, *ttl, data),
            What::Error(code) => answer.option(crate::support::wire::EDE, &code.to_be_bytes()),
        });
        Some(answer.bytes())
    }
}

impl Line {
    fn parse(words: Vec<&str>) -> Line {
        let (only_with_do, words) = match words.split_first() {
            Some((&"IF_DO", rest)) => (true, rest),
            _ => (false, &words[..]),
        };
        let what = match words {
            ["EDE", code] => What::Error(code.parse().expect("a number")),
            [word, rest @ ..] => {
                let section = text::section(word).unwrap_or_else(|| panic!("no section is called {word}"));
                let (owner, kind, ttl, data) = text::record(rest);
                What::Record(section, owner, kind, ttl, data)
            }
            [] => panic!("an empty line"),
        };
        Line { only_with_do, what }
    }
}
