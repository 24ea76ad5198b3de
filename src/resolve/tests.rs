//! What is taken from an upstream's message, and how flights land.

use std::str::FromStr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query as Asked, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, NULL, SRV};
use hickory_proto::rr::{DNSClass, Name as HickoryName, RData, Record, RecordType};

use crate::dns::convert::Outgoing;
use crate::dns::{Class, Name, Query, Rcode, Type, reply};

use super::*;

/// A query of ours without DO.
fn query(name: &str, qtype: Type) -> Vec<u8> {
    let name = Name::parse(name).unwrap();
    let outgoing = Outgoing { edns: Some((1232, false)), ..Outgoing::plain(name.as_wire(), qtype, Class::IN) };
    outgoing.to_wire(0)
}

fn client_query(name: &str, qtype: Type) -> Vec<u8> {
    let mut wire = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let spelt = HickoryName::from_ascii(name).unwrap();
    for label in spelt.iter() {
        wire.push(label.len() as u8);
        wire.extend(label);
    }
    wire.push(0);
    wire.extend(qtype.0.to_be_bytes());
    wire.extend([0, 1]);
    wire
}

fn response(name: &str, qtype: Type, answers: Vec<Record>, additionals: Vec<Record>) -> Message {
    let mut message = Message::new(7, MessageType::Response, OpCode::Query);
    message.metadata.recursion_available = true;
    let mut asked = Asked::query(HickoryName::from_str(name).unwrap(), RecordType::from(qtype.0));
    asked.set_query_class(DNSClass::IN);
    message.add_query(asked);
    message.add_answers(answers);
    message.add_additionals(additionals);
    message
}

fn record(owner: &str, ttl: u32, rdata: RData) -> Record {
    Record::from_rdata(HickoryName::from_str(owner).unwrap(), ttl, rdata)
}

fn a(owner: &str, last: u8) -> Record {
    record(owner, 300, RData::A(A::new(192, 0, 2, last)))
}

fn cname(owner: &str, target: &str) -> Record {
    record(owner, 300, RData::CNAME(CNAME(HickoryName::from_str(target).unwrap())))
}

/// The accepted response as a typed message again.
fn accepted(query: &[u8], message: &Message) -> Result<Message, Mismatch> {
    let wire = message.to_vec().unwrap();
    accept(query, &wire).map(|response| Message::from_vec(response.wire()).unwrap())
}

fn owners(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| record.name.to_string()).collect()
}

#[test]
fn another_question_is_no_answer() {
    let query = query("a.test.", Type::A);
    for (name, qtype) in [("b.test.", Type::A), ("a.test.", Type::AAAA)] {
        let message = response(name, qtype, vec![], vec![]);
        assert_eq!(accepted(&query, &message).unwrap_err(), Mismatch::Question);
    }
}

#[test]
fn only_the_chain_from_qname_is_kept() {
    let query = query("a.test.", Type::A);
    let answers = vec![cname("A.test.", "b.test."), cname("b.test.", "c.test."), a("c.test.", 1), a("bank.test.", 66)];
    let message = response("a.test.", Type::A, answers, vec![a("bank.test.", 67), a("c.test.", 2)]);
    let kept = accepted(&query, &message).unwrap();
    assert_eq!(owners(&kept.answers), ["a.test.", "b.test.", "c.test."]);
    assert_eq!(owners(&kept.additionals), ["c.test."]);
}

#[test]
fn addresses_of_srv_targets_come_along() {
    let query = query("_dns._udp.a.test.", Type::SRV);
    let target = HickoryName::from_str("pod-1.a.test.").unwrap();
    let srv = record("_dns._udp.a.test.", 30, RData::SRV(SRV::new(0, 50, 53, target)));
    let message = response("_dns._udp.a.test.", Type::SRV, vec![srv], vec![a("pod-1.a.test.", 1), a("other.test.", 2)]);
    let kept = accepted(&query, &message).unwrap();
    assert_eq!(owners(&kept.additionals), ["pod-1.a.test."]);
}

#[test]
fn loops_and_forks_of_aliases_are_failures() {
    let query = query("a.test.", Type::A);
    for answers in [
        vec![cname("a.test.", "b.test."), cname("b.test.", "a.test.")],
        vec![cname("a.test.", "b.test."), cname("a.test.", "c.test.")],
        (0..40).map(|hop| cname(&name(hop), &name(hop + 1))).collect(),
    ] {
        let message = response("a.test.", Type::A, answers, vec![]);
        assert_eq!(accepted(&query, &message).unwrap_err(), Mismatch::Chain);
    }
    fn name(hop: u32) -> String {
        if hop == 0 { "a.test.".to_owned() } else { format!("a{hop}.test.") }
    }
}

#[test]
fn unknown_types_keep_every_octet() {
    let query = query("a.test.", Type(65280));
    let odd = vec![0xc0, 0x0c, 0, 1, 2, 255];
    let unknown =
        record("a.test.", 60, RData::Unknown { code: RecordType::Unknown(65280), rdata: NULL::with(odd.clone()) });
    let message = response("a.test.", Type(65280), vec![unknown], vec![]).to_vec().unwrap();
    let kept = accept(&query, &message).unwrap();
    assert!(kept.wire().ends_with(&odd));
}

#[test]
fn opt_goes_and_its_errors_stay() {
    let query = query("a.test.", Type::A);
    let mut message = response("a.test.", Type::A, vec![], vec![]);
    message.metadata.response_code = ResponseCode::ServFail;
    message.edns = Some(Edns::new());
    let mut wire = message.to_vec().unwrap();
    let option = b"\x00\x0f\x00\x06\x00\x06oops";
    let rdlength = wire.len() - 2;
    wire[rdlength + 1] = option.len() as u8;
    wire.extend(option);
    let kept = accept(&query, &wire).unwrap();
    assert_eq!(kept.rcode(), Rcode::SERVFAIL);
    assert_eq!(kept.errors(), option);
    assert_eq!(Message::from_vec(kept.wire()).unwrap().additionals.len(), 0);
    let plain = client_query("a.test.", Type::A);
    let mut out = [0; 512];
    let length = reply::write(
        &Query::parse(&plain).unwrap(),
        &kept,
        reply::Shape { limit: 512, ..Default::default() },
        &mut out,
    );
    assert_eq!(length, plain.len(), "a client without EDNS gets no OPT");
}

#[test]
fn a_reply_takes_on_the_spelling_of_its_client() {
    let query = query("www.test.", Type::A);
    let kept =
        accept(&query, &response("www.test.", Type::A, vec![a("www.test.", 1)], vec![]).to_vec().unwrap()).unwrap();
    let client = client_query("WwW.TeSt.", Type::A);
    let mut out = [0; 512];
    let shape = reply::Shape { ttl: Some(9), limit: 512, explained: None };
    let length = reply::write(&Query::parse(&client).unwrap(), &kept, shape, &mut out);
    let message = Message::from_vec(&out[..length]).unwrap();
    assert_eq!(message.metadata.id, 0x1234);
    assert_eq!(message.answers[0].name.to_string(), "WwW.TeSt.");
    assert_eq!(message.answers[0].ttl, 9);
}

#[test]
fn what_does_not_fit_is_cut_at_a_record() {
    let query = query("big.test.", Type::A);
    let answers = (0..200).map(|last| a("big.test.", last)).collect();
    let kept = accept(&query, &response("big.test.", Type::A, answers, vec![]).to_vec().unwrap()).unwrap();
    let client = client_query("big.test.", Type::A);
    let mut out = [0; 512];
    let shape = reply::Shape { limit: 512, ..Default::default() };
    let length = reply::write(&Query::parse(&client).unwrap(), &kept, shape, &mut out);
    let message = Message::from_vec(&out[..length]).unwrap();
    assert!(message.metadata.truncation);
    assert_eq!(message.answers.len(), (512 - client.len()) / 16);
}

#[test]
fn malformed_messages_are_refused_and_never_read_past_their_end() {
    let query = query("a.test.", Type::A);
    let whole =
        response("a.test.", Type::A, vec![cname("a.test.", "b.test."), a("b.test.", 1)], vec![]).to_vec().unwrap();
    assert!(accept(&query, &whole).is_ok());
    for cut in 0..whole.len() {
        assert!(accept(&query, &whole[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn names_that_only_look_alike_are_told_apart() {
    assert_ne!(Name::parse("a.b").unwrap(), Name::parse("a\\.b").unwrap());
}

#[test]
fn a_name_has_one_alias_also_when_it_is_asked_for() {
    let query = query("a.test.", Type::CNAME);
    let forked = vec![cname("a.test.", "b.test."), cname("a.test.", "c.test.")];
    assert_eq!(accepted(&query, &response("a.test.", Type::CNAME, forked, vec![])).unwrap_err(), Mismatch::Chain);
    let single = response("a.test.", Type::CNAME, vec![cname("a.test.", "b.test.")], vec![]);
    assert_eq!(accepted(&query, &single).unwrap().answers.len(), 1);
}

#[test]
fn an_extended_rcode_is_a_failure_for_those_without_edns() {
    let query = query("a.test.", Type::A);
    let mut message = response("a.test.", Type::A, vec![], vec![]);
    message.edns = Some(Edns::new());
    message.metadata.response_code = ResponseCode::BADVERS;
    let kept = accept(&query, &message.to_vec().unwrap()).unwrap();
    assert_eq!(kept.rcode(), Rcode::BADVERS);
    let plain = client_query("a.test.", Type::A);
    let mut out = [0; 512];
    let shape = reply::Shape { limit: 512, ..Default::default() };
    reply::write(&Query::parse(&plain).unwrap(), &kept, shape, &mut out);
    assert_eq!(out[3] & 0x0f, 2, "SERVFAIL, not NOERROR");
}
