//! What the `log` and `errors` plugins write.

use std::time::Duration;

use crate::dns::header::{self, Count};
use crate::dns::{Name, Protocol, Query, Rcode, Record, Type, question};
use crate::plugins::front::format::{LogFacts, ReplyClass};
use crate::plugins::front::log;
use crate::sys::clock;

use super::asked::Asked;
use super::outcome::Failed;
use super::resolver::Resolver;
use super::way::Way;

impl Resolver {
    /// Writes the line of the `log` plugin, if the block has one that matches.
    pub(super) fn log_query(&self, way: &Way<'_>, query: &Query<'_>, rcode: Rcode, reply: &[u8], elapsed: Duration) {
        let Some(lines) = self.query_log.as_ref().filter(|_| !way.route.log.is_empty()) else { return };
        let class = class(reply, rcode);
        let Some(rule) = log::rule(&way.route.log, query.name(), class) else { return };
        let facts = LogFacts {
            name: query.name(),
            qtype: query.qtype,
            qclass: query.qclass,
            protocol: way.client.protocol,
            size: query.message.len(),
            remote: way.client.peer,
            local: way.client.local.ip(),
            id: query.id(),
            opcode: header::opcode(query.message),
            dnssec_ok: query.dnssec_ok(),
            bufsize: match way.client.protocol {
                Protocol::Udp => query.edns.map_or(512, |edns| edns.size.max(512)),
                Protocol::Tcp => u16::MAX,
            },
            rcode,
            flags: header::read_u16(reply, 2),
            reply_size: reply.len(),
            class,
            duration: elapsed,
        };
        let mut line = String::new();
        rule.format.write(&mut line, &facts);
        lines.line(&line);
    }

    /// Writes the line of the `errors` plugin, if the block has it.
    pub(super) fn log_failure(&self, asked: &Asked, failed: &Failed) {
        if let Some(errors) = &self.lines[asked.route].errors
            && let Some(name) = Name::from_wire(&asked.name)
        {
            errors.report(failed.rcode, &name, asked.qtype, &failed.text, clock::now());
        }
    }
}

/// As CoreDNS sorts replies: NOERROR with data or a delegation; denials, which have an SOA; the rest.
fn class(reply: &[u8], rcode: Rcode) -> ReplyClass {
    let denies = || has_soa(reply);
    match rcode {
        Rcode::NOERROR if header::count(reply, Count::Answer) == 0 && denies() => ReplyClass::Denial,
        Rcode::NOERROR => ReplyClass::Success,
        Rcode::NXDOMAIN if denies() => ReplyClass::Denial,
        _ => ReplyClass::Error,
    }
}

fn has_soa(reply: &[u8]) -> bool {
    let Some(mut at) = question::question_end(reply) else { return false };
    let records = header::count(reply, Count::Answer) + header::count(reply, Count::Authority);
    for _ in 0..records {
        let Some(record) = Record::read(reply, at) else { return false };
        if record.rtype == Type::SOA {
            return true;
        }
        at = record.end;
    }
    false
}
