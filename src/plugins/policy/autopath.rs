//! `autopath [ZONES...] RESOLV-CONF | @query { ... }`: the search list of a stub resolver is walked here, not there.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use crate::cache::settings::Settings as Cache;
use crate::corefile::{Diagnostic, Directive, ServerBlock, Span, Token};
use crate::dns::Name;
use crate::plugins::report::{Report, options};
use crate::plugins::value::{Key, name};

/// The file whose search list every pod has after that of the cluster.
pub const NODES: &str = "/etc/resolv.conf";

/// What one `autopath` line says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Autopath {
    /// Names under these are looked at; all of the block where `None`.
    pub zones: Option<Vec<Name>>,
    /// Where the search list comes from.
    pub list: List,
    /// No walk for names asked, or looked for, that are these or beneath them.
    pub except: Vec<Name>,
    /// The most names of one walk, the one asked for among them.
    pub max_depth: usize,
}

/// Where a search list comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum List {
    /// From the question: `<namespace>.svc.<zone>`, `svc.<zone>`, `<zone>`, then these, which are the node's own;
    /// those of [`NODES`] where `None`.
    Query(Option<Vec<Name>>),
    /// From this file, for all clients alike.
    File(PathBuf),
}

impl Autopath {
    /// The file whose search list is wanted.
    pub fn file(&self) -> Option<&Path> {
        match &self.list {
            List::Query(Some(_)) => None,
            List::Query(None) => Some(Path::new(NODES)),
            List::File(path) => Some(path),
        }
    }
}

/// How many domains a search list has at most, and how many characters with the blanks between them: kubelet cuts what is
/// longer.
pub const MAX_SUFFIXES: usize = 32;
/// See [`MAX_SUFFIXES`].
pub const MAX_CHARACTERS: usize = 2048;
/// Names of a walk that are in no search list of a node: three of the cluster, and the one looked for.
const OTHERS: usize = 4;
const DEFAULT_DEPTH: usize = 10;
const DEPTHS: RangeInclusive<i64> = 2..=40;
const SYNTAX: &str = "autopath [ZONES...] RESOLV-CONF|@query";

pub(crate) fn parse(line: &Directive, report: &mut Report<'_>) -> Option<Autopath> {
    let words = report.args(line, 1..=usize::MAX, SYNTAX);
    let source = source(words, report);
    let mut list = source.as_ref().map_or(List::Query(None), |(list, _)| list.clone());
    let (mut except, mut max_depth) = (Vec::new(), DEFAULT_DEPTH);
    let (mut searched, mut limited) = (None, None);
    for option in options(line) {
        report.no_block(option);
        match &*option.name.text {
            "search" => {
                if once(option, &mut searched, "put all suffixes on one line", report) {
                    search(option, &mut list, report);
                }
            }
            "except" => {
                let words = report.args(option, 1..=usize::MAX, "except NAME...");
                let words = words.iter().filter(|word| !is_empty(word, "remove it", report)).collect::<Vec<_>>();
                except.extend(words.into_iter().filter_map(|word| report.name(word)));
            }
            "max_depth" => {
                if !once(option, &mut limited, "remove one of them", report) {
                    continue;
                }
                let depth = report.one(option, "max_depth N").and_then(|word| report.integer(word, DEPTHS));
                max_depth = depth.and_then(|depth| usize::try_from(depth).ok()).unwrap_or(max_depth);
            }
            _ => report.unknown_option("autopath", option, &["search", "except", "max_depth"]),
        }
    }
    let (_, zones) = source?;
    let zones = (!zones.is_empty()).then(|| report.zones(zones));
    Some(Autopath { zones, list, except, max_depth })
}

/// Where the list comes from, and the words that are zones. `None`: they are mixed up, and what else seems
/// wrong with them may follow from it.
fn source<'a>(words: &'a [Token], report: &mut Report<'_>) -> Option<(List, &'a [Token])> {
    let (last, zones) = words.split_last()?;
    let early = zones.iter().find(|word| word.text.starts_with('@'));
    let file = words.iter().find(|word| is_file(word));
    if let (Some(file), true) = (file, early.is_some() || &*last.text == "@query") {
        report.add(
            Diagnostic::error(file.span, "a file or `@query`, not both")
                .label("a search list comes from one of them")
                .help("remove one of them"),
        );
        return None;
    }
    if let Some(early) = early {
        let others = words.iter().filter(|word| word.span != early.span);
        let words: Vec<_> = others.chain([early]).map(ToString::to_string).collect();
        report.add(
            Diagnostic::error(early.span, format!("`{early}` comes last"))
                .help(format!("write `autopath {}`", words.join(" "))),
        );
        return None;
    }
    Some((source_of_list(last, zones, report), zones))
}

/// The last word of the line.
fn source_of_list(word: &Token, zones: &[Token], report: &mut Report<'_>) -> List {
    let text = &*word.text;
    let fault = |message: String| Diagnostic::error(word.span, message);
    if text == "@query" {
        return List::Query(None);
    }
    if text.starts_with('@') {
        report.add(
            fault(format!("`{text}` cannot be asked for a search list"))
                .label("the pod's namespace is in the question")
                .help("write `@query`"),
        );
        return List::Query(None);
    }
    if text.is_empty() {
        report.add(fault("this file name is empty".into()).help("name a file, or write `@query`"));
    } else if !text.contains('/') {
        let zones = zones.iter().map(|zone| format!("{zone} ")).collect::<String>();
        report.add(fault(format!("`{text}` is taken for a file, which needs a slash")).help(format!(
            "write `autopath {zones}./{text}` for a file, or `autopath {zones}{text} @query` for the names of a cluster"
        )));
    }
    List::File(text.into())
}

/// Whether a word looks like a path, and not like an address block, or a zone with a slash in it (RFC 2317).
fn is_file(word: &Token) -> bool {
    ["/", "./", "../"].iter().any(|start| word.text.starts_with(start))
}

/// Whether an option is there for the first time. `earlier`: where it was given before.
fn once(option: &Directive, earlier: &mut Option<Span>, help: &str, report: &mut Report<'_>) -> bool {
    let Some(first) = earlier.replace(option.name.span) else { return true };
    report.add(
        Diagnostic::error(option.name.span, format!("`{}` is given twice", option.name))
            .related(first, "first here")
            .help(help),
    );
    false
}

/// Whether a word has no text, as a variable of the environment that is not set: it is not the root.
fn is_empty(word: &Token, help: &str, report: &mut Report<'_>) -> bool {
    let empty = word.text.is_empty();
    if empty {
        report.add(Diagnostic::error(word.span, "this name is empty").label("a variable that is not set?").help(help));
    }
    empty
}

fn search(option: &Directive, list: &mut List, report: &mut Report<'_>) {
    let place = option.name.span;
    let List::Query(suffixes) = list else {
        return report.add(
            Diagnostic::error(place, "`search` belongs to `@query`")
                .label("the search list is that of the file")
                .help("remove it"),
        );
    };
    let words = report.args(option, 1..=usize::MAX, "search SUFFIX...");
    if let (Some(none), true) = (words.iter().find(|word| &*word.text == "."), words.len() > 1) {
        return report.add(
            Diagnostic::error(none.span, "`.` beside suffixes")
                .label("this means that there are none")
                .help("remove it, or all the others"),
        );
    }
    let mut named: Vec<(Name, Span)> = Vec::new();
    for word in words.iter().filter(|word| &*word.text != ".") {
        if is_empty(word, "name a domain; to have no suffixes, write `search .`", report) {
            continue;
        }
        let Some(name) = report.name(word) else { continue };
        match named.iter().find(|(known, _)| *known == name) {
            Some((_, first)) => report.add(
                Diagnostic::warning(word.span, format!("`{word}` is named twice"))
                    .label("left out")
                    .related(*first, "first here")
                    .help("remove it"),
            ),
            None => named.push((name, word.span)),
        }
    }
    if let Some((_, extra)) = named.get(MAX_SUFFIXES) {
        report.add(
            Diagnostic::error(*extra, format!("more than {MAX_SUFFIXES} suffixes"))
                .label("pods have no more: kubelet cuts the list here")
                .help(format!("name at most {MAX_SUFFIXES}")),
        );
    }
    *suffixes = Some(named.into_iter().map(|(name, _)| name).collect());
}

/// What the line says against the rest of its block.
pub(crate) fn check(block: &ServerBlock, autopath: &Autopath, cache: Option<&Cache>, report: &mut Report<'_>) {
    let Some(line) = block.directives.iter().find(|line| &*line.name.text == "autopath") else { return };
    let place = line.name.span;
    if cache.is_none() {
        report.add(
            Diagnostic::warning(place, "`autopath` without `cache`: every walk asks everything anew")
                .help("add a line `cache`"),
        );
    }
    let block_zones: Vec<Name> = block.keys.iter().flat_map(zones_of).collect();
    check_zones(line, autopath, &block_zones, report);
    let zones = autopath.zones.as_ref().unwrap_or(&block_zones);
    let excepted = |zone: &Name| autopath.except.iter().any(|except| zone.is_under(except));
    if !zones.is_empty() && zones.iter().all(excepted) {
        report.add(
            Diagnostic::warning(place_of(line, "except"), "`except` leaves no name for `autopath`")
                .help("name less, or remove `autopath`"),
        );
    }
    check_suffixes(line, autopath, zones, report);
    check_cache(block, line, cache, zones, report);
}

/// The result of a walk is kept like an answer for its first name.
fn check_cache(block: &ServerBlock, line: &Directive, cache: Option<&Cache>, zones: &[Name], report: &mut Report<'_>) {
    let Some(kept) = cache.and_then(|cache| cache.zones.as_ref()) else { return };
    let meets = |zone: &Name| kept.iter().any(|kept| zone.is_under(kept) || kept.is_under(zone));
    let Some(zone) = zones.iter().find(|zone| !meets(zone)) else { return };
    let Some(cache) = block.directives.iter().find(|line| &*line.name.text == "cache") else { return };
    report.add(
        Diagnostic::warning(line.name.span, format!("`cache` leaves {zone} out: no walk there is kept"))
            .label("every one asks anew")
            .related(cache.span(), "these zones are kept, and no others")
            .help(format!("add {zone} to the zones of `cache`, or name none there")),
    );
}

fn check_zones(line: &Directive, autopath: &Autopath, block: &[Name], report: &mut Report<'_>) {
    let query = matches!(autopath.list, List::Query(_));
    if query && autopath.zones.is_none() && block.contains(&Name::root()) {
        report.add(
            Diagnostic::error(line.name.span, "`@query` needs the name of the cluster's zone here")
                .label("this block is for all names")
                .help("write `autopath cluster.local @query`, or move the line to the block of that zone"),
        );
    }
    let words = line.args.split_last().map_or(&[][..], |(_, zones)| zones);
    for (word, zone) in words.iter().flat_map(|word| zones_of(word).into_iter().map(move |zone| (word, zone))) {
        if query && zone == Name::root() {
            report.add(
                Diagnostic::error(word.span, "`.` is not the zone of a cluster")
                    .help("name the zone, as in `autopath cluster.local @query`"),
            );
        } else if !block.iter().any(|own| zone.is_under(own) || !query && own.is_under(&zone)) {
            report.add(
                Diagnostic::warning(word.span, format!("{zone} is not in this block"))
                    .label("never asked here")
                    .help("move the line to the block of this zone, or remove the zone"),
            );
        }
    }
}

fn check_suffixes(line: &Directive, autopath: &Autopath, zones: &[Name], report: &mut Report<'_>) {
    let List::Query(Some(suffixes)) = &autopath.list else { return };
    let words = options(line).iter().filter(|option| &*option.name.text == "search").flat_map(|option| &option.args);
    for word in words {
        let Ok(name) = name(&word.text) else { continue };
        let own = zones.iter().find(|zone| **zone != Name::root() && name.is_under(zone));
        if let (Some(zone), true) = (own, suffixes.contains(&name)) {
            report.add(
                Diagnostic::warning(word.span, format!("`{word}` is in the cluster's own zone {zone}"))
                    .label("a pod's list has the cluster's suffixes in any case")
                    .help("remove it; to have no other suffixes, write `search .`"),
            );
        }
    }
    let names = suffixes.len() + OTHERS;
    if names > autopath.max_depth && suffixes.len() <= MAX_SUFFIXES {
        report.add(
            Diagnostic::warning(
                place_of(line, "search"),
                format!("a search list has {names} names with these suffixes"),
            )
            .label(format!("a walk has {} at most", autopath.max_depth))
            .help(format!("write `max_depth {names}`")),
        );
    }
}

/// Where an option first stands.
fn place_of(line: &Directive, option: &str) -> Span {
    options(line).iter().find(|found| &*found.name.text == option).map_or(line.name.span, Directive::span)
}

/// None where the word is no zone, which is said elsewhere.
fn zones_of(word: &Token) -> Vec<Name> {
    Key::parse(&word.text).map(|key| key.zones).unwrap_or_default()
}
