//! `bind ADDRESS|INTERFACE... { except ADDRESS|INTERFACE... }`: where a block listens. Interfaces stay names here.

use crate::corefile::{Diagnostic, Directive, Token};
use crate::plugins::report::{Report, options};

/// One `bind` line. Words are IP addresses or names of interfaces.
#[derive(Clone, Debug)]
pub struct Bind {
    /// Listen here,
    pub addresses: Vec<Token>,
    /// but not here.
    pub except: Vec<Token>,
}

pub(crate) fn parse(line: &Directive, report: &mut Report<'_>) -> Bind {
    if line.args.is_empty() {
        report.add(
            Diagnostic::error(line.name.span, "`bind` needs an address")
                .help("write `bind 169.254.20.10`, several addresses, or the name of an interface"),
        );
    }
    let mut except = Vec::new();
    for option in options(line) {
        match &*option.name.text {
            "except" => {
                except.extend_from_slice(report.args(option, 1..=usize::MAX, "except ADDRESS|INTERFACE..."));
                report.no_block(option);
            }
            _ => report.unknown_option("bind", option, &["except"]),
        }
    }
    Bind { addresses: line.args.clone(), except }
}
