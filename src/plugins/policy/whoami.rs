//! `whoami`: every query is answered with the address and port the server sees of the client.

use crate::corefile::Directive;
use crate::plugins::report::Report;

pub(crate) fn parse(line: &Directive, report: &mut Report<'_>) {
    report.alone(line);
}
