//! Whether a message answers the question that was sent, and what of it is kept.
//!
//! Kept are the records on the chain from QNAME, the proof of a denial, and the addresses of names that kept records
//! point at. Everything else could only be used to plant data (RFC 5452 section 6), and is left out.

use crate::dns::convert::Outgoing;
use crate::dns::header::{self, Count};
use crate::dns::record::{Expanded, Field, fields};
use crate::dns::reply::is_dnssec;
use crate::dns::{Builder, Rcode, Record, Response, Type, edns, name, question};

use super::asked::Asked;

/// The longest chain of aliases that is followed.
const MAX_CHAIN: usize = 16;

/// The most names of which additional records are kept.
const MAX_TARGETS: usize = 64;

/// Why a message is not the answer to the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// It is no response to this question at all.
    Question,
    /// A record does not fit into the message, or a name cannot be read (RFC 9267).
    Malformed,
    /// Two aliases for one name, or a chain that comes back or does not end (RFC 2181 section 10.1).
    Chain,
}

/// Takes from `message`, the answer to our `query`, what belongs to it.
pub fn accept(query: &[u8], message: &[u8]) -> Result<Response, Mismatch> {
    if !question::echoes(query, message) {
        return Err(Mismatch::Question);
    }
    let question_end = question::question_end(query).ok_or(Mismatch::Question)?;
    let sections = Sections::read(message, question_end)?;
    let chain = Chain::follow(message, query, question_end, &sections)?;
    chain.build(message, query, question_end, &sections)
}

impl Mismatch {
    /// What happened, for people.
    pub fn text(self) -> &'static str {
        match self {
            Mismatch::Question => "the response is to another question",
            Mismatch::Malformed => "the response is malformed",
            Mismatch::Chain => "the chain of aliases loops or forks",
        }
    }
}

/// The records of a message by section, and its OPT.
struct Sections {
    records: Vec<(Count, Record)>,
    opt: Option<Record>,
}

/// The names from QNAME to the end of its aliases.
struct Chain {
    names: Vec<Expanded>,
    qtype: Type,
    dnssec_ok: bool,
}

impl Sections {
    fn read(message: &[u8], question_end: usize) -> Result<Sections, Mismatch> {
        let mut sections = Sections { records: Vec::new(), opt: None };
        let mut at = question_end;
        for section in [Count::Answer, Count::Authority, Count::Additional] {
            for _ in 0..header::count(message, section) {
                let Some(record) = Record::read(message, at) else {
                    // A truncated answer may promise more than it holds; what is there is used as far as it goes.
                    return if header::truncated(message) { Ok(sections) } else { Err(Mismatch::Malformed) };
                };
                at = record.end;
                match record.rtype {
                    Type::OPT if section == Count::Additional => sections.opt = Some(record),
                    Type::OPT | Type::TSIG => {}
                    _ => sections.records.push((section, record)),
                }
            }
        }
        Ok(sections)
    }

    fn of(&self, section: Count) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(move |(in_section, _)| *in_section == section).map(|(_, record)| record)
    }
}

impl Chain {
    fn follow(message: &[u8], query: &[u8], question_end: usize, sections: &Sections) -> Result<Chain, Mismatch> {
        let (qname, _) = Expanded::read(query, header::LENGTH).ok_or(Mismatch::Question)?;
        let qtype = Type(header::read_u16(query, question_end - 4));
        let mut chain = Chain { names: vec![qname], qtype, dnssec_ok: dnssec_ok(query, question_end) };
        if matches!(qtype, Type::CNAME | Type::ANY) {
            // The chain ends where it begins, but even so a name has one alias.
            chain.next(message, sections)?;
            return Ok(chain);
        }
        while let Some(target) = chain.next(message, sections)? {
            let comes_back = chain.names.iter().any(|name| name.is(target.as_wire()));
            if comes_back || chain.names.len() >= MAX_CHAIN {
                return Err(Mismatch::Chain);
            }
            chain.names.push(target);
        }
        Ok(chain)
    }

    /// The target of the one alias of the chain's last name.
    fn next(&self, message: &[u8], sections: &Sections) -> Result<Option<Expanded>, Mismatch> {
        let last = self.names.last().expect("the chain starts with QNAME");
        let mut target: Option<Expanded> = None;
        for record in sections.of(Count::Answer).filter(|record| record.rtype == Type::CNAME) {
            let owner = record.owner(message).ok_or(Mismatch::Malformed)?;
            if !owner.is(last.as_wire()) {
                continue;
            }
            let (to, _) = Expanded::read(message, record.rdata).ok_or(Mismatch::Malformed)?;
            match &target {
                Some(other) if !other.is(to.as_wire()) => return Err(Mismatch::Chain),
                _ => target = Some(to),
            }
        }
        Ok(target)
    }

    fn build(
        &self,
        message: &[u8],
        query: &[u8],
        question_end: usize,
        sections: &Sections,
    ) -> Result<Response, Mismatch> {
        let mut builder = Builder::new(query, question_end, [message[2], message[3]]);
        let mut targets = Vec::new();
        for (section, record) in &sections.records {
            let owner = record.owner(message).ok_or(Mismatch::Malformed)?;
            if self.keeps(*section, record, &owner, &targets) {
                note_targets(message, record, &mut targets);
                builder.copy(*section, message, record).ok_or(Mismatch::Malformed)?;
            }
        }
        let (rcode, errors) = match &sections.opt {
            Some(opt) => (extended(message, opt), edns::keep_errors(&message[opt.rdata..opt.end])),
            None => (header::rcode(message), Vec::new()),
        };
        Ok(builder.build(rcode, errors))
    }

    fn keeps(&self, section: Count, record: &Record, owner: &Expanded, targets: &[Expanded]) -> bool {
        if is_dnssec(record.rtype) && !self.dnssec_ok && !matches!(self.qtype, Type::ANY) && record.rtype != self.qtype
        {
            return false;
        }
        match section {
            Count::Answer => self.answers(record, owner),
            Count::Authority => self.proves(record, owner),
            _ => {
                matches!(record.rtype, Type::A | Type::AAAA | Type::RRSIG)
                    && (self.has(owner) || targets.iter().any(|target| target.is(owner.as_wire())))
            }
        }
    }

    fn answers(&self, record: &Record, owner: &Expanded) -> bool {
        match record.rtype {
            Type::DNAME => self.names.iter().any(|name| is_under(name, owner)),
            Type::RRSIG if self.dnssec_ok => self.names.iter().any(|name| is_under(name, owner)),
            Type::CNAME => self.has(owner),
            rtype => (rtype == self.qtype || self.qtype == Type::ANY) && self.has(owner),
        }
    }

    /// SOA and NS of a zone that a name of the chain is in; the records of DNSSEC, whose owners are elsewhere in it.
    fn proves(&self, record: &Record, owner: &Expanded) -> bool {
        match record.rtype {
            Type::SOA | Type::NS | Type::DS => self.names.iter().any(|name| is_under(name, owner)),
            rtype => is_dnssec(rtype),
        }
    }

    fn has(&self, owner: &Expanded) -> bool {
        self.names.iter().any(|name| name.is(owner.as_wire()))
    }
}

fn is_under(name: &Expanded, zone: &Expanded) -> bool {
    name::is_under(&name.as_wire().to_ascii_lowercase(), &zone.as_wire().to_ascii_lowercase())
}

fn note_targets(message: &[u8], record: &Record, targets: &mut Vec<Expanded>) {
    let mut at = record.rdata;
    for field in fields(record.rtype) {
        match field {
            Field::Octets(count) => at += usize::from(*count),
            Field::Text => at += 1 + usize::from(message.get(at).copied().unwrap_or(0)),
            Field::Name => {
                let Some((name, end)) = Expanded::read(message, at) else { return };
                if targets.len() < MAX_TARGETS {
                    targets.push(name);
                }
                at = end;
            }
        }
    }
}

/// Whether our own query asked for DNSSEC records: DO in the OPT that ends it.
fn dnssec_ok(query: &[u8], question_end: usize) -> bool {
    Record::read(query, question_end).is_some_and(|opt| opt.rtype == Type::OPT && opt.ttl & 0x8000 != 0)
}

fn extended(message: &[u8], opt: &Record) -> Rcode {
    Rcode(((opt.ttl >> 24) as u16) << 4 | header::rcode(message).0)
}

/// The query that goes upstream: our own header and OPT around the client's question (RFC 6891 section 6.2.6: options
/// of one leg are not those of the other); `size` is that of our OPT. The ID is 0.
pub(super) fn upstream_query(asked: &Asked, size: u16) -> Vec<u8> {
    let query = Outgoing {
        recursion_desired: asked.bits.recursion_desired(),
        authentic_data: true,
        checking_disabled: asked.bits.checking_disabled(),
        edns: Some((size, asked.bits.dnssec_ok())),
        ..Outgoing::plain(&asked.name, asked.qtype, asked.qclass)
    };
    query.to_wire(0)
}
