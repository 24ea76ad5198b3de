//! Responses in the form in which they are kept: wire bytes without OPT, with the places of their TTLs noted.

use super::codes::{Class, Rcode, Type};
use super::header::{self, Count, LENGTH, write_u16};
use super::record::{Expanded, Field, Record, fields, may_arrive_compressed, may_compress};

/// A response without its OPT: what is stored, and what replies are copied from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// In one piece, so that a hit touches as little memory as can be: header, question and records, names compressed,
    /// the ID 0; then where each TTL stands, two octets each; then EDE options of the upstream in wire form.
    octets: Box<[u8]>,
    /// How long the first part is.
    length: u16,
    /// How many records there are.
    ttls: u16,
    /// Where the question ends.
    pub(super) question_end: u16,
    /// The whole RCODE, upper bits included.
    pub(super) rcode: Rcode,
}

/// Puts a [`Response`] together record by record, compressing names.
pub struct Builder {
    wire: Vec<u8>,
    ttls: Vec<u16>,
    question_end: usize,
    counts: [u16; 3],
    /// Hash and place of each name suffix written so far.
    known: Vec<(u32, u16)>,
}

/// The most name suffixes that are remembered for compression: a bound on the work for one message.
const MAX_KNOWN: usize = 256;

/// A message has at most so many octets.
const MAX_MESSAGE: usize = 65_535;

impl Response {
    /// The wire form: header, question, records, no OPT; ID 0.
    pub fn wire(&self) -> &[u8] {
        &self.octets[..usize::from(self.length)]
    }

    /// Where each TTL stands.
    pub(super) fn ttls(&self) -> impl Iterator<Item = usize> {
        let places = &self.octets[usize::from(self.length)..][..usize::from(self.ttls) * 2];
        places.as_chunks().0.iter().map(|place| usize::from(u16::from_be_bytes(*place)))
    }

    /// The RCODE, extended bits included.
    pub fn rcode(&self) -> Rcode {
        self.rcode
    }

    /// QTYPE of the question that it was given to.
    pub fn qtype(&self) -> Type {
        Type(header::read_u16(&self.octets, usize::from(self.question_end) - 4))
    }

    /// Whether the upstream vouched for the data (AD).
    pub fn authentic(&self) -> bool {
        self.wire()[3] & header::AD != 0
    }

    /// TC, where even TCP gave no whole answer.
    pub fn truncated(&self) -> bool {
        header::truncated(self.wire())
    }

    /// ANCOUNT.
    pub fn answers(&self) -> u16 {
        header::count(self.wire(), Count::Answer)
    }

    /// Whether the answer section has what was asked for, not only aliases on the way there.
    pub fn has_answer(&self, qtype: Type) -> bool {
        self.records()
            .take_while(|(section, _)| *section == Count::Answer)
            .any(|(_, record)| record.rtype == qtype || qtype == Type::ANY)
    }

    /// How many octets this occupies in memory.
    pub fn footprint(&self) -> usize {
        self.octets.len() + size_of::<Response>()
    }

    /// The EDE options that came with the response, in wire form.
    pub fn errors(&self) -> &[u8] {
        &self.octets[usize::from(self.length) + usize::from(self.ttls) * 2..]
    }

    /// The records in order, with the section each is in.
    pub fn records(&self) -> impl Iterator<Item = (Count, Record)> {
        let ends = [Count::Answer, Count::Authority, Count::Additional]
            .map(|section| (section, header::count(self.wire(), section)));
        let sections = ends.into_iter().flat_map(|(section, count)| (0..count).map(move |_| section));
        let mut at = usize::from(self.question_end);
        sections.map_while(move |section| {
            let record = Record::read(self.wire(), at)?;
            at = record.end;
            Some((section, record))
        })
    }
}

impl Builder {
    /// Starts with the header and question of `query`, a message of ours; flags as the upstream's `response` has them,
    /// of which only RCODE, AD and TC are kept.
    pub fn new(query: &[u8], question_end: usize, response_flags: [u8; 2]) -> Builder {
        let mut wire = Vec::with_capacity(512);
        wire.extend(&query[..question_end]);
        wire[0..2].fill(0);
        wire[2] = header::QR | (response_flags[0] & header::TC);
        wire[3] = header::RA | (response_flags[1] & (header::AD | 0x0f));
        write_u16(&mut wire, Count::Question as usize, 1);
        wire[6..LENGTH].fill(0);
        let mut builder = Builder { wire, ttls: Vec::new(), question_end, counts: [0; 3], known: Vec::new() };
        builder.remember(LENGTH);
        builder
    }

    /// Adds a record of another message. `None` where it is malformed or the message would be too long.
    pub fn copy(&mut self, section: Count, message: &[u8], record: &Record) -> Option<()> {
        let owner = record.owner(message)?;
        let from = self.wire.len();
        self.start(&owner, record.rtype, record.class, record.ttl);
        self.copy_rdata(message, record)?;
        self.finish(section, from)
    }

    /// Adds a record of our own, whose RDATA holds no name.
    pub fn add(&mut self, section: Count, owner: &[u8], rtype: Type, ttl: u32, rdata: &[u8]) -> Option<()> {
        let (owner, _) = Expanded::read(owner, 0)?;
        let from = self.wire.len();
        self.start(&owner, rtype, Class::IN, ttl);
        self.wire.extend(rdata);
        self.finish(section, from)
    }

    /// Adds an alias of our own. Records of its target that follow point at it.
    pub fn alias(&mut self, owner: &[u8], ttl: u32, target: &[u8]) -> Option<()> {
        let (owner, _) = Expanded::read(owner, 0)?;
        let (target, _) = Expanded::read(target, 0)?;
        let from = self.wire.len();
        self.start(&owner, Type::CNAME, Class::IN, ttl);
        self.write_name(target.as_wire(), true);
        self.finish(Count::Answer, from)
    }

    /// The response, with its whole RCODE and the EDE options that came along.
    pub fn build(mut self, rcode: Rcode, errors: Vec<u8>) -> Response {
        for (section, count) in [Count::Answer, Count::Authority, Count::Additional].into_iter().zip(self.counts) {
            header::set_count(&mut self.wire, section, count);
        }
        self.wire[3] = self.wire[3] & 0xf0 | (rcode.0 & 0x0f) as u8;
        let length = self.wire.len() as u16;
        self.wire.extend(self.ttls.iter().flat_map(|place| place.to_be_bytes()));
        self.wire.extend(errors);
        Response {
            // A copy of the right size fits where an entry was before. The large buffer, cut to size, would need as much room
            // as it began with, and leave a hole beside each entry.
            octets: self.wire.as_slice().into(),
            length,
            ttls: self.ttls.len() as u16,
            question_end: self.question_end as u16,
            rcode,
        }
    }

    fn start(&mut self, owner: &Expanded, rtype: Type, class: Class, ttl: u32) {
        let question_name = &self.wire[LENGTH..self.question_end - 4];
        if owner.is(question_name) && question_name.len() > 1 {
            // A pointer to the question takes on the spelling of each client.
            self.wire.extend([0xc0, LENGTH as u8]);
        } else {
            self.write_name(owner.as_wire(), true);
        }
        self.wire.extend(rtype.0.to_be_bytes());
        self.wire.extend(class.0.to_be_bytes());
        // Kept only where a pointer to it can be written; a longer message is refused in `finish`.
        self.ttls.push(self.wire.len() as u16);
        self.wire.extend(ttl.to_be_bytes());
        self.wire.extend([0, 0]);
    }

    fn finish(&mut self, section: Count, from: usize) -> Option<()> {
        let ttl_at = usize::from(*self.ttls.last()?);
        if self.wire.len() > MAX_MESSAGE {
            self.ttls.pop();
            self.wire.truncate(from);
            return None;
        }
        let length = self.wire.len() - (ttl_at + 6);
        write_u16(&mut self.wire, ttl_at + 4, length as u16);
        self.counts[section as usize / 2 - 3] += 1;
        Some(())
    }

    fn copy_rdata(&mut self, message: &[u8], record: &Record) -> Option<()> {
        let mut at = record.rdata;
        let named = if may_arrive_compressed(record.rtype) { fields(record.rtype) } else { &[] };
        for field in named {
            match field {
                Field::Octets(count) => at = self.copy_octets(message, at, usize::from(*count), record.end)?,
                Field::Text => {
                    let length = usize::from(*message.get(at)?);
                    at = self.copy_octets(message, at, length + 1, record.end)?;
                }
                Field::Name => {
                    let (name, end) = Expanded::read(message, at)?;
                    if end > record.end {
                        return None;
                    }
                    self.write_name(name.as_wire(), may_compress(record.rtype));
                    at = end;
                }
            }
        }
        self.wire.extend(message.get(at..record.end)?);
        Some(())
    }

    fn copy_octets(&mut self, message: &[u8], at: usize, count: usize, limit: usize) -> Option<usize> {
        let end = at + count;
        if end > limit {
            return None;
        }
        self.wire.extend(message.get(at..end)?);
        Some(end)
    }

    /// Writes a name, as a pointer from the first suffix on that was written before in the same spelling.
    fn write_name(&mut self, name: &[u8], compress: bool) {
        let from = self.wire.len();
        let mut at = 0;
        while name[at] != 0 {
            if compress && let Some(place) = self.find(&name[at..]) {
                self.wire.extend(&name[..at]);
                self.wire.extend((0xc000 | place).to_be_bytes());
                self.remember(from);
                return;
            }
            at += usize::from(name[at]) + 1;
        }
        self.wire.extend(name);
        self.remember(from);
    }

    fn find(&self, suffix: &[u8]) -> Option<u16> {
        let hash = hash(suffix);
        let mut candidates = self.known.iter().filter(|&&(known, _)| known == hash);
        candidates
            .find(|&&(_, place)| {
                Expanded::read(&self.wire, usize::from(place)).is_some_and(|(name, _)| name.as_wire() == suffix)
            })
            .map(|&(_, place)| place)
    }

    /// Notes the suffixes of the name that was written at `from`, up to the first pointer.
    fn remember(&mut self, from: usize) {
        let mut at = from;
        while at < 0x4000 && self.known.len() < MAX_KNOWN && matches!(self.wire[at], 1..=63) {
            if let Some((suffix, _)) = Expanded::read(&self.wire, at) {
                self.known.push((hash(suffix.as_wire()), at as u16));
            }
            at += usize::from(self.wire[at]) + 1;
        }
    }
}

/// FNV-1a, only to tell suffixes of one message apart quickly; equality is checked octet by octet.
fn hash(octets: &[u8]) -> u32 {
    octets.iter().fold(0x811c_9dc5, |hash, &octet| (hash ^ u32::from(octet)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_an_alias_target_point_at_it() {
        let query = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x03www\x04test\x04shop\0\0\x01\0\x01";
        let mut builder = Builder::new(query, query.len(), [0, 0]);
        builder.alias(&query[LENGTH..query.len() - 4], 5, b"\x03www\x04test\0").unwrap();
        builder.add(Count::Answer, b"\x03www\x04test\0", Type::A, 5, &[192, 0, 2, 1]).unwrap();
        let response = builder.build(Rcode::NOERROR, Vec::new());
        let records: Vec<Record> = response.records().map(|(_, record)| record).collect();
        let (target, _) = Expanded::read(response.wire(), records[0].rdata).unwrap();
        assert_eq!(target.as_wire(), b"\x03www\x04test\0");
        assert_eq!(records[1].owner(response.wire()).unwrap().as_wire(), target.as_wire());
        assert_eq!(response.wire()[records[1].start], 0xc0, "in two octets");
    }
}
