//! Replies: the bytes for one client, written from a kept response or from nothing but an RCODE.

use super::codes::{Rcode, Type};
use super::edns::{self, EMPTY_OPT, Explained, OWN_SIZE};
use super::header::{self, Count, LENGTH};
use super::question::Query;
use super::record::Record;
use super::response::Response;

/// The most octets of a UDP reply to a client without EDNS (RFC 1035 section 4.2.1).
pub const CLASSIC_SIZE: usize = 512;

/// How a kept response becomes a reply.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shape<'a> {
    /// The TTL that every record gets; as it is kept where `None`.
    pub ttl: Option<u32>,
    /// One more extended error, for clients with EDNS.
    pub explained: Option<Explained<'a>>,
    /// The most octets of the reply.
    pub limit: usize,
}

/// The most octets of a UDP reply to this query: what the client can take, at least 512, at most our own size, or
/// `cap` where the operator set one (RFC 6891 section 6.2.3, RFC 9715).
pub fn udp_limit(query: &Query<'_>, cap: Option<u16>) -> usize {
    let cap = usize::from(cap.unwrap_or(OWN_SIZE)).min(usize::from(OWN_SIZE));
    match query.edns {
        Some(edns) => usize::from(edns.size).clamp(CLASSIC_SIZE, cap.max(CLASSIC_SIZE)),
        None => CLASSIC_SIZE,
    }
}

/// Writes the reply and gives its length. What does not fit is cut at a record's end, last ones first, and TC set.
/// `out` has at least 512 octets; no allocation.
pub fn write(query: &Query<'_>, response: &Response, shape: Shape<'_>, out: &mut [u8]) -> usize {
    let limit = shape.limit.min(out.len());
    let out = &mut out[..limit];
    let reserve = if query.edns.is_some() { EMPTY_OPT } else { 0 };
    let wire = response.wire();
    let mut end = wire.len();
    if end + reserve <= limit {
        out[..end].copy_from_slice(wire);
    } else {
        end = write_cut(response, limit - reserve, out);
    }
    let question_end = usize::from(response.question_end);
    // A kept denial may answer other types than the one it was asked for, so the whole question is the client's.
    out[LENGTH..question_end].copy_from_slice(&query.message[LENGTH..question_end]);
    write_flags(query, response, out);
    if let Some(ttl) = shape.ttl {
        for at in response.ttls().take_while(|&at| at < end) {
            out[at..][..4].copy_from_slice(&ttl.to_be_bytes());
        }
    }
    if query.edns.is_some() {
        let length =
            edns::write_opt(&mut out[end..], response.rcode, query.dnssec_ok(), response.errors(), shape.explained);
        let additional = header::count(out, Count::Additional) + 1;
        header::set_count(out, Count::Additional, additional);
        end += length;
    }
    end
}

/// Writes a reply that has no records: the question as asked, an RCODE, and the reason for clients with EDNS.
pub fn write_error(query: &Query<'_>, rcode: Rcode, explained: Option<Explained<'_>>, out: &mut [u8]) -> usize {
    let mut end = bare(query.message, query.question_end, rcode, out);
    if query.edns.is_some() {
        end += edns::write_opt(&mut out[end..], rcode, query.dnssec_ok(), &[], explained);
        header::set_count(out, Count::Additional, 1);
    }
    end
}

/// Writes a reply to a message that is no query we can read: a header, and the question if it ends somewhere.
pub fn write_unfit(message: &[u8], question_end: usize, rcode: Rcode, with_opt: bool, out: &mut [u8]) -> usize {
    let mut end = bare(message, question_end, rcode, out);
    if with_opt {
        end += edns::write_opt(&mut out[end..], rcode, false, &[], None);
        header::set_count(out, Count::Additional, 1);
    }
    end
}

/// Whether records of this type are only for clients that set DO or asked for them (RFC 4035 section 3.2.1).
pub fn is_dnssec(rtype: Type) -> bool {
    matches!(rtype, Type::RRSIG | Type::NSEC | Type::NSEC3 | Type::SIG | Type::NXT)
}

fn bare(message: &[u8], question_end: usize, rcode: Rcode, out: &mut [u8]) -> usize {
    let end = question_end.max(LENGTH);
    out[..end].copy_from_slice(&message[..end]);
    out[2] = header::QR | message[2] & (0x78 | header::RD);
    out[3] = header::RA | message[3] & header::CD | (rcode.0 & 0x0f) as u8;
    header::set_count(out, Count::Question, u16::from(question_end > LENGTH));
    out[6..LENGTH].fill(0);
    end
}

fn write_flags(query: &Query<'_>, response: &Response, out: &mut [u8]) {
    out[0..2].copy_from_slice(&query.message[0..2]);
    out[2] |= query.message[2] & header::RD;
    // AD is for clients that can make sense of it (RFC 6840 section 5.8).
    let understands = query.authentic_data() || query.dnssec_ok();
    let authentic = if understands { response.wire()[3] & header::AD } else { 0 };
    // The upper bits of an RCODE need an OPT; without one it would read as another RCODE.
    let rcode = if response.rcode.0 > 15 && query.edns.is_none() { Rcode::SERVFAIL } else { response.rcode };
    out[3] = header::RA | authentic | query.message[3] & header::CD | (rcode.0 & 0x0f) as u8;
}

/// Copies as many whole records as fit and corrects the counts.
fn write_cut(response: &Response, limit: usize, out: &mut [u8]) -> usize {
    let mut counts = [0u16; 3];
    let mut end = usize::from(response.question_end);
    for (section, record) in response.records() {
        let Record { end: record_end, .. } = record;
        if record_end > limit {
            break;
        }
        counts[section as usize / 2 - 3] += 1;
        end = record_end;
    }
    out[..end].copy_from_slice(&response.wire()[..end]);
    for (section, count) in [Count::Answer, Count::Authority, Count::Additional].into_iter().zip(counts) {
        header::set_count(out, section, count);
    }
    out[2] |= header::TC;
    end
}
