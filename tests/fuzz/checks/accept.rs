//! What an upstream may send: taking from it what belongs to the question, deciding how long it lives, and writing it
//! for clients with more and less room.

use dnslet::cache::lifetime;
use dnslet::dns::record::well_formed;
use dnslet::dns::{Query, Type, reply};
use dnslet::resolve::{Mismatch, accept};

/// `A www.test.`, RD, with an OPT that has DO when the first octet of the input is odd: the client's query, and as good
/// as any for the one that was sent upstream.
fn question(dnssec_ok: bool) -> Vec<u8> {
    let mut wire = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    wire.extend(b"\x03www\x04test\x00\x00\x01\x00\x01");
    wire.extend([0, 0, 41, 4, 208, 0, 0, if dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
    wire
}

/// Panics where a promise is broken.
pub fn check(input: &[u8]) {
    let Some((&choice, message)) = input.split_first() else { return };
    let client = question(choice & 1 != 0);
    let query = Query::parse(&client).expect("an ordinary query");
    let mut message = message.to_vec();
    if choice & 2 != 0 && message.len() >= client.len() {
        // Past the first check: header bits and question as they have to be.
        let end = 12 + 10 + 4;
        message[2] = message[2] & 0x07 | 0x80;
        message[4..6].copy_from_slice(&[0, 1]);
        message[12..end].copy_from_slice(&client[12..end]);
    }
    let readable = message.len() >= client.len() && well_formed(&message, 12 + 10 + 4);
    let response = match accept(&client, &message) {
        Ok(response) => response,
        Err(mismatch) => {
            let lost = mismatch == Mismatch::Malformed && readable && message.len() <= 1232;
            assert!(!lost, "upstreams' messages are read in the same way everywhere: {message:02x?}");
            return;
        }
    };
    let mut out = vec![0; 65_535];
    for limit in [512, 600, 1232, 65_535] {
        let shape = reply::Shape { ttl: Some(7), limit, explained: None };
        let length = reply::write(&query, &response, shape, &mut out);
        assert!(length <= limit && length >= 12);
        assert_eq!(out[..2], client[..2]);
        assert_eq!(out[4..6], [0, 1]);
        assert!(walk(&out[..length]).is_some(), "a reply is well formed to its last octet: {:02x?}", &out[..length]);
    }
    let settings = dnslet::cache::Settings::default();
    if let Some(kept) = lifetime::of(&response, query.name(), Type::A, &settings) {
        assert!(kept.duration.as_secs() <= 604_800 && !response.truncated());
    }
}

/// Walks over a whole message; `None` where it is not one.
fn walk(message: &[u8]) -> Option<()> {
    let word = |at: usize| Some(usize::from(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?)));
    let mut at = 12;
    for _ in 0..word(4)? {
        at = skip_name(message, at)? + 4;
    }
    for _ in 0..word(6)? + word(8)? + word(10)? {
        at = skip_name(message, at)?;
        at += 10 + word(at + 8)?;
        message.get(..at)?;
    }
    (at == message.len()).then_some(())
}

fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match usize::from(*message.get(at)?) {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + length,
            0xc0.. => return Some(at + 2),
            _ => return None,
        }
    }
}
