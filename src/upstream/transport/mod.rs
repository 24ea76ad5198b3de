//! How one question reaches one upstream and how its answer is told from everything else that arrives.
//!
//! An [`Attempt`] is one question on its way: a socket of its own over UDP, a place in the ID table of a shared
//! connection over TCP and TLS. Both are polled for the same three events, so the exchange does not care which.

pub(crate) mod connection;
pub(crate) mod tcp;
pub(crate) mod tls;
pub(crate) mod udp;

use std::task::{Context, Poll};

use super::failure::{Failure, Leg};
use super::tally::{Mismatch, Tally};
use crate::dns::Rcode;
use crate::dns::header::{self, Count, LENGTH};
use crate::dns::question::{echoes, question_end};
use crate::dns::record::well_formed;

/// One question on its way to one upstream. Dropping it gives up.
pub(crate) enum Attempt {
    /// On a UDP socket of its own.
    Datagram(udp::Question),
    /// On a shared connection.
    Stream(tcp::Question),
}

/// What became of an attempt.
#[derive(Debug)]
pub(crate) enum Event {
    /// The answer, with the ID of the query as it was given.
    Answer(Vec<u8>),
    /// A message with everything right but its records, which cannot be read. The attempt goes on.
    Spoiled,
    /// So many wrong messages that somebody may be guessing.
    Forged,
    /// Nothing will come.
    Failed(Failure),
}

impl Attempt {
    /// Waits for the answer to `query`, the query this attempt was made with. `wrong` counts the messages that were
    /// not it, over all attempts of the exchange.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, query: &[u8], tally: &Tally, wrong: &mut u32) -> Poll<Event> {
        match self {
            Attempt::Datagram(question) => question.poll(cx, query, tally, wrong),
            Attempt::Stream(question) => question.poll(cx),
        }
    }

    /// Where it stands, for the text of a timeout.
    pub(crate) fn leg(&self) -> Leg {
        match self {
            Attempt::Datagram(question) => question.leg(),
            Attempt::Stream(question) => question.leg(),
        }
    }
}

/// Tells the answer to `query`, sent with `id`, from any other message (RFC 5452 section 9.1), and returns it with
/// the ID of `query`.
///
/// A server that could not read or will not serve a query may answer with a header and nothing else. Such an error
/// is an answer too; it is given the question it belongs to. A truncated answer may promise more records than it holds;
/// any other is whole or no answer.
pub(crate) fn accept(query: &[u8], id: u16, message: &[u8]) -> Result<Vec<u8>, Mismatch> {
    if message.len() < LENGTH {
        return Err(Mismatch::Short);
    }
    if !header::is_response(message) {
        return Err(Mismatch::NotResponse);
    }
    if header::id(message) != id {
        return Err(Mismatch::Id);
    }
    let mut answer = if echoes(query, message) {
        message.to_vec()
    } else if is_bare_error(query, message) {
        complete(query, message).ok_or(Mismatch::Question)?
    } else {
        return Err(Mismatch::Question);
    };
    let question_end = question_end(query).ok_or(Mismatch::Question)?;
    if !header::truncated(&answer) && !well_formed(&answer, question_end) {
        return Err(Mismatch::Malformed);
    }
    header::set_id(&mut answer, header::id(query));
    Ok(answer)
}

/// An answer cut to its header and question, with TC=1: what is left of one that did not fit a buffer.
pub(crate) fn cut(query: &[u8], answer: &mut Vec<u8>) {
    answer.truncate(question_end(query).unwrap_or(LENGTH));
    answer[2] |= header::TC;
    for count in [Count::Answer, Count::Authority, Count::Additional] {
        header::set_count(answer, count, 0);
    }
}

fn is_bare_error(query: &[u8], message: &[u8]) -> bool {
    header::opcode(message) == header::opcode(query)
        && [Count::Question, Count::Answer, Count::Authority].iter().all(|which| header::count(message, *which) == 0)
        && (header::rcode(message) != Rcode::NOERROR || header::truncated(message))
}

fn complete(query: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    let question = &query[LENGTH..question_end(query)?];
    let mut answer = [&message[..LENGTH], question, &message[LENGTH..]].concat();
    header::set_count(&mut answer, Count::Question, 1);
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::testing::{answer, query};

    #[test]
    fn only_the_answer_is_accepted_and_gets_the_id_of_the_query() {
        let asked = query("www.example.org.", 7);
        let good = answer(&query("WWW.example.ORG.", 99), Rcode::NOERROR);
        let accepted = accept(&asked, 99, &good).unwrap();
        assert_eq!(header::id(&accepted), 7);
        assert_eq!(accepted[2..], good[2..]);

        assert_eq!(accept(&asked, 98, &good), Err(Mismatch::Id));
        assert_eq!(accept(&asked, 99, &good[..11]), Err(Mismatch::Short));
        assert_eq!(accept(&asked, 99, &query("www.example.org.", 99)), Err(Mismatch::NotResponse));
        assert_eq!(accept(&asked, 99, &answer(&query("x.example.org.", 99), Rcode::NOERROR)), Err(Mismatch::Question));
        assert_eq!(accept(&asked, 99, &good[..20]), Err(Mismatch::Question));

        let mut promising = good.clone();
        header::set_count(&mut promising, Count::Answer, 1);
        assert_eq!(accept(&asked, 99, &promising), Err(Mismatch::Malformed));
        promising[2] |= header::TC;
        assert!(accept(&asked, 99, &promising).is_ok(), "half an answer tells that there is a whole one");
    }

    #[test]
    fn an_error_without_question_is_given_the_question() {
        let asked = query("www.example.org.", 7);
        let whole = answer(&query("www.example.org.", 99), Rcode::FORMERR);
        let mut bare = whole[..LENGTH].to_vec();
        header::set_count(&mut bare, Count::Question, 0);
        let accepted = accept(&asked, 99, &bare).unwrap();
        assert!(echoes(&asked, &accepted));
        assert_eq!(header::rcode(&accepted), Rcode::FORMERR);

        bare[3] &= 0xf0;
        assert_eq!(accept(&asked, 99, &bare), Err(Mismatch::Question), "NOERROR needs its question");
    }

    #[test]
    fn what_is_cut_is_a_truncated_answer() {
        let asked = query("www.example.org.", 7);
        let mut long = answer(&asked, Rcode::NOERROR);
        header::set_count(&mut long, Count::Answer, 1000);
        long.resize(5000, 0);
        cut(&asked, &mut long);
        assert!(echoes(&asked, &long) && header::truncated(&long));
        assert_eq!(header::count(&long, Count::Answer), 0);
        assert_eq!(Some(long.len()), question_end(&asked));
    }
}
