//! Zones of options that never act: at every address of their block a more specific block answers for them.

use super::Listen;
use crate::corefile::{Diagnostic, Directive, ServerBlock, Span, Token};
use crate::dns::Name;
use crate::plugins::value::Key;

/// Warns of every such zone of `autopath`, `denial_cut` and `aaaa off`. `key` is where a zone of a listen stands in the
/// text, by the index in its table.
pub(super) fn check<'a>(
    blocks: &[ServerBlock],
    listens: &'a [Listen],
    key: impl Fn(&'a Listen, usize) -> Span,
    found: &mut Vec<Diagnostic>,
) {
    for (route, block) in blocks.iter().enumerate() {
        for (option, word) in block.directives.iter().flat_map(words) {
            let zones = Key::parse(&word.text).map(|key| key.zones).unwrap_or_default();
            let mut places = zones.iter().map(|zone| shadowed(zone, route, listens));
            if let Some(Some((listen, at))) = places.next()
                && places.all(|place| place.is_some())
            {
                found.push(
                    Diagnostic::warning(word.span, format!("`{option}` does nothing for `{word}` in this block"))
                        .label("these names never get here")
                        .related(key(listen, at), "another block at the same address answers them")
                        .help("move it into that block"),
                );
            }
        }
    }
}

/// The zones that the options of a line name.
fn words(line: &Directive) -> Vec<(&'static str, &Token)> {
    match (&*line.name.text, line.args.as_slice()) {
        ("autopath", [zones @ .., _]) => zones.iter().map(|word| ("autopath", word)).collect(),
        ("aaaa", [_, zones @ ..]) => zones.iter().map(|word| ("aaaa off", word)).collect(),
        ("cache", _) => {
            let options = line.block.iter().flatten().filter(|option| &*option.name.text == "denial_cut");
            options.flat_map(|option| option.args.iter().map(|word| ("denial_cut", word))).collect()
        }
        _ => Vec::new(),
    }
}

/// The first listen of a route, and the zone there by its index, that has all names of this zone in place of the route;
/// `None` where the route answers some of them, or none of its zones is above them.
fn shadowed<'a>(zone: &Name, route: usize, listens: &'a [Listen]) -> Option<(&'a Listen, usize)> {
    let mut first = None;
    for listen in listens {
        let zones: Vec<(usize, &Name, usize)> =
            listen.zones.entries().enumerate().map(|(at, (other, answers))| (at, other, answers)).collect();
        let own = || zones.iter().filter(|(.., answers)| *answers == route).map(|(_, own, _)| *own);
        if own().next().is_none() {
            continue;
        }
        if !own().any(|own| zone.is_under(own)) || own().any(|own| own.is_under(zone)) {
            return None;
        }
        let above = zones.iter().filter(|(_, other, _)| zone.is_under(other));
        let (at, _, answers) = above.max_by_key(|(_, other, _)| other.label_count())?;
        if *answers == route {
            return None;
        }
        first = first.or(Some((listen, *at)));
    }
    first
}
