//! Questions as a client writes them and replies as it reads them.

use super::wire::{self, CNAME, MX, NS, OPT, PTR, QR, RD, SOA, TC};

/// A query being written. Starts as an ordinary one: RD=1, class IN, a random ID, no EDNS.
#[derive(Clone, Debug)]
pub struct Query {
    pub id: u16,
    pub flags: u16,
    pub name: Vec<u8>,
    pub kind: u16,
    pub class: u16,
    questions: u16,
    edns: Option<Edns>,
    additional: Vec<Vec<u8>>,
}

/// The OPT record of a query.
#[derive(Clone, Debug, Default)]
pub struct Edns {
    size: u16,
    version: u8,
    flags: u16,
    options: Vec<u8>,
}

impl Query {
    pub fn new(name: &str, kind: u16) -> Query {
        Query {
            id: rand::random(),
            flags: RD,
            name: wire::name(name),
            kind,
            class: wire::IN,
            questions: 1,
            edns: None,
            additional: Vec::new(),
        }
    }

    /// Sets or clears header bits.
    pub fn flag(mut self, bits: u16, on: bool) -> Query {
        self.flags = if on { self.flags | bits } else { self.flags & !bits };
        self
    }

    pub fn opcode(self, opcode: u16) -> Query {
        self.flag(opcode << 11, true)
    }

    pub fn class(mut self, class: u16) -> Query {
        self.class = class;
        self
    }

    pub fn with_id(mut self, id: u16) -> Query {
        self.id = id;
        self
    }

    /// Writes the question this many times and says so in QDCOUNT.
    pub fn questions(mut self, count: u16) -> Query {
        self.questions = count;
        self
    }

    /// Adds an OPT record that advertises `size`.
    pub fn edns(mut self, size: u16) -> Query {
        self.edns.get_or_insert_default().size = size;
        self
    }

    pub fn version(mut self, version: u8) -> Query {
        self.edns.get_or_insert_default().version = version;
        self
    }

    /// The 16 flag bits of the OPT record; DO is 0x8000.
    pub fn edns_flags(mut self, flags: u16) -> Query {
        self.edns.get_or_insert_default().flags = flags;
        self
    }

    /// EDNS with size 1232 and the DO bit (RFC 3225).
    pub fn dnssec_ok(self) -> Query {
        self.edns(1232).edns_flags(0x8000)
    }

    pub fn option(mut self, code: u16, data: &[u8]) -> Query {
        self.edns.get_or_insert_default().options.extend(wire::option(code, data));
        self
    }

    /// Bytes put behind the header's own sections and counted as one more additional record.
    pub fn additional(mut self, record: Vec<u8>) -> Query {
        self.additional.push(record);
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let opt = self.edns.as_ref().map(|edns| {
            let ttl = u32::from(edns.version) << 16 | u32::from(edns.flags);
            wire::record(&[0], OPT, edns.size, ttl, &edns.options)
        });
        let mut additional = self.additional.clone();
        additional.extend(opt);
        let mut bytes = Vec::new();
        for word in [self.id, self.flags, self.questions, 0, 0, additional.len() as u16] {
            bytes.extend(word.to_be_bytes());
        }
        for _ in 0..self.questions.min(8) {
            bytes.extend(&self.name);
            bytes.extend(self.kind.to_be_bytes());
            bytes.extend(self.class.to_be_bytes());
        }
        additional.iter().for_each(|record| bytes.extend(record));
        bytes
    }
}

/// A whole message taken apart: a reply a client got, or a query an upstream got.
#[derive(Clone, Debug)]
pub struct Message {
    pub raw: Vec<u8>,
    pub id: u16,
    pub flags: u16,
    /// RCODE with the upper bits of the OPT record (RFC 6891 section 6.1.3).
    pub rcode: u16,
    pub questions: Vec<Question>,
    pub answers: Vec<Record>,
    pub authority: Vec<Record>,
    /// Without the OPT record.
    pub additional: Vec<Record>,
    pub opt: Option<Opt>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub name: String,
    pub kind: u16,
    pub class: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub name: String,
    pub kind: u16,
    pub class: u16,
    pub ttl: u32,
    /// RDATA, names inside it written out.
    pub data: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opt {
    pub size: u16,
    pub version: u8,
    pub flags: u16,
    pub options: Vec<(u16, Vec<u8>)>,
}

impl Message {
    /// Takes a message apart; `None` when it is not well formed to its last byte.
    pub fn parse(raw: &[u8]) -> Option<Message> {
        let word = |at| wire::u16_at(raw, at);
        let (mut at, mut questions) = (12, Vec::new());
        for _ in 0..word(4)? {
            let (name, end) = wire::read_name(raw, at)?;
            questions.push(Question { name, kind: word(end)?, class: word(end + 2)? });
            at = end + 4;
        }
        let mut sections = [Vec::new(), Vec::new(), Vec::new()];
        for (section, count) in sections.iter_mut().zip([word(6)?, word(8)?, word(10)?]) {
            for _ in 0..count {
                section.push(read_record(raw, &mut at)?);
            }
        }
        let [answers, authority, mut additional] = sections;
        let opts = additional.iter().filter(|record| record.kind == OPT).count();
        let opt = additional.iter().position(|record| record.kind == OPT).map(|index| additional.remove(index));
        if at != raw.len() || opts > 1 {
            return None;
        }
        let upper = opt.as_ref().map_or(0, |opt| (opt.ttl >> 24) as u16);
        let opt = match opt {
            Some(record) => Some(read_opt(&record)?),
            None => None,
        };
        let flags = word(2)?;
        let rcode = upper << 4 | flags & 0xf;
        Some(Message { raw: raw.to_vec(), id: word(0)?, flags, rcode, questions, answers, authority, additional, opt })
    }

    /// Whether all of these header bits are set.
    pub fn has(&self, bits: u16) -> bool {
        self.flags & bits == bits
    }

    pub fn truncated(&self) -> bool {
        self.has(TC)
    }

    pub fn opcode(&self) -> u16 {
        self.flags >> 11 & 0xf
    }

    /// TTLs of all records but OPT, in order.
    pub fn ttls(&self) -> Vec<u32> {
        [&self.answers, &self.authority, &self.additional].into_iter().flatten().map(|record| record.ttl).collect()
    }

    /// The INFO-CODEs of the Extended DNS Errors (RFC 8914) in the reply.
    pub fn errors(&self) -> Vec<u16> {
        let options = self.opt.iter().flat_map(|opt| &opt.options);
        options.filter(|(code, _)| *code == wire::EDE).filter_map(|(_, data)| wire::u16_at(data, 0)).collect()
    }

    /// Their texts.
    pub fn error_texts(&self) -> Vec<String> {
        let options = self.opt.iter().flat_map(|opt| &opt.options);
        let texts = options.filter(|(code, _)| *code == wire::EDE).filter_map(|(_, data)| data.get(2..));
        texts.map(|text| String::from_utf8_lossy(text).into_owned()).collect()
    }

    /// The option codes in the OPT record.
    pub fn options(&self) -> Vec<u16> {
        self.opt.iter().flat_map(|opt| &opt.options).map(|(code, _)| *code).collect()
    }

    pub fn dnssec_ok(&self) -> bool {
        self.opt.as_ref().is_some_and(|opt| opt.flags & 0x8000 != 0)
    }

    /// The rules every reply keeps, whatever it says (RFC 1035 section 4.1.1, RFC 6891 section 6.1.1).
    #[track_caller]
    pub fn check_against(&self, query: &Query) {
        assert_eq!(self.id, query.id, "the ID comes back");
        assert!(self.has(QR), "QR is set");
        assert_eq!(self.opcode(), query.flags >> 11 & 0xf, "the opcode comes back");
        assert_eq!(self.flags & RD, query.flags & RD, "RD comes back");
        assert_eq!(self.flags & wire::Z, 0, "Z is zero");
        assert_eq!(self.flags & wire::AA, 0, "a forwarder has no authority");
        assert_eq!(self.opt.is_some(), query.edns.is_some(), "OPT if and only if the client sent one");
        if let Some(question) = self.questions.first() {
            let (sent, _) = wire::read_name(&query.name, 0).expect("a name");
            assert_eq!(
                question,
                &Question { name: sent, kind: query.kind, class: query.class },
                "the question as sent"
            );
        }
        if let (Some(opt), Some(edns)) = (&self.opt, &query.edns) {
            assert_eq!(opt.version, 0, "our own version");
            assert_eq!(opt.size, 1232, "our own size");
            assert_eq!(opt.flags & 0x7fff, 0, "unknown flags are zero");
            assert!(opt.flags == edns.flags & 0x8000 || self.rcode == wire::BADVERS, "DO is copied");
        }
    }
}

fn read_record(raw: &[u8], at: &mut usize) -> Option<Record> {
    let (name, end) = wire::read_name(raw, *at)?;
    let (kind, class) = (wire::u16_at(raw, end)?, wire::u16_at(raw, end + 2)?);
    let (ttl, length) = (wire::u32_at(raw, end + 4)?, usize::from(wire::u16_at(raw, end + 8)?));
    let start = end + 10;
    *at = start + length;
    let plain = raw.get(start..*at)?;
    // Types whose names may be compressed (RFC 3597 section 4): octets before the first name, number of names.
    let data = match kind {
        3 | 4 | 7 | 8 | 9 | NS | CNAME | PTR => expand(raw, start, 0, 1, *at)?,
        14 | SOA => expand(raw, start, 0, 2, *at)?,
        MX => expand(raw, start, 2, 1, *at)?,
        _ => plain.to_vec(),
    };
    Some(Record { name, kind, class, ttl, data })
}

/// RDATA of some octets and `names` names, written without compression.
fn expand(raw: &[u8], start: usize, octets: usize, names: usize, end: usize) -> Option<Vec<u8>> {
    let (mut data, mut at) = (raw.get(start..start + octets)?.to_vec(), start + octets);
    for _ in 0..names {
        let (text, next) = wire::read_name(raw, at)?;
        data.extend(wire::name(&text));
        at = next;
    }
    data.extend(raw.get(at..end)?);
    Some(data)
}

fn read_opt(record: &Record) -> Option<Opt> {
    let (mut options, mut at) = (Vec::new(), 0);
    while at < record.data.len() {
        let length = usize::from(wire::u16_at(&record.data, at + 2)?);
        options.push((wire::u16_at(&record.data, at)?, record.data.get(at + 4..at + 4 + length)?.to_vec()));
        at += 4 + length;
    }
    let (version, flags) = ((record.ttl >> 16 & 0xff) as u8, (record.ttl & 0xffff) as u16);
    Some(Opt { size: record.class, version, flags, options })
}
