//! `log [NAMES...] [FORMAT] { class ... }`: a line for every query that a rule wants.

use super::format::{Format, ReplyClass};
use crate::corefile::{Diagnostic, Directive};
use crate::dns::Name;
use crate::dns::name::is_under;
use crate::plugins::report::{Report, options};

/// One rule: queries for names under `name` whose replies are of one of the classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRule {
    /// The zone.
    pub name: Name,
    /// How the line looks.
    pub format: Format,
    /// Which replies.
    pub classes: Classes,
}

/// A set of reply classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classes {
    success: bool,
    denial: bool,
    error: bool,
}

/// The first rule for a name and a reply. As in CoreDNS, the first rule whose zone holds the name decides alone.
pub fn rule<'a>(rules: &'a [LogRule], name: &[u8], class: ReplyClass) -> Option<&'a LogRule> {
    rules.iter().find(|rule| is_under(name, rule.name.as_wire())).filter(|rule| rule.classes.contain(class))
}

impl Classes {
    /// All of them.
    pub const ALL: Classes = Classes { success: true, denial: true, error: true };
    const NONE: Classes = Classes { success: false, denial: false, error: false };

    /// Whether this class is in the set.
    pub fn contain(self, class: ReplyClass) -> bool {
        match class {
            ReplyClass::Success => self.success,
            ReplyClass::Denial => self.denial,
            ReplyClass::Error => self.error,
        }
    }
}

pub(crate) fn parse(line: &Directive, report: &mut Report<'_>) -> Vec<LogRule> {
    let mut names = line.args.as_slice();
    let mut format = Format::default();
    match names {
        [only] if only.text.contains('{') => report.add(
            Diagnostic::warning(only.span, "a single argument is a name, not a format")
                .help("write a name before the format: `log . \"...\"`"),
        ),
        [_, .., last] if last.text.contains('{') => {
            format = Format::compile(&last.text);
            names = &names[..names.len() - 1];
        }
        _ => {}
    }
    let mut zones: Vec<Name> = names.iter().filter_map(|word| report.name(word)).collect();
    if names.is_empty() {
        zones.push(Name::root());
    }
    let mut classes = Classes::NONE;
    for option in options(line) {
        match &*option.name.text {
            "class" => {
                report.no_block(option);
                for word in report.args(option, 1..=4, "class all|denial|error|success ...") {
                    match report.choice(word, &[("all", 0), ("denial", 1), ("error", 2), ("success", 3)]) {
                        Some(0) => classes = Classes::ALL,
                        Some(1) => classes.denial = true,
                        Some(2) => classes.error = true,
                        Some(_) => classes.success = true,
                        None => {}
                    }
                }
            }
            _ => report.unknown_option("log", option, &["class"]),
        }
    }
    if classes == Classes::NONE {
        classes = Classes::ALL;
    }
    zones.into_iter().map(|name| LogRule { name, format: format.clone(), classes }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_for_a_name_decides() {
        let rule_for =
            |name: &str, classes| LogRule { name: Name::parse(name).unwrap(), format: Format::default(), classes };
        let rules = [rule_for("example.org", Classes { error: true, ..Classes::NONE }), rule_for(".", Classes::ALL)];
        let name = |text| Name::parse(text).unwrap();
        let found = |text, class| rule(&rules, name(text).as_wire(), class).map(|rule| rule.name.to_string());
        assert_eq!(found("a.example.org", ReplyClass::Error).as_deref(), Some("example.org."));
        assert_eq!(found("a.example.org", ReplyClass::Success), None);
        assert_eq!(found("b.example", ReplyClass::Success).as_deref(), Some("."));
    }
}
