//! What a client may send: reading a query and writing the replies that need no upstream.

use dnslet::dns::{Query, Rcode, Unfit, reply};

/// Panics where a promise is broken.
pub fn check(message: &[u8]) {
    let mut out = [0; 4096];
    match Query::parse(message) {
        Ok(query) => {
            assert!(query.name().len() <= 255 && query.name().last() == Some(&0));
            assert!(query.label_offsets().len() <= 127);
            let limit = reply::udp_limit(&query, None);
            assert!((512..=1232).contains(&limit));
            let length = reply::write_error(&query, Rcode::REFUSED, None, &mut out);
            assert_reply(message, &out[..length]);
            let again = Query::parse(message).expect("it was read before");
            assert_eq!(again.name(), query.name());
        }
        Err(Unfit::Silent) => {}
        Err(Unfit::Opcode { edns }) => {
            let length = reply::write_unfit(message, 0, Rcode::NOTIMP, edns, &mut out);
            assert_reply(message, &out[..length]);
        }
        Err(Unfit::Format { question_end, edns }) => {
            let length = reply::write_unfit(message, question_end, Rcode::FORMERR, edns, &mut out);
            assert_reply(message, &out[..length]);
        }
    }
}

/// A reply is short, a response, and has the query's ID.
fn assert_reply(message: &[u8], reply: &[u8]) {
    assert!((12..=512).contains(&reply.len()));
    assert_eq!(reply[..2], message[..2]);
    assert_eq!(reply[2] & 0x80, 0x80);
}
