//! Whether a response may be kept, as what, and for how long.

use std::time::Duration;

use crate::dns::header::Count;
use crate::dns::name::{self};
use crate::dns::{Rcode, Record, Response, Type};

use super::settings::{ClassLimits, Settings};

/// No response is kept for longer, whatever its TTL says, in seconds (RFC 8767 section 4).
const LONGEST: u32 = 604_800;

/// The two classes of responses that CoreDNS counts apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// NOERROR with the asked data.
    Success,
    /// NXDOMAIN and NODATA.
    Denial,
}

/// How long a response may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// In which class.
    pub class: Class,
    /// For how long.
    pub duration: Duration,
    /// Whether it denies the name as a whole, and so answers any type (RFC 2308 section 5).
    pub whole_name: bool,
}

/// The lifetime of a response to a question of type `qtype` for the lower-case wire `qname`; `None`: not to be kept.
pub fn of(response: &Response, qname: &[u8], qtype: Type, settings: &Settings) -> Option<Lifetime> {
    if response.truncated() || !settings.covers(qname) {
        return None;
    }
    let lifetime = classify(response, qtype, settings)?;
    let disabled = match lifetime.class {
        Class::Success => &settings.disable_success,
        Class::Denial => &settings.disable_denial,
    };
    let disabled = disabled.iter().any(|zone| name::is_under(qname, zone.as_wire()));
    (!disabled && !lifetime.duration.is_zero()).then_some(lifetime)
}

/// The TTL that replies carry where the response is passed on without being kept: the lowest of all records, within
/// the limits of the class, zero left alone.
pub fn passing_ttl(response: &Response, settings: &Settings) -> u32 {
    match lowest_ttl(response) {
        None | Some(0) => 0,
        Some(ttl) => clamp(ttl, &settings.success),
    }
}

fn classify(response: &Response, qtype: Type, settings: &Settings) -> Option<Lifetime> {
    match response.rcode() {
        Rcode::NOERROR if response.has_answer(qtype) => {
            let ttl = lowest_ttl(response).filter(|&ttl| ttl > 0)?;
            Some(lifetime(Class::Success, clamp(ttl, &settings.success), false))
        }
        Rcode::NOERROR | Rcode::NXDOMAIN => {
            let ttl = negative_ttl(response).filter(|&ttl| ttl > 0)?;
            // An alias to a missing name is an answer for all types but CNAME, so it is kept for the asked one only.
            let whole_name = response.rcode() == Rcode::NXDOMAIN && response.answers() == 0;
            Some(lifetime(Class::Denial, clamp(ttl, &settings.denial), whole_name))
        }
        // A failure says nothing about the name: whoever keeps it, keeps it apart from answers.
        _ => None,
    }
}

fn lifetime(class: Class, seconds: u32, whole_name: bool) -> Lifetime {
    Lifetime { class, duration: Duration::from_secs(seconds.into()), whole_name }
}

/// The maximum wins over the minimum, as in CoreDNS.
fn clamp(ttl: u32, limits: &ClassLimits) -> u32 {
    ttl.max(limits.min_ttl).min(limits.max_ttl).min(LONGEST)
}

/// The lowest TTL of all records, as the whole message is kept and dropped together (RFC 2181 section 5.2 asks it of one
/// RRset only).
fn lowest_ttl(response: &Response) -> Option<u32> {
    response.records().map(|(_, record)| record.ttl).min()
}

/// The lower of SOA TTL and SOA MINIMUM, and of every other record's TTL; `None` without an SOA, for then the denial must
/// not be kept (RFC 2308 section 5).
fn negative_ttl(response: &Response) -> Option<u32> {
    let minimum = response
        .records()
        .find(|(section, record)| *section == Count::Authority && record.rtype == Type::SOA)
        .and_then(|(_, record)| soa_minimum(response.wire(), &record))?;
    lowest_ttl(response).map(|ttl| ttl.min(minimum))
}

fn soa_minimum(wire: &[u8], record: &Record) -> Option<u32> {
    let tail = record.end.checked_sub(4).filter(|&at| at >= record.rdata)?;
    Some(u32::from_be_bytes(wire[tail..record.end].try_into().ok()?))
}
