//! `debug`: debug lines in the log. Panics are contained all the same.

use crate::corefile::Directive;
use crate::plugins::report::Report;

pub(crate) fn parse(line: &Directive, report: &mut Report<'_>) {
    report.alone(line);
}
