//! `aaaa off [ZONES...]`: a cluster without IPv6 has no use for IPv6 addresses.

use crate::corefile::Directive;
use crate::dns::{Name, name};
use crate::plugins::report::Report;

/// What the `aaaa` lines of a block say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aaaa {
    /// AAAA questions for names under these are answered with no data; for all names of the block where `None`.
    pub off: Option<Vec<Name>>,
}

impl Aaaa {
    /// Whether a AAAA question for this lower-case wire name is answered with no data.
    pub fn is_off(&self, qname: &[u8]) -> bool {
        self.off.as_ref().is_none_or(|zones| zones.iter().any(|zone| name::is_under(qname, zone.as_wire())))
    }
}

pub(crate) fn parse(line: &Directive, report: &mut Report<'_>) -> Option<Aaaa> {
    report.no_block(line);
    let (word, zones) = report.args(line, 1..=usize::MAX, "aaaa off [ZONES...]").split_first()?;
    report.choice(word, &[("off", ())])?;
    Some(Aaaa { off: (!zones.is_empty()).then(|| report.zones_within(zones, &[])) })
}
