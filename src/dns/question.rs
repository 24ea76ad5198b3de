//! Questions: a client's query taken apart without allocating, and the check that a response answers a query.

use super::codes::{Class, OPCODE_QUERY, Type};
use super::edns::Edns;
use super::header::{self, Count, LENGTH, read_u16};
use super::name::MAX_NAME;
use super::record::{Record, skip_name};

/// The octets after the name in a cache key: type, class, bits.
const SUFFIX: usize = 5;

/// A well-formed query: opcode QUERY, one question, at most one OPT. Borrows the datagram; owns its lower-cased name.
pub struct Query<'a> {
    /// The whole message.
    pub message: &'a [u8],
    /// Where the question section ends.
    pub question_end: usize,
    /// QTYPE.
    pub qtype: Type,
    /// QCLASS.
    pub qclass: Class,
    /// The client's OPT, where it sent one.
    pub edns: Option<Edns>,
    /// Whether a TSIG or SIG(0) record closes the message (RFC 8945, RFC 2931).
    pub signed: bool,
    /// The lower-cased name, then room for the suffix of a cache key.
    scratch: [u8; MAX_NAME + SUFFIX],
    name_length: u8,
    labels: [u8; 128],
    label_count: u8,
}

/// What is wrong with a message that is no [`Query`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// Not even a header, or a response: no reply at all (RFC 1035 section 4.1.1; a reply could start a ping-pong).
    Silent,
    /// Another opcode than QUERY: NOTIMP, header only (RFC 8906 section 7).
    Opcode {
        /// Whether an OPT was seen, so that the reply has one too (RFC 6891 section 7).
        edns: bool,
    },
    /// Cannot be read, or has not exactly one question (RFC 9619): FORMERR. `question_end` is where the question ends
    /// if it could be read.
    Format {
        /// Where the question section ends, or 0.
        question_end: usize,
        /// Whether an OPT was seen, so that the reply has one too (RFC 6891 section 7).
        edns: bool,
    },
}

impl<'a> Query<'a> {
    /// Takes a message apart. Costs one pass over it and no allocation.
    pub fn parse(message: &'a [u8]) -> Result<Query<'a>, Unfit> {
        if message.len() < LENGTH || header::is_response(message) {
            return Err(Unfit::Silent);
        }
        if header::opcode(message) != OPCODE_QUERY {
            return Err(Unfit::Opcode { edns: has_opt(message) });
        }
        if header::count(message, Count::Question) != 1 {
            return Err(Unfit::Format { question_end: 0, edns: has_opt(message) });
        }
        let mut query = Query {
            message,
            question_end: 0,
            qtype: Type(0),
            qclass: Class(0),
            edns: None,
            signed: false,
            scratch: [0; MAX_NAME + SUFFIX],
            name_length: 0,
            labels: [0; 128],
            label_count: 0,
        };
        let end = query.read_name().ok_or(Unfit::Format { question_end: 0, edns: false })?;
        if message.len() < end + 4 {
            return Err(Unfit::Format { question_end: 0, edns: false });
        }
        query.qtype = Type(read_u16(message, end));
        query.qclass = Class(read_u16(message, end + 2));
        query.question_end = end + 4;
        query.read_records()?;
        Ok(query)
    }

    /// The message ID.
    pub fn id(&self) -> u16 {
        header::id(self.message)
    }

    /// QNAME as the client spelt it, wire form.
    pub fn spelling(&self) -> &'a [u8] {
        &self.message[LENGTH..LENGTH + usize::from(self.name_length)]
    }

    /// QNAME in lower case, wire form.
    pub fn name(&self) -> &[u8] {
        &self.scratch[..usize::from(self.name_length)]
    }

    /// Where each label of [`Query::name`] starts, the root not counted.
    pub fn label_offsets(&self) -> &[u8] {
        &self.labels[..usize::from(self.label_count)]
    }

    /// RD.
    pub fn recursion_desired(&self) -> bool {
        self.message[2] & header::RD != 0
    }

    /// CD (RFC 4035 section 3.2.2).
    pub fn checking_disabled(&self) -> bool {
        self.message[3] & header::CD != 0
    }

    /// AD, which in a query says that the client understands it (RFC 6840 section 5.7).
    pub fn authentic_data(&self) -> bool {
        self.message[3] & header::AD != 0
    }

    /// DO (RFC 3225).
    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    /// The octets that identify the question in a cache: name, type, class, and one octet of bits. The type may be
    /// given as another one than the client's.
    pub fn key(&mut self, qtype: Type, bits: u8) -> &[u8] {
        let at = usize::from(self.name_length);
        self.scratch[at..at + 2].copy_from_slice(&qtype.0.to_be_bytes());
        self.scratch[at + 2..at + 4].copy_from_slice(&self.qclass.0.to_be_bytes());
        self.scratch[at + 4] = bits;
        &self.scratch[..at + SUFFIX]
    }

    /// Reads QNAME, lower-casing it and noting its labels. A pointer has nothing to point at in a first name
    /// (RFC 1035 section 4.1.4: an earlier occurrence), so it is refused.
    fn read_name(&mut self) -> Option<usize> {
        let wire = &self.message[LENGTH..];
        let mut at = 0;
        loop {
            let length = *wire.get(at)?;
            match length {
                0 => break,
                1..=63 => {
                    let next = at + 1 + usize::from(length);
                    // The zero octet has to fit as well.
                    if next >= MAX_NAME || next > wire.len() {
                        return None;
                    }
                    self.labels[usize::from(self.label_count)] = at as u8;
                    self.label_count += 1;
                    at = next;
                }
                _ => return None,
            }
        }
        let length = at + 1;
        // A length octet is at most 63, below any letter, so lower-casing the whole name leaves it alone.
        for (to, from) in self.scratch[..length].iter_mut().zip(wire) {
            *to = from.to_ascii_lowercase();
        }
        self.name_length = length as u8;
        Some(LENGTH + length)
    }

    /// Reads what follows the question: at most one OPT counts, other records only have to be whole.
    fn read_records(&mut self) -> Result<(), Unfit> {
        let broken = || Unfit::Format { question_end: self.question_end, edns: has_opt(self.message) };
        let answers = header::count(self.message, Count::Answer);
        let authority = header::count(self.message, Count::Authority);
        let additional = header::count(self.message, Count::Additional);
        if answers == 0 && authority == 0 && additional == 0 {
            return Ok(());
        }
        // More than these no query has: an IXFR carries one SOA in authority, a signed query OPT and TSIG.
        if answers > 1 || authority > 1 || additional > 2 {
            return Err(broken());
        }
        let mut at = self.question_end;
        for index in 0..answers + authority + additional {
            let record = Record::read(self.message, at).ok_or_else(broken)?;
            at = record.end;
            if index < answers + authority {
                continue;
            }
            match record.rtype {
                Type::OPT => {
                    let bad_opt = Unfit::Format { question_end: self.question_end, edns: true };
                    if self.edns.is_some() || self.message[record.start] != 0 {
                        return Err(bad_opt);
                    }
                    self.edns = Some(Edns::read(self.message, &record).ok_or(bad_opt)?);
                }
                Type::TSIG | Type::SIG => self.signed = true,
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether an OPT stands anywhere in a message, as far as it can be read.
pub fn has_opt(message: &[u8]) -> bool {
    let mut at = LENGTH;
    for _ in 0..header::count(message, Count::Question) {
        match skip_name(message, at) {
            Some(end) => at = end + 4,
            None => return false,
        }
    }
    let records = [Count::Answer, Count::Authority, Count::Additional].map(|section| header::count(message, section));
    for _ in 0..records.into_iter().map(u32::from).sum() {
        let Some(record) = Record::read(message, at) else { return false };
        if record.rtype == Type::OPT {
            return true;
        }
        at = record.end;
    }
    false
}

/// Whether `response` is a response to the question of `query`: QR, opcode, one question, and QNAME (in any case),
/// QTYPE and QCLASS the same (RFC 5452 section 9.1). IDs are not compared. `query` is one that this process made, so its
/// question is whole.
pub fn echoes(query: &[u8], response: &[u8]) -> bool {
    if query.len() < LENGTH || response.len() < LENGTH {
        return false;
    }
    if !header::is_response(response)
        || header::opcode(response) != header::opcode(query)
        || header::count(response, Count::Question) != 1
    {
        return false;
    }
    let Some(end) = question_end(query) else { return false };
    // Length octets are below 64 and compare alike in either case; type and class must be equal octet by octet.
    response.len() >= end
        && response[LENGTH..end - 4].eq_ignore_ascii_case(&query[LENGTH..end - 4])
        && response[end - 4..end] == query[end - 4..end]
}

/// Where the one question of a message ends; `None` where its name is compressed or cut.
pub fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = LENGTH;
    loop {
        match *message.get(at)? {
            0 => break,
            length @ 1..=63 => at += usize::from(length) + 1,
            _ => return None,
        }
    }
    (message.len() >= at + 5).then_some(at + 5)
}
