//! `loop`: a probe at start and after each reload that finds out whether our queries come back to us.

use crate::corefile::Directive;
use crate::plugins::report::Report;

pub(crate) fn parse(line: &Directive, report: &mut Report<'_>) {
    report.alone(line);
}
