//! Packets that must not be taken for an answer:
//!
//! | kind | what is wrong |
//! |---|---|
//! | `badid` | the ID |
//! | `wrongq`, `wrongtype`, `wrongclass` | the question |
//! | `noqr` | QR=0 |
//! | `short` | three octets |
//! | `garbage` | every octet behind the ID |
//! | `pointer` | the answer's owner is a pointer to itself |
//! | `badrdata` | the target of an alias is a pointer to itself |
//! | `badlength` | RDLENGTH leads past the end |
//! | `badcount` | there are fewer records than ANCOUNT says |

use super::answer::Answer;
use super::message::Message;
use super::wire::*;

/// Everything `packet` knows.
pub const KINDS: [&str; 11] = [
    "badid",
    "wrongq",
    "wrongtype",
    "wrongclass",
    "noqr",
    "short",
    "garbage",
    "pointer",
    "badrdata",
    "badlength",
    "badcount",
];

/// A packet of a kind; right in all but that.
pub fn packet(kind: &str, query: &Message) -> Vec<u8> {
    let own = query.questions[0].kind;
    let mut asked = query.clone();
    match kind {
        "wrongq" => asked.questions[0].name = "another.test.".to_owned(),
        "wrongtype" => asked.questions[0].kind = if own == A { AAAA } else { A },
        "wrongclass" => asked.questions[0].class = CH,
        _ => {}
    }
    let record = 12 + name(&asked.questions[0].name).len() + 4;
    // Owner, type, class, TTL and RDLENGTH come before the RDATA.
    let rdata = record + 12;
    let answer = Answer::to(&asked).without_opt();
    // Told apart from the right answer by its address.
    let mut bytes = match kind {
        "badrdata" => answer.own(CNAME, 300, &(0xc000 | rdata as u16).to_be_bytes()).bytes(),
        _ => answer.own(A, 300, &[203, 0, 113, 66]).bytes(),
    };
    match kind {
        "badid" => bytes[1] ^= 1,
        "noqr" => bytes[2] &= 0x7f,
        "short" => bytes.truncate(3),
        "garbage" => bytes.iter_mut().skip(2).for_each(|byte| *byte = !*byte),
        "pointer" => bytes[record..record + 2].copy_from_slice(&(0xc000 | record as u16).to_be_bytes()),
        "badlength" => bytes[rdata - 2] = 0x7f,
        "badcount" => bytes[7] += 1,
        _ => {}
    }
    bytes
}
