//! `cache [TTL] [ZONES...] { ... }`: what is kept, for how long, and what happens at the end.

use std::time::Duration;

use crate::cache::settings::{ClassLimits, Prefetch, ServeStale, Settings};
use crate::corefile::{Diagnostic, Directive, Token};
use crate::dns::Name;
use crate::plugins::report::{Report, options};
use crate::plugins::value::Key;

const KNOWN: [&str; 9] = [
    "success",
    "denial",
    "prefetch",
    "serve_stale",
    "serve_stale_policy",
    "servfail",
    "disable",
    "keepttl",
    "denial_cut",
];
const MIN_CAPACITY: i64 = 1024;
const MAX_SECONDS: i64 = i64::MAX / 1_000_000_000;
const FIVE_MINUTES: Duration = Duration::from_secs(300);
/// No reply has a longer TTL, in seconds (RFC 8767 section 4).
const LONGEST_TTL: u32 = 604_800;

#[derive(Clone, Copy, PartialEq)]
enum Class {
    Success,
    Denial,
}

pub(crate) fn parse(line: &Directive, report: &mut Report<'_>) -> Settings {
    let mut settings = Settings::new();
    let mut words = line.args.as_slice();
    if let Some((first, rest)) = words.split_first()
        && first.text.parse::<i64>().is_ok()
    {
        if let Some(ttl) = ttl(first, 1, report) {
            settings.success.max_ttl = ttl;
            settings.denial.max_ttl = ttl;
        }
        words = rest;
    }
    if let Some(first) = words.first()
        && crate::plugins::value::duration(&first.text).is_some_and(|time| time > 0)
    {
        report.add(
            Diagnostic::warning(first.span, format!("`{first}` is read as a zone, not as a time"))
                .label("only names under this zone are cached")
                .help("a TTL is a whole number of seconds, as in `cache 30`"),
        );
    }
    settings.zones = (!words.is_empty()).then(|| report.zones(words));
    let mut policy: Option<&Directive> = None;
    for option in options(line) {
        if &*option.name.text == "serve_stale_policy" {
            if let Some(earlier) = policy.replace(option) {
                report.add(
                    Diagnostic::error(option.name.span, "`serve_stale_policy` is given twice")
                        .related(earlier.name.span, "first here")
                        .help("remove one of them"),
                );
            }
        } else {
            parse_option(option, &mut settings, report);
        }
    }
    if let Some(option) = policy {
        prefer_positive(option, &mut settings, line, report);
    }
    check_cuts(line, &settings, report);
    settings
}

/// Zones of `denial_cut` whose denials are not kept.
fn check_cuts(line: &Directive, settings: &Settings, report: &mut Report<'_>) {
    let of_denials = |option: &&Directive| {
        &*option.name.text == "disable" && option.args.first().is_some_and(|class| &*class.text == "denial")
    };
    // The last one counts.
    let Some(disabled) = options(line).iter().rfind(of_denials) else { return };
    let lost = |zone: &Name| settings.disable_denial.iter().any(|other| zone.is_under(other));
    let lines = options(line).iter().filter(|option| &*option.name.text == "denial_cut");
    for word in lines.flat_map(|option| &option.args) {
        let zones = Key::parse(&word.text).map(|key| key.zones).unwrap_or_default();
        if !zones.is_empty() && zones.iter().all(lost) {
            report.add(
                Diagnostic::warning(word.span, format!("`{word}` has no effect here: no denials of it are kept"))
                    .label("nothing is cut")
                    .related(disabled.span(), "because of this")
                    .help("remove it, or keep denials of this zone"),
            );
        }
    }
}

fn parse_option(option: &Directive, settings: &mut Settings, report: &mut Report<'_>) {
    report.no_block(option);
    match &*option.name.text {
        "success" => limits(option, &mut settings.success, report),
        "denial" => limits(option, &mut settings.denial, report),
        "prefetch" => prefetch(option, settings, report),
        "serve_stale" => settings.serve_stale = serve_stale(option, report),
        "servfail" => {
            if let Some(word) = report.one(option, "servfail DURATION")
                && let Some(value) = report.duration(word, Duration::ZERO..=FIVE_MINUTES)
            {
                settings.servfail = value;
            }
        }
        "disable" => disable(option, settings, report),
        "keepttl" => {
            report.args(option, 0..=0, "keepttl");
            settings.keepttl = true;
        }
        "denial_cut" => {
            let words = report.args(option, 1..=usize::MAX, "denial_cut ZONES...");
            let within = settings.zones.clone().unwrap_or_default();
            settings.denial_cut.extend(report.zones_within(words, &within));
        }
        _ => report.unknown_option("cache", option, &KNOWN),
    }
}

fn ttl(word: &Token, least: i64, report: &mut Report<'_>) -> Option<u32> {
    let seconds = report.integer(word, least..=MAX_SECONDS)?;
    Some(u32::try_from(seconds).unwrap_or(u32::MAX))
}

fn limits(option: &Directive, limits: &mut ClassLimits, report: &mut Report<'_>) {
    let syntax = format!("{} CAPACITY [TTL] [MINTTL]", option.name);
    let words = report.args(option, 1..=usize::MAX, &syntax);
    let Some(capacity) = words.first() else { return };
    if let Some(number) = report.integer(capacity, i64::MIN..=i64::MAX) {
        limits.capacity = usize::try_from(number.max(MIN_CAPACITY)).unwrap_or(usize::MAX);
    }
    if let Some(value) = words.get(1).and_then(|word| ttl(word, 1, report)) {
        limits.max_ttl = value;
    }
    if let Some(value) = words.get(2).and_then(|word| ttl(word, 0, report)) {
        limits.min_ttl = value;
    }
    if let Some(extra) = words.get(3) {
        report.add(Diagnostic::warning(extra.span.to(option.span()), "what follows here is ignored"));
    }
}

fn prefetch(option: &Directive, settings: &mut Settings, report: &mut Report<'_>) {
    let words = report.args(option, 1..=3, "prefetch AMOUNT [DURATION [PERCENTAGE%]]");
    let Some(amount) = words.first() else { return };
    let amount = report.integer(amount, 0..=i64::from(u32::MAX)).and_then(|number| u32::try_from(number).ok());
    let duration = match words.get(1) {
        None => Some(Duration::from_secs(60)),
        Some(word) => report.duration(word, Duration::ZERO..=Duration::MAX),
    };
    let percentage = match words.get(2) {
        None => Some(10),
        Some(word) => percentage(word, report),
    };
    if let (Some(amount), Some(duration), Some(percentage)) = (amount, duration, percentage) {
        settings.prefetch = (amount > 0).then_some(Prefetch { amount, duration, percentage });
    }
}

fn percentage(word: &Token, report: &mut Report<'_>) -> Option<u8> {
    let number = word.text.strip_suffix('%').and_then(|digits| digits.parse::<u8>().ok());
    let value = number.filter(|number| (10..=90).contains(number));
    if value.is_none() {
        report.add(
            Diagnostic::error(word.span, format!("`{word}` is not a percentage that can be used"))
                .help("write a percentage from `10%` to `90%`, with its sign"),
        );
    }
    value
}

fn serve_stale(option: &Directive, report: &mut Report<'_>) -> Option<ServeStale> {
    let mut stale = ServeStale::lasting(Duration::from_secs(3600));
    let syntax = "serve_stale [DURATION [immediate [TTL [RECHECK]] | verify [TIMEOUT [TTL [RECHECK]]]]]";
    let mut words = report.args(option, 0..=5, syntax).iter();
    if let Some(word) = words.next() {
        stale.duration = report.duration(word, Duration::ZERO..=Duration::MAX)?;
    }
    if let Some(mode) = words.next() {
        stale.verify = match mode.text.to_lowercase().as_str() {
            "immediate" => false,
            "verify" => true,
            _ => report.choice(mode, &[("immediate", false), ("verify", true)])?,
        };
    }
    if stale.verify
        && let Some(word) = words.next()
    {
        let timeout = report.duration(word, Duration::ZERO..=Duration::MAX);
        stale.verify_timeout = timeout.filter(|timeout| !timeout.is_zero());
    }
    if let Some(word) = words.next() {
        stale.response_ttl = stale_ttl(word, report);
    }
    if let Some(word) = words.next() {
        stale.failure_recheck = report.duration(word, Duration::ZERO..=FIVE_MINUTES);
    }
    if let Some(extra) = words.next() {
        let message = "`serve_stale` takes fewer arguments";
        report.add(Diagnostic::error(extra.span, message).help(format!("write `{syntax}`")));
    }
    (!stale.duration.is_zero()).then_some(stale)
}

/// The TTL of stale replies. CoreDNS writes it as a duration of whole seconds; its default, 0, is one that no stale reply
/// may have (RFC 8767 section 4), so that here too it stands for the default.
fn stale_ttl(word: &Token, report: &mut Report<'_>) -> Option<u32> {
    let value = report.duration(word, Duration::ZERO..=Duration::from_secs(u32::MAX.into()))?;
    if value.subsec_nanos() > 0 {
        let message = format!("`{word}` is not a whole number of seconds");
        report.add(Diagnostic::error(word.span, message).help("TTLs have no fractions: write `30s`"));
        return None;
    }
    let seconds = u32::try_from(value.as_secs()).unwrap_or(u32::MAX).min(LONGEST_TTL);
    (seconds > 0).then_some(seconds)
}

fn prefer_positive(option: &Directive, settings: &mut Settings, line: &Directive, report: &mut Report<'_>) {
    report.no_block(option);
    let Some(word) = report.one(option, "serve_stale_policy prefer_positive") else { return };
    let known = word.text.eq_ignore_ascii_case("prefer_positive");
    if !known && report.choice(word, &[("prefer_positive", ())]).is_none() {
        return;
    }
    if let Some(stale) = &mut settings.serve_stale {
        stale.prefer_positive = true;
    } else if !options(line).iter().any(|option| &*option.name.text == "serve_stale") {
        report.add(
            Diagnostic::error(option.name.span, "`serve_stale_policy` needs `serve_stale`")
                .help("add a line `serve_stale`, or remove this one"),
        );
    }
}

fn disable(option: &Directive, settings: &mut Settings, report: &mut Report<'_>) {
    let words = report.args(option, 1..=usize::MAX, "disable success|denial [ZONES...]");
    let Some((class, zones)) = words.split_first() else { return };
    let Some(class) = report.choice(class, &[("success", Class::Success), ("denial", Class::Denial)]) else { return };
    let mut names: Vec<Name> = zones.iter().filter_map(|word| report.name(word)).collect();
    if zones.is_empty() {
        names.push(Name::root());
    }
    match class {
        Class::Success => settings.disable_success = names,
        Class::Denial => settings.disable_denial = names,
    }
}
