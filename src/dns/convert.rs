//! The queries that we write ourselves, built by hickory-proto: upstream queries, health checks, probes.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use super::codes::{Class, Type};

/// A query of ours.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// QNAME, uncompressed wire form.
    pub name: &'a [u8],
    /// QTYPE.
    pub qtype: Type,
    /// QCLASS.
    pub qclass: Class,
    /// RD.
    pub recursion_desired: bool,
    /// AD: we can make sense of AD in the response (RFC 6840 section 5.7).
    pub authentic_data: bool,
    /// CD.
    pub checking_disabled: bool,
    /// With an OPT: our UDP size, and DO.
    pub edns: Option<(u16, bool)>,
}

impl<'a> Outgoing<'a> {
    /// A query with RD and without EDNS.
    pub fn plain(name: &'a [u8], qtype: Type, qclass: Class) -> Outgoing<'a> {
        Outgoing {
            name,
            qtype,
            qclass,
            recursion_desired: true,
            authentic_data: false,
            checking_disabled: false,
            edns: None,
        }
    }

    /// The whole message.
    pub fn to_wire(&self, id: u16) -> Vec<u8> {
        let name = Name::read(&mut BinDecoder::new(self.name)).expect("names are checked when they are read");
        let mut question = Query::query(name, RecordType::from(self.qtype.0));
        question.set_query_class(DNSClass::from(self.qclass.0));
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = self.recursion_desired;
        message.metadata.authentic_data = self.authentic_data;
        message.metadata.checking_disabled = self.checking_disabled;
        message.add_query(question);
        if let Some((size, dnssec_ok)) = self.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(size).set_dnssec_ok(dnssec_ok);
            message.set_edns(edns);
        }
        message.to_vec().expect("one question and an empty OPT fit into a message")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns;

    #[test]
    fn what_is_written_is_read_again_octet_by_octet() {
        let longest = ["a"; 127].join(".");
        for (text, qtype, qclass) in [
            (".", Type::NS, Class::IN),
            ("a\\.b\\000\\255.example.org", Type(65280), Class::CH),
            (longest.as_str(), Type::ANY, Class(7)),
        ] {
            let name = dns::Name::parse(text).unwrap();
            let outgoing = Outgoing {
                authentic_data: true,
                checking_disabled: true,
                edns: Some((1232, true)),
                ..Outgoing::plain(name.as_wire(), qtype, qclass)
            };
            let wire = outgoing.to_wire(7);
            let query = dns::Query::parse(&wire).unwrap();
            assert_eq!((query.id(), query.spelling(), query.qtype, query.qclass), (7, name.as_wire(), qtype, qclass));
            assert!(query.recursion_desired() && query.authentic_data() && query.checking_disabled());
            assert!(query.dnssec_ok());
            assert_eq!(query.edns.unwrap().size, 1232);
        }
    }
}
