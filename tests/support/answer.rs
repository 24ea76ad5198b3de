//! What the scripted upstream says, chosen by the first label of the question (or by a later `change` for that name):
//!
//! | label | answer |
//! |---|---|
//! | `ttlN` | one record of the asked type with TTL N |
//! | `two` | two A records, TTL 100 and 20 |
//! | `sections` | an answer with TTL 300, authority with 100, additional with 40 |
//! | `nx-T-M`, `nodata-T-M` | negative with an SOA of TTL T and MINIMUM M |
//! | `nxnosoa`, `empty` | NXDOMAIN or NOERROR with no record at all |
//! | `servfail` `refused` `formerr` `notimp` | that RCODE, empty |
//! | `ede`, `edefail` | an answer with the Extended DNS Error 17 "filtered"; SERVFAIL with 6 "DNSSEC bogus" |
//! | `options` | an answer whose OPT holds NSID, COOKIE, ECS, PADDING and KEEPALIVE |
//! | a kind of `wrong` | a packet that is no answer, or cannot be read, and nothing after it |
//! | `early-X` | a packet of kind X (or `port`: from another port), and the right answer 50 ms later |
//! | `flood` | twenty packets with a wrong ID and no answer over UDP, an answer over TCP |
//! | `silent` | nothing |
//! | `slow-N`, `late` | an answer after N milliseconds; after six seconds, when no client waits any more |
//! | `flap-X` | like X for every odd query for the name, an answer for every even one |
//! | `hold` | an answer as soon as the test calls `release` |
//! | `tc` | TC=1 and nothing else over UDP, one record over TCP |
//! | `tcclose`, `tcsilent` | TC=1 over UDP; over TCP the end of the connection, or nothing |
//! | `tctail` | TC=1 with one of two records over UDP, two over TCP |
//! | `tcboth` | TC=1 with one record over UDP and TCP |
//! | `big-N` | N A records; TC=1 over UDP when they do not fit the size asked for |
//! | `bignotc-N` | N A records over UDP too, whatever the size |
//! | `cname-N` | N CNAMEs and the record; `cnamenx-N` the same with NXDOMAIN at the end; `cnamend-N` with NODATA |
//! | `cnameloop`, `cnametwo` | a chain that ends in itself; two targets for one owner |
//! | `dup` | the same answer twice |
//! | `extra` | records nobody asked for in each section |
//! | `other` | only a record of another owner |
//! | `ad` | AD=1 when the query had AD or DO |
//! | `signed` | the record and, when asked with DO, its RRSIG; `signednx` a negative answer with NSEC and RRSIG |
//! | `oversigned` | the record and its RRSIG, DO or not |
//! | `noedns`, `noednsimp` | FORMERR or NOTIMP without OPT when asked with OPT, an answer otherwise |
//! | `close-N`, `reset-N` | ends the connection, in order or with RST, instead of the first N answers (1 if N is left out) |
//! | `closeafter-N` | an answer, and the end of the connection behind its Nth query |
//! | `trickle-N` | over TCP an answer octet by octet, N milliseconds apart |
//! | `half`, `halfclose` | over TCP half an answer, then nothing, or the end of the connection; nothing over UDP |
//! | `addr-A-B-C-D` | the A record A.B.C.D; NODATA for other types |
//! | `aa` | an answer with AA=1 |

use std::time::Duration;

use super::message::Message;
use super::upstream::framed;
use super::wire::{self, *};
use super::wrong;

/// How long after a wrong packet the right one of `early-X` leaves.
const EARLIER: Duration = Duration::from_millis(50);
/// When `late` answers.
const LATE: Duration = Duration::from_secs(6);

/// One thing the upstream does with a query.
#[derive(Clone, Debug)]
pub enum Act {
    Send(Vec<u8>),
    SendFromOtherPort(Vec<u8>),
    Later(Duration, Vec<u8>),
    Hold(Vec<u8>),
    /// Octet by octet with this pause; over UDP at once.
    Trickle(Duration, Vec<u8>),
    /// Octets of a stream that are no whole message.
    Part(Vec<u8>),
    /// Ends the connection in order.
    Close,
    /// Ends the connection with RST.
    Reset,
}

/// A query and what came before it.
pub struct Arrival<'a> {
    pub message: &'a Message,
    /// TCP or TLS.
    pub tcp: bool,
    /// How many queries for this name there were, this one included.
    pub count: usize,
    /// How many queries there were on its connection, this one included.
    pub on_connection: usize,
}

/// A response being written to one query.
#[derive(Clone)]
pub struct Answer<'a> {
    query: &'a Message,
    flags: u16,
    rcode: u16,
    sections: [Vec<Vec<u8>>; 3],
    opt: Option<Vec<u8>>,
}

impl<'a> Answer<'a> {
    pub fn to(query: &'a Message) -> Answer<'a> {
        let flags = QR | RA | query.flags & (RD | CD);
        let opt = query.opt.is_some().then(Vec::new);
        Answer { query, flags, rcode: NOERROR, sections: Default::default(), opt }
    }

    pub fn rcode(mut self, rcode: u16) -> Self {
        self.rcode = rcode;
        self
    }

    pub fn flag(mut self, bits: u16) -> Self {
        self.flags |= bits;
        self
    }

    /// Sets exactly these header bits besides QR and those copied from the query.
    pub fn flags(mut self, bits: u16) -> Self {
        self.flags = QR | self.query.flags & (RD | CD) | bits;
        self
    }

    /// Adds a record of the question's own name to the answer section.
    pub fn own(self, kind: u16, ttl: u32, data: &[u8]) -> Self {
        self.add(0, &[0xc0, 12], kind, ttl, data)
    }

    /// Adds a record to section 0 (answer), 1 (authority) or 2 (additional).
    pub fn add(mut self, section: usize, owner: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Self {
        let class = self.query.questions.first().map_or(IN, |question| question.class);
        self.sections[section].push(record(owner, kind, class, ttl, data));
        self
    }

    pub fn soa(self, ttl: u32, minimum: u32) -> Self {
        self.add(1, &name("test."), SOA, ttl, &soa(minimum))
    }

    pub fn option(mut self, code: u16, data: &[u8]) -> Self {
        self.opt.get_or_insert_default().extend(option(code, data));
        self
    }

    pub fn without_opt(mut self) -> Self {
        self.opt = None;
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let question = self.query.questions.first().expect("an upstream query has a question");
        let flags = self.flags | self.rcode & 0xf;
        let counts = self.sections.each_ref().map(|section| section.len() as u16);
        let additional = counts[2] + u16::from(self.opt.is_some());
        let mut bytes = Vec::new();
        for word in [self.query.id, flags, 1, counts[0], counts[1], additional] {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend(name(&question.name));
        bytes.extend(question.kind.to_be_bytes());
        bytes.extend(question.class.to_be_bytes());
        self.sections.iter().flatten().for_each(|record| bytes.extend(record));
        if let Some(options) = &self.opt {
            let dnssec_ok = if self.query.dnssec_ok() { 0x8000 } else { 0 };
            bytes.extend(record(&[0], OPT, 1232, dnssec_ok, options));
        }
        bytes
    }
}

/// RDATA for a question's type: the same for every answer, so that tests can compare bytes.
pub fn data(kind: u16) -> Vec<u8> {
    match kind {
        A => vec![192, 0, 2, 1],
        AAAA => "2001:db8::1".parse::<std::net::Ipv6Addr>().expect("an address").octets().to_vec(),
        3 | 4 | 7 | 8 | 9 | 39 | CNAME | NS | PTR => name("target.test."),
        SOA => soa(10),
        // MINFO, RP; MX, AFSDB, RT, KX; PX; SRV: numbers and names (RFC 1035, 1183, 2163, 2230, 2782).
        14 | 17 => [name("one.test."), name("two.test.")].concat(),
        MX | 18 | 21 | 36 => [&[0, 10][..], &name("mail.test.")].concat(),
        26 => [&[0, 10][..], &name("one.test."), &name("two.test.")].concat(),
        33 => [&[0, 0, 0, 50, 0, 53][..], &name("host.test.")].concat(),
        // NAPTR (RFC 3403), SIG and RRSIG, NXT and NSEC, SVCB and HTTPS (RFC 9460).
        35 => [&[0, 1, 0, 2, 1, b's', 0, 0][..], &name("next.test.")].concat(),
        24 | RRSIG => signature(A),
        30 | NSEC => [&name("next.test.")[..], &[0, 1, 0x40]].concat(),
        64 | 65 => [&[0, 1][..], &name("service.test."), &[0, 3, 0, 2, 1, 187]].concat(),
        TXT => [&[5][..], b"hello"].concat(),
        // No name, no length, no sense: RFC 3597 says it is carried as it is.
        _ => vec![0xc0, 0x0c, 0x00, 0xff, 0x3f, 0x01, b'X', 0xc1],
    }
}

/// The acts for one query.
pub fn acts(label: &str, arrival: &Arrival<'_>) -> Vec<Act> {
    let Arrival { message: query, tcp, count, .. } = *arrival;
    let question = query.questions.first().expect("checked by the caller");
    let kind = question.kind;
    let plain = || Answer::to(query).own(kind, 300, &data(kind));
    let (word, rest) = label.split_once('-').unwrap_or((label, ""));
    let numbers: Vec<u32> = rest.split('-').filter_map(|number| number.parse().ok()).collect();
    let number = |index: usize, default: u32| numbers.get(index).copied().unwrap_or(default);
    if let Some(ttl) = word.strip_prefix("ttl").and_then(|ttl| ttl.parse().ok()) {
        return vec![Act::Send(Answer::to(query).own(kind, ttl, &data(kind)).bytes())];
    }
    if let Some(acts) = manner(word, rest, number(0, 1), arrival, &plain().bytes()) {
        return acts;
    }
    let answer = match word {
        "nx" => Answer::to(query).rcode(NXDOMAIN).soa(number(0, 60), number(1, 10)),
        "nodata" => Answer::to(query).soa(number(0, 60), number(1, 10)),
        "tc" | "tcclose" | "tcsilent" if !tcp => Answer::to(query).flag(TC),
        "tctail" if !tcp => plain().flag(TC),
        "tctail" => plain().own(kind, 300, &data(kind)),
        "big" | "bignotc" => return vec![Act::Send(big(word == "big" && !tcp, query, number(0, 100)))],
        "addr" if kind == A => {
            let octets: Vec<u8> = numbers.iter().map(|number| *number as u8).collect();
            Answer::to(query).own(A, 300, &octets)
        }
        "addr" => Answer::to(query).soa(60, 10),
        "cname" | "cnamenx" | "cnamend" => chain(word, query, number(0, 2)),
        "flap" if count % 2 == 1 => return acts(rest, arrival),
        _ => fixed(word, query, plain()),
    };
    vec![Act::Send(answer.bytes())]
}

/// Labels that say how an answer comes, if it does, rather than what is in it.
fn manner(word: &str, rest: &str, number: u32, arrival: &Arrival<'_>, plain: &[u8]) -> Option<Vec<Act>> {
    let Arrival { message: query, tcp, count, on_connection } = *arrival;
    let (plain, millis) = (plain.to_vec(), Duration::from_millis(u64::from(number)));
    let half = || framed(&plain)[..2 + plain.len() / 2].to_vec();
    Some(match word {
        "silent" => Vec::new(),
        "slow" => vec![Act::Later(millis, plain)],
        "late" => vec![Act::Later(LATE, plain)],
        "hold" => vec![Act::Hold(plain)],
        "tcclose" if tcp => vec![Act::Close],
        "tcsilent" if tcp => vec![],
        "close" if tcp && count <= number as usize => vec![Act::Close],
        "reset" if tcp && count <= number as usize => vec![Act::Reset],
        "closeafter" if tcp && on_connection >= number as usize => vec![Act::Send(plain), Act::Close],
        "trickle" => vec![Act::Trickle(millis, plain)],
        "half" => vec![Act::Part(half())],
        "halfclose" => vec![Act::Part(half()), Act::Close],
        "dup" => vec![Act::Send(plain.clone()), Act::Send(plain)],
        "flood" if !tcp => vec![Act::Send(wrong::packet("badid", query)); 20],
        "early" if rest == "port" => {
            vec![Act::SendFromOtherPort(wrong::packet(rest, query)), Act::Later(EARLIER, plain)]
        }
        "early" => vec![Act::Send(wrong::packet(rest, query)), Act::Later(EARLIER, plain)],
        kind if wrong::KINDS.contains(&kind) => vec![Act::Send(wrong::packet(kind, query))],
        _ => return None,
    })
}

/// Answers that need no parameter.
fn fixed<'a>(word: &str, query: &'a Message, plain: Answer<'a>) -> Answer<'a> {
    let own = name(&query.questions[0].name);
    let kind = query.questions[0].kind;
    let empty = Answer::to(query);
    let edns = query.opt.is_some();
    match word {
        "two" => empty.own(A, 100, &[192, 0, 2, 1]).own(A, 20, &[192, 0, 2, 2]),
        "sections" => {
            plain.add(1, &name("test."), NS, 100, &name("ns.test.")).add(2, &name("ns.test."), A, 40, &[192, 0, 2, 53])
        }
        "nxnosoa" => empty.rcode(NXDOMAIN),
        "empty" => empty,
        "servfail" => empty.rcode(SERVFAIL),
        "refused" => empty.rcode(REFUSED),
        "formerr" => empty.rcode(FORMERR),
        "notimp" => empty.rcode(NOTIMP),
        "ede" => plain.option(EDE, b"\x00\x11filtered"),
        "edefail" => empty.rcode(SERVFAIL).option(EDE, b"\x00\x06"),
        "tcboth" => plain.flag(TC),
        "options" => plain
            .option(NSID, b"upstream")
            .option(COOKIE, b"12345678abcdefgh")
            .option(ECS, &[0, 1, 24, 24, 192, 0, 2])
            .option(PADDING, &[0; 16])
            .option(KEEPALIVE, &[0, 100]),
        "cnameloop" => {
            let target = name("elsewhere.test.");
            empty.own(CNAME, 300, &target).add(0, &target, CNAME, 300, &own)
        }
        "cnametwo" => empty.own(CNAME, 300, &name("one.test.")).own(CNAME, 300, &name("two.test.")).add(
            0,
            &name("one.test."),
            kind,
            300,
            &data(kind),
        ),
        "extra" => {
            let stranger = name("ttl300.victim.test.");
            plain.add(0, &stranger, A, 300, &[203, 0, 113, 66]).add(1, &stranger, A, 300, &[203, 0, 113, 66]).add(
                2,
                &stranger,
                A,
                300,
                &[203, 0, 113, 66],
            )
        }
        "other" => empty.add(0, &name("ttl300.victim.test."), kind, 300, &data(kind)),
        "ad" if query.has(AD) || query.dnssec_ok() => plain.flag(AD),
        "oversigned" => plain.own(RRSIG, 300, &signature(kind)),
        "signed" if query.dnssec_ok() => plain.own(RRSIG, 300, &signature(kind)),
        "signednx" => {
            let denied = empty.rcode(NXDOMAIN).soa(60, 10);
            if query.dnssec_ok() {
                denied
                    .add(1, &name("test."), RRSIG, 60, &signature(SOA))
                    .add(1, &name("a.test."), NSEC, 60, &[&name("z.test.")[..], &[0, 1, 0x40]].concat())
                    .add(1, &name("a.test."), RRSIG, 60, &signature(NSEC))
            } else {
                denied
            }
        }
        "noedns" if edns => empty.rcode(FORMERR).without_opt(),
        "noednsimp" if edns => empty.rcode(NOTIMP).without_opt(),
        "aa" => plain.flag(AA),
        _ => plain,
    }
}

fn big(may_cut: bool, query: &Message, count: u32) -> Vec<u8> {
    let mut answer = Answer::to(query);
    for index in 0..count {
        let [high, low] = (index as u16).to_be_bytes();
        answer = answer.own(A, 300, &[198, 18, high, low]);
    }
    let bytes = answer.bytes();
    let limit = query.opt.as_ref().map_or(512, |opt| usize::from(opt.size.max(512)));
    if may_cut && bytes.len() > limit { Answer::to(query).flag(TC).bytes() } else { bytes }
}

fn chain<'a>(word: &str, query: &'a Message, links: u32) -> Answer<'a> {
    let kind = query.questions[0].kind;
    let mut owner = name(&query.questions[0].name);
    let mut answer = Answer::to(query);
    for link in 1..=links {
        let target = name(&format!("link{link}.test."));
        answer = answer.add(0, &owner, CNAME, 300 - link, &target);
        owner = target;
    }
    match word {
        "cname" => answer.add(0, &owner, kind, 200, &data(kind)),
        "cnamenx" => answer.rcode(NXDOMAIN).soa(60, 10),
        _ => answer.soa(60, 10),
    }
}

/// RRSIG RDATA (RFC 4034 section 3.1) that is in force from 2000 to 2100; nobody here checks the signature itself.
fn signature(covered: u16) -> Vec<u8> {
    let mut data = covered.to_be_bytes().to_vec();
    data.extend([13, 2]);
    for number in [300u32, 4_102_444_800, 946_684_800] {
        data.extend(number.to_be_bytes());
    }
    data.extend([0x30, 0x39]);
    data.extend(wire::name("test."));
    data.extend([7; 64]);
    data
}
