//! Reading the words of a directive: each helper gives a value, or writes down what is wrong and gives none.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::value::{HttpAddress, Key, duration};
use crate::corefile::{Diagnostic, Directive, Token, nearest, one_of};
use crate::dns::Name;

/// Where findings go.
pub(crate) struct Report<'a> {
    pub(crate) found: &'a mut Vec<Diagnostic>,
    /// The zones of the block.
    pub(crate) zones: Vec<Name>,
}

impl Report<'_> {
    pub(crate) fn add(&mut self, diagnostic: Diagnostic) {
        self.found.push(diagnostic);
    }

    /// The arguments of a directive, if there are as many as wanted. `syntax` is how the line is written.
    pub(crate) fn args<'d>(&mut self, line: &'d Directive, wanted: RangeInclusive<usize>, syntax: &str) -> &'d [Token] {
        let number = line.args.len();
        if wanted.contains(&number) {
            return &line.args;
        }
        let message = if number < *wanted.start() {
            format!("`{}` needs more arguments", line.name)
        } else if *wanted.end() == 0 {
            format!("`{}` takes no arguments", line.name)
        } else {
            format!("`{}` takes fewer arguments", line.name)
        };
        let span = line.args.get(*wanted.end()).map_or(line.name.span, |first| first.span.to(line.span()));
        self.add(Diagnostic::error(span, message).help(format!("write `{syntax}`")));
        &[]
    }

    /// The only argument.
    pub(crate) fn one<'d>(&mut self, line: &'d Directive, syntax: &str) -> Option<&'d Token> {
        self.args(line, 1..=1, syntax).first()
    }

    /// A directive or option that stands alone on its line.
    pub(crate) fn alone(&mut self, line: &Directive) {
        self.args(line, 0..=0, &line.name.text);
        self.no_block(line);
    }

    /// No braces may follow.
    pub(crate) fn no_block(&mut self, line: &Directive) {
        if line.block.is_some() {
            let message = format!("`{}` has no options in braces", line.name);
            self.add(Diagnostic::error(line.name.span, message).help("remove the braces and what is between them"));
        }
    }

    /// An option no one knows.
    pub(crate) fn unknown_option(&mut self, plugin: &str, line: &Directive, known: &[&str]) {
        let message = format!("`{plugin}` has no option `{}`", line.name);
        let help = match nearest(&line.name.text, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => "remove it".to_owned(),
            None => format!("its options are {}", one_of(known).replace(" or ", " and ")),
        };
        self.add(Diagnostic::error(line.name.span, message).help(help));
    }

    /// A decimal integer with optional sign, in a range.
    pub(crate) fn integer(&mut self, word: &Token, range: RangeInclusive<i64>) -> Option<i64> {
        let found = word.text.parse::<i64>().ok();
        if let Some(number) = found.filter(|number| range.contains(number)) {
            return Some(number);
        }
        let message = match found {
            Some(number) => format!("{number} is out of range"),
            None => format!("`{word}` is not a whole number"),
        };
        let help = match (*range.start(), *range.end()) {
            (start, i64::MAX) => format!("write a number from {start} up"),
            (start, end) => format!("write a number from {start} to {end}"),
        };
        self.add(Diagnostic::error(word.span, message).help(help));
        None
    }

    /// A duration in Go's notation, in a range.
    pub(crate) fn duration(&mut self, word: &Token, range: RangeInclusive<Duration>) -> Option<Duration> {
        match duration(&word.text) {
            None => {
                let help = if word.text.parse::<u64>().is_ok() {
                    format!("a unit is missing: `{word}s` is {word} seconds")
                } else {
                    "write a number and a unit: `500ms`, `30s`, `1m30s`, `2h`".to_owned()
                };
                self.add(Diagnostic::error(word.span, format!("`{word}` is not a duration")).help(help));
                None
            }
            Some(nanoseconds) => {
                let value = u64::try_from(nanoseconds).ok().map(Duration::from_nanos);
                let value = value.filter(|value| range.contains(value));
                if value.is_none() {
                    self.out_of_range(word, &range);
                }
                value
            }
        }
    }

    pub(crate) fn out_of_range(&mut self, word: &Token, range: &RangeInclusive<Duration>) {
        let (start, end) = (range.start(), range.end());
        let help = match (*start, *end) {
            (Duration::ZERO, Duration::MAX) => "write a duration that is not negative".to_owned(),
            (start, Duration::MAX) => format!("write a duration of {start:?} or more"),
            (start, end) => format!("write a duration from {start:?} to {end:?}"),
        };
        self.add(Diagnostic::error(word.span, format!("`{word}` is out of range")).help(help));
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(&mut self, word: &Token, choices: &[(&str, T)]) -> Option<T> {
        let found = choices.iter().find(|(name, _)| *name == &*word.text).map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            let help = match nearest(&word.text, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("write {}", one_of(&names)),
            };
            self.add(Diagnostic::error(word.span, format!("`{word}` is not known here")).help(help));
        }
        found
    }

    /// Where an HTTP endpoint listens.
    pub(crate) fn http(&mut self, word: &Token) -> Option<HttpAddress> {
        self.take(word, HttpAddress::parse(&word.text), "write `:8080`, `127.0.0.1:8080` or `[fd00::1]:8080`")
    }

    /// A domain name.
    pub(crate) fn name(&mut self, word: &Token) -> Option<Name> {
        self.take(word, super::value::name(&word.text), "write a name such as `example.org`")
    }

    /// Zones, address blocks expanded. What is no zone is left out with a warning, as CoreDNS does silently.
    pub(crate) fn zones(&mut self, words: &[Token]) -> Vec<Name> {
        let mut zones = Vec::new();
        for word in words {
            match Key::parse(&word.text) {
                Ok(key) => zones.extend(key.zones),
                Err(reason) => self.add(
                    Diagnostic::warning(word.span, reason)
                        .label("this zone is left out")
                        .help("write a name such as `example.org`, or a block such as `10.0.0.0/8`"),
                ),
            }
        }
        zones
    }

    /// Zones for which an option is meant. One with no name that `within` (or the block, where it is empty) has as well
    /// gets a warning.
    pub(crate) fn zones_within(&mut self, words: &[Token], within: &[Name]) -> Vec<Name> {
        let mut all = Vec::new();
        for word in words {
            let zones = self.zones(std::slice::from_ref(word));
            let own = if within.is_empty() { &self.zones } else { within };
            let meets = |zone: &Name| own.iter().any(|other| zone.is_under(other) || other.is_under(zone));
            if !own.is_empty() && !zones.is_empty() && !zones.iter().any(meets) {
                let names = own.iter().take(3).map(|zone| format!("`{zone}`")).collect::<Vec<_>>().join(", ");
                let more = if own.len() > 3 { " and others" } else { "" };
                self.add(
                    Diagnostic::warning(word.span, format!("`{word}` is outside the zones here"))
                        .label("no name under it is ever looked up here")
                        .help(format!(
                            "write a zone under {names}{more}, or put the line into the block that serves it"
                        )),
                );
            }
            all.extend(zones);
        }
        all
    }

    /// The value, or a finding.
    pub(crate) fn take<T, E: Display>(&mut self, word: &Token, value: Result<T, E>, help: &str) -> Option<T> {
        value.map_err(|reason| self.add(Diagnostic::error(word.span, reason.to_string()).help(help))).ok()
    }
}

/// The options in a directive's braces; none without braces.
pub(crate) fn options(line: &Directive) -> &[Directive] {
    line.block.as_deref().unwrap_or_default()
}
