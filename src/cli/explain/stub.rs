//! A stub resolver in a pod, in the words of glibc: which queries a lookup is made of, each really asked.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::cli::scrape::Figures;
use crate::dns::convert::Outgoing;
use crate::dns::header::{self, Count};
use crate::dns::{Class, Expanded, Name, Protocol, Rcode, Record, Type};
use crate::life::aside::Subject;
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
}

/// One query and its reply.
pub(super) struct Sent {
    pub(super) name: Name,
    pub(super) qtype: Type,
    pub(super) reply: Reply,
    pub(super) took: Duration,
    /// Questions to upstreams while the reply was awaited, by upstream.
    pub(super) asked: BTreeMap<String, f64>,
    /// All counts, as far as they grew meanwhile.
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
    /// Makes the lookup as glibc does: the next name when neither family has an answer, on over SERVFAIL, which is
    /// remembered to the end. Families are asked one after the other here, so that what one costs can be told.
    pub(super) async fn run(&self, subject: &Subject) -> (Vec<Sent>, End) {
        let (mut sent, mut end) = (Vec::new(), End::Missing);
        for name in self.list.iter().flatten() {
            let from = sent.len();
            for qtype in &self.types {
                sent.push(self.ask(subject, name, *qtype).await);
            }
            let of_name = &sent[from..];
            if of_name.iter().any(|sent| sent.reply.answered) {
                let data = of_name.iter().any(|sent| !sent.reply.data.is_empty());
                return (sent, if data { End::Found } else { End::NoData });
            }
            match of_name.iter().map(|sent| sent.reply.rcode).max_by_key(|rcode| severity(*rcode)) {
                Some(Rcode::NXDOMAIN) | None => {}
                Some(Rcode::NOERROR) if end == End::Missing => end = End::NoData,
                Some(Rcode::NOERROR) => {}
                Some(Rcode::SERVFAIL) => end = End::Failed,
                Some(_) => return (sent, End::Failed),
            }
        }
        (sent, end)
    }

    async fn ask(&self, subject: &Subject, name: &Name, qtype: Type) -> Sent {
        let plain = Outgoing::plain(name.as_wire(), qtype, Class::IN);
        // With EDNS, which glibc does not use by itself, failures say why.
        let message = Outgoing { edns: Some((1232, false)), ..plain }.to_wire(0);
        let (before, started) = (Figures::read(&subject.registry.render()), clock::now());
        let mut out = vec![0; usize::from(u16::MAX)];
        let (client, mut told) = (self.client(subject), None);
        match subject.resolver.answer(0, started, &message, &client, &mut out) {
            Verdict::Reply(length) => out.truncate(length),
            Verdict::Refresh(length, refreshes) => {
                out.truncate(length);
                for refresh in refreshes {
                    tokio::task::spawn_local(async move { refresh.resolve(&mut Vec::new()).await });
                }
            }
            Verdict::Silence => out.clear(),
            Verdict::Miss(miss) => miss.resolve(&mut out).await,
            Verdict::Walk(walk) => told = Some(walk.resolve_and_tell(&mut out).await),
        }
        let took = clock::now().duration_since(started);
        let grown = Figures::read(&subject.registry.render()).since(&before);
        let asked = grown.by(&UPSTREAM_QUERIES, "to").into_iter().filter(|(_, count)| *count > 0.0).collect();
        Sent { name: name.clone(), qtype, reply: Reply::read(&out, qtype), took, asked, grown, told }
    }

    /// A program of this host, so that no network has to be let in for it.
    fn client(&self, subject: &Subject) -> Client {
        let local = subject.resolver.routes().listens[usize::from(self.listen)].address;
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Client { peer: loopback, protocol: Protocol::Udp, listen: self.listen, local }
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

impl Sent {
    /// How many questions went to upstreams for it.
    pub(super) fn upstream(&self) -> f64 {
        self.asked.values().sum()
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
