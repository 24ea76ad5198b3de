//! Servers that do not know EDNS: how they are told from others, and for how long that is remembered.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::dns::header::{self, Count};
use crate::dns::question::{has_opt, question_end};
use crate::dns::{Rcode, Type};

/// After this long an upstream is asked with EDNS again: it may have been replaced by one that knows it.
const REMEMBERED: Duration = Duration::from_secs(15 * 60);

/// Whether an upstream is asked without EDNS. Starts with EDNS.
#[derive(Debug, Default)]
pub(crate) struct Memory(Mutex<Option<Instant>>);

impl Memory {
    /// It has rejected a query with an OPT and then answered the same without.
    pub(crate) fn set(&self, now: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(now + REMEMBERED);
    }

    /// Whether that is remembered.
    pub(crate) fn is_set(&self, now: Instant) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| now < until)
    }
}

/// Whether `answer`, to `query`, is how a server says that it does not know EDNS: FORMERR or NOTIMP without OPT to a
/// query with one (RFC 6891 section 7). With an OPT it knows EDNS and means something else.
pub(crate) fn is_rejected(query: &[u8], answer: &[u8]) -> bool {
    matches!(header::rcode(answer), Rcode::FORMERR | Rcode::NOTIMP) && has_opt(query) && !has_opt(answer)
}

/// `query`, one of ours, without the OPT that ends it.
pub(crate) fn without_opt(query: &[u8]) -> Vec<u8> {
    let end = question_end(query).expect("a query of ours has a whole question");
    debug_assert!(query.len() == end || query[end..].starts_with(&[0, 0, Type::OPT.0 as u8]));
    let mut classic = query[..end].to_vec();
    header::set_count(&mut classic, Count::Additional, 0);
    classic
}

/// Whether an answer shows that the server serves classic DNS.
pub(crate) fn shows_service(answer: &[u8]) -> bool {
    matches!(header::rcode(answer), Rcode::NOERROR | Rcode::NXDOMAIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::convert::Outgoing;
    use crate::dns::{Class, Name};
    use crate::sys::clock;

    #[test]
    fn the_memory_ends_after_a_quarter_of_an_hour() {
        let memory = Memory::default();
        let start = clock::now();
        assert!(!memory.is_set(start));
        memory.set(start);
        assert!(memory.is_set(start));
        assert!(memory.is_set(start + Duration::from_secs(899)));
        assert!(!memory.is_set(start + Duration::from_secs(900)));
    }

    #[test]
    fn the_same_question_is_left_without_its_opt() {
        let name = Name::parse("www.example.org").unwrap();
        let plain = Outgoing { checking_disabled: true, ..Outgoing::plain(name.as_wire(), Type::MX, Class::IN) };
        let with = Outgoing { edns: Some((1232, true)), ..plain };
        assert_eq!(without_opt(&with.to_wire(7)), plain.to_wire(7));
        assert_eq!(without_opt(&plain.to_wire(7)), plain.to_wire(7));
    }
}
