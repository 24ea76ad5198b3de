//! A stub resolver in a pod, in the words of glibc: which queries a lookup is made of, each really asked.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::cli::scrape::Figures;
use crate::dns::convert::Outgoing;
use crate::dns::header::{self, Count};
use crate::dns::{Class, Expanded, Name, Protocol, Rcode, Record, Type};
use crate::life::aside::Subject;
use crate::observe::Registry;
use crate::observe::counters::UPSTREAM_QUERIES;
use crate::resolve::{Client, Told, Verdict};
use crate::sys::clock;

/// The option of Extended DNS Errors in OPT (RFC 8914 section 2).
const EDE: u16 = 15;

/// A lookup that a program in a pod makes.
pub(super) struct Lookup {
    /// What is asked for each name, in this order.
    pub(super) types: Vec<Type>,
    /// The names of the search list in order; `None` for one that is too long.
    pub(super) list: Vec<Option<Name>>,
    /// The listener that is asked.
    pub(super) listen: u16,
    /// Whether queries ask for DNSSEC's records.
    pub(super) dnssec: bool,
}

/// What a lookup was made of, and how it ended.
pub(super) struct Course {
    pub(super) turns: Vec<Turn>,
    pub(super) end: End,
}

/// The queries for one name, in flight at the same time.
pub(super) struct Turn {
    pub(super) sent: Vec<Sent>,
    /// Questions to upstreams while the replies were awaited, by upstream.
    pub(super) asked: BTreeMap<String, f64>,
}

/// One query and its reply.
pub(super) struct Sent {
    pub(super) name: Name,
    pub(super) qtype: Type,
    pub(super) reply: Reply,
    pub(super) took: Duration,
    /// What its worker counted meanwhile.
    pub(super) grown: Figures,
    /// The walk that it took.
    pub(super) told: Option<Told>,
}

/// What a reply says.
pub(super) struct Reply {
    pub(super) rcode: Rcode,
    /// Whether the answer section holds anything.
    pub(super) answered: bool,
    /// The records of the type asked for, those of addresses and names readable.
    pub(super) data: Vec<String>,
    /// The first Extended DNS Error.
    pub(super) error: Option<String>,
}

/// How a lookup ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Found,
    /// No name has data, but one exists.
    NoData,
    Missing,
    /// A failure came in between, so nobody knows.
    Failed,
}

impl Lookup {
    /// Makes the lookup as glibc does: both families of a name at once; the next name when neither has an answer, on over
    /// SERVFAIL, which is remembered to the end.
    pub(super) async fn run(&self, subject: &Subject) -> Course {
        let (mut turns, mut end) = (Vec::new(), End::Missing);
        for name in self.list.iter().flatten() {
            turns.push(self.turn(subject, name).await);
            let of_name = turns.last().map_or(&[][..], |turn| &turn.sent);
            if of_name.iter().any(|sent| sent.reply.answered) {
                let data = of_name.iter().any(|sent| !sent.reply.data.is_empty());
                return Course { turns, end: if data { End::Found } else { End::NoData } };
            }
            match of_name.iter().map(|sent| sent.reply.rcode).max_by_key(|rcode| severity(*rcode)) {
                Some(Rcode::NXDOMAIN) | None => {}
                Some(Rcode::NOERROR) if end == End::Missing => end = End::NoData,
                Some(Rcode::NOERROR) => {}
                Some(Rcode::SERVFAIL) => end = End::Failed,
                Some(_) => return Course { turns, end: End::Failed },
            }
        }
        Course { turns, end }
    }

    async fn turn(&self, subject: &Subject, name: &Name) -> Turn {
        let before = Figures::read(&subject.registry.render());
        let going: Vec<Going> =
            self.types.iter().enumerate().map(|(worker, qtype)| self.send(subject, worker, name, *qtype)).collect();
        let sent = join_all(going.into_iter().map(Going::reply)).await;
        let grown = Figures::read(&subject.registry.render()).since(&before);
        let asked = grown.by(&UPSTREAM_QUERIES, "to").into_iter().filter(|(_, count)| *count > 0.0).collect();
        Turn { sent, asked }
    }

    /// Gives a query to a worker, which looks at memory, and takes its place where it has to be waited for.
    fn send(&self, subject: &Subject, worker: usize, name: &Name, qtype: Type) -> Going {
        let plain = Outgoing::plain(name.as_wire(), qtype, Class::IN);
        // With EDNS, which glibc does not use by itself, failures say why.
        let message = Outgoing { edns: Some((1232, self.dnssec)), ..plain }.to_wire(0);
        let (registry, started) = (Arc::clone(&subject.registry), clock::now());
        let before = Figures::read(&registry.render_worker(worker));
        let mut out = vec![0; usize::from(u16::MAX)];
        let verdict = match subject.resolver.answer(worker, started, &message, &self.client(subject), &mut out) {
            Verdict::Miss(mut miss) => {
                miss.board();
                Verdict::Miss(miss)
            }
            Verdict::Walk(mut walk) => {
                walk.board();
                Verdict::Walk(walk)
            }
            verdict => verdict,
        };
        Going { name: name.clone(), qtype, registry, worker, before, started, verdict, out }
    }

    /// A program of this host, so that no network has to be let in for it.
    fn client(&self, subject: &Subject) -> Client {
        let local = subject.resolver.routes().listens[usize::from(self.listen)].address;
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Client { peer: loopback, protocol: Protocol::Udp, listen: self.listen, local }
    }
}

/// A query that has been sent.
struct Going {
    name: Name,
    qtype: Type,
    registry: Arc<Registry>,
    worker: usize,
    /// What the worker had counted.
    before: Figures,
    started: Instant,
    verdict: Verdict,
    /// The reply, where that is known.
    out: Vec<u8>,
}

impl Going {
    async fn reply(self) -> Sent {
        let Going { name, qtype, registry, worker, before, started, verdict, mut out } = self;
        let mut told = None;
        match verdict {
            Verdict::Reply(length) => out.truncate(length),
            Verdict::Refresh(length, misses) => {
                out.truncate(length);
                for miss in misses {
                    tokio::task::spawn_local(async move { miss.resolve(&mut Vec::new()).await });
                }
            }
            Verdict::Silence => out.clear(),
            Verdict::Miss(miss) => miss.resolve(&mut out).await,
            Verdict::Walk(walk) => told = Some(walk.resolve_and_tell(&mut out).await),
        }
        let took = clock::now().duration_since(started);
        let grown = Figures::read(&registry.render_worker(worker)).since(&before);
        Sent { name, qtype, reply: Reply::read(&out, qtype), took, grown, told }
    }
}

impl Course {
    pub(super) fn queries(&self) -> impl Iterator<Item = &Sent> {
        self.turns.iter().flat_map(|turn| &turn.sent)
    }

    /// How many questions went to upstreams for it.
    pub(super) fn upstream(&self) -> f64 {
        self.turns.iter().flat_map(|turn| turn.asked.values()).sum()
    }
}

/// All questions to upstreams so far.
pub(super) fn upstream_queries(subject: &Subject) -> f64 {
    Figures::read(&subject.registry.render()).sum(&UPSTREAM_QUERIES).unwrap_or(0.0)
}

/// The worse of two families' RCODEs decides how glibc goes on.
fn severity(rcode: Rcode) -> u8 {
    match rcode {
        Rcode::NXDOMAIN => 0,
        Rcode::NOERROR => 1,
        Rcode::SERVFAIL => 2,
        _ => 3,
    }
}

impl Reply {
    fn of(rcode: Rcode, error: Option<String>) -> Reply {
        Reply { rcode, answered: false, data: Vec::new(), error }
    }

    fn read(message: &[u8], qtype: Type) -> Reply {
        if message.len() < header::LENGTH {
            return Reply::of(Rcode::SERVFAIL, Some("no reply".to_owned()));
        }
        let mut reply = Reply::of(header::rcode(message), None);
        let counts = [Count::Answer, Count::Authority, Count::Additional].map(|which| header::count(message, which));
        reply.answered = reply.rcode == Rcode::NOERROR && counts[0] > 0;
        let question = Expanded::read(message, header::LENGTH).map(|(_, end)| end + 4);
        let (mut at, all) = (question, counts.iter().map(|count| usize::from(*count)).sum());
        for index in 0..all {
            let Some(record) = at.and_then(|at| Record::read(message, at)) else { break };
            at = Some(record.end);
            match record.rtype {
                Type::OPT => reply.error = error(&message[record.rdata..record.end]),
                rtype if rtype == qtype && index < usize::from(counts[0]) => reply.data.push(shown(message, &record)),
                _ => {}
            }
        }
        reply
    }
}

/// An address or a name as text; of other data, its length.
fn shown(message: &[u8], record: &Record) -> String {
    let data = &message[record.rdata..record.end];
    let name = |at| Expanded::read(message, at).and_then(|(name, _)| Name::from_wire(name.as_wire()));
    let text = match record.rtype {
        Type::A => <[u8; 4]>::try_from(data).ok().map(|octets| Ipv4Addr::from(octets).to_string()),
        Type::AAAA => <[u8; 16]>::try_from(data).ok().map(|octets| Ipv6Addr::from(octets).to_string()),
        Type::CNAME | Type::PTR | Type::NS => name(record.rdata).map(|name| name.to_string()),
        Type::SRV if data.len() > 6 => {
            name(record.rdata + 6).map(|name| format!("{name}:{}", header::read_u16(message, record.rdata + 4)))
        }
        _ => None,
    };
    text.unwrap_or_else(|| format!("{} octets", data.len()))
}

/// The first Extended DNS Error among the options of an OPT record.
fn error(mut options: &[u8]) -> Option<String> {
    while options.len() >= 4 {
        let (code, length) = (header::read_u16(options, 0), usize::from(header::read_u16(options, 2)));
        let data = options.get(4..4 + length)?;
        if code == EDE && length >= 2 {
            let text = String::from_utf8_lossy(&data[2..]);
            let printable: String = text.chars().filter(|c| !c.is_control()).collect();
            let number = header::read_u16(data, 0);
            return Some(if printable.is_empty() { format!("Extended DNS Error {number}") } else { printable });
        }
        options = &options[4 + length..];
    }
    None
}
