//! `bufsize [SIZE]`: the largest UDP size a client may ask for, and the one advertised to upstreams.

use crate::corefile::Directive;
use crate::plugins::report::Report;

/// What a bare `bufsize` means.
pub const DEFAULT: u16 = 1232;

pub(crate) fn parse(line: &Directive, report: &mut Report<'_>) -> Option<u16> {
    report.no_block(line);
    match report.args(line, 0..=1, "bufsize [512..4096]").first() {
        None => Some(DEFAULT),
        Some(word) => report.integer(word, 512..=4096).and_then(|size| u16::try_from(size).ok()),
    }
}
