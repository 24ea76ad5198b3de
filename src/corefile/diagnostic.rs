//! What is wrong with a text, said so that a person can mend it: place, cause, and what would be right.

use std::fmt::Write as _;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet, normalize_untrusted_str as clean};

use super::span::{SourceMap, Span};

/// One finding. Build it with [`Diagnostic::error`] or [`Diagnostic::warning`] and add to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether the text can be used in spite of it.
    pub severity: Severity,
    /// The words it is about; `None` when no text is at fault.
    pub span: Option<Span>,
    /// One sentence without a full stop.
    pub message: String,
    /// Stands next to the carets; may be empty.
    pub label: String,
    /// What would be right.
    pub help: Option<String>,
    /// Other places that matter, each with its own label.
    pub related: Vec<(Span, String)>,
}

/// A message that quotes a word of the text is cut here.
const MAX_MESSAGE: usize = 500;
/// Lines of more octets than this are not shown, only their place.
const MAX_WINDOW: usize = 4096;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The text cannot be used.
    Error,
    /// The text can be used, but probably does not do what was meant.
    Warning,
}

impl Diagnostic {
    /// A finding that makes the text unusable.
    pub fn error(span: impl Into<Option<Span>>, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, span.into(), message.into())
    }

    /// A finding that does not.
    pub fn warning(span: impl Into<Option<Span>>, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, span.into(), message.into())
    }

    fn new(severity: Severity, span: Option<Span>, mut message: String) -> Self {
        if let Some((cut, _)) = message.char_indices().nth(MAX_MESSAGE) {
            message.truncate(cut);
            message.push_str("...");
        }
        Self { severity, span, message, label: String::new(), help: None, related: Vec::new() }
    }

    /// With words next to the carets.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// With what would be right.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// With one more place.
    #[must_use]
    pub fn related(mut self, span: Span, label: impl Into<String>) -> Self {
        self.related.push((span, label.into()));
        self
    }

    /// One line for a log: `path:line:column: message (help)`.
    pub fn line(&self, sources: &SourceMap) -> String {
        let mut line = self.span.map(|span| sources.locate(span) + ": ").unwrap_or_default();
        line.push_str(&self.message);
        if let Some(help) = &self.help {
            let _ = write!(line, " ({help})");
        }
        // A quoted word may hold line breaks, and a log line must not.
        clean(&line.replace('\n', "\\n"))
    }

    /// Several lines for a person: message, `path:line:column`, the line of text with carets, help. No line break at
    /// the end.
    pub fn render(&self, sources: &SourceMap, colour: bool) -> String {
        let level = if self.severity == Severity::Error { Level::ERROR } else { Level::WARNING };
        let mut group = Group::with_title(level.primary_title(clean(&self.message)));
        let primary = self.span.map(|span| (span, self.label.as_str(), AnnotationKind::Primary));
        let related = self.related.iter().map(|(span, label)| (*span, label.as_str(), AnnotationKind::Context));
        let mut places: Vec<_> = primary.into_iter().chain(related).collect();
        while let Some((first, ..)) = places.first().copied() {
            let (here, rest): (Vec<_>, Vec<_>) = places.into_iter().partition(|(span, ..)| span.file == first.file);
            places = rest;
            group = match snippet(sources, &here) {
                Some(snippet) => group.element(snippet),
                None => group.element(origin(sources, first)),
            };
        }
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(clean(help)));
        }
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&[group])
    }
}

/// All findings, errors and warnings in the order given, an empty line between them, and a line that counts them.
pub fn render_all(diagnostics: &[Diagnostic], sources: &SourceMap, colour: bool) -> String {
    let mut out = String::new();
    for diagnostic in diagnostics {
        out.push_str(&diagnostic.render(sources, colour));
        out.push_str("\n\n");
    }
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count();
    let warnings = diagnostics.len() - errors;
    let _ = writeln!(out, "{}, {}", count(errors, "error"), count(warnings, "warning"));
    out
}

/// The candidate closest to `word`, if one is close enough to be a slip of the fingers.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.chars().take(64).flat_map(char::to_lowercase).collect();
    let limit = (word.len() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.chars().collect::<Vec<_>>()), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `a`, `b` or `c`: the words in backquotes.
pub fn one_of(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// The lines between the first and the last of these places, all in one file. `None`: they are too long to show.
fn snippet<'a>(
    sources: &'a SourceMap,
    places: &[(Span, &str, AnnotationKind)],
) -> Option<Snippet<'a, annotate_snippets::Annotation<'a>>> {
    let file = sources.file(places[0].0.file);
    let first = places.iter().map(|(span, ..)| file.line_of(span.start)).min()?;
    let last = places.iter().map(|(span, ..)| file.line_of(span.end)).max()?;
    let window = file.lines(first, last);
    if window.len() > MAX_WINDOW {
        return None;
    }
    let within = |offset: u32| (offset as usize).clamp(window.start, window.end) - window.start;
    let annotations = places.iter().map(|(span, label, kind)| {
        let annotation = kind.span(within(span.start)..within(span.end));
        if label.is_empty() { annotation } else { annotation.label(clean(label)) }
    });
    let snippet = Snippet::source(&file.text()[window.clone()]).line_start(first + 1);
    Some(snippet.path(clean(&file.path().to_string_lossy())).annotations(annotations))
}

/// The bare place.
fn origin<'a>(sources: &SourceMap, span: Span) -> Origin<'a> {
    let (line, column) = sources.position(span);
    let path = clean(&sources.file(span.file).path().to_string_lossy());
    Origin::path(path).line(line).char_column(column)
}

/// Edits (insert, delete, replace, swap neighbours) that turn `a` into `b`.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut cost = (last[j] + usize::from(x != y)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                cost = cost.min(before[j - 1] + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn slips_of_the_fingers() {
        let names = ["forward", "cache", "log", "loop", "bind"];
        for (word, expected) in [
            ("forwrd", Some("forward")),
            ("foward", Some("forward")),
            ("Cache", Some("cache")),
            ("cahce", Some("cache")),
            ("lop", Some("log")),
            ("kubernetes", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, names), expected, "{word}");
        }
    }

    #[test]
    fn a_log_line_is_one_line() {
        let found = Diagnostic::error(None, "unknown directive `a\nb`").help("remove\nit");
        assert_eq!(found.line(&SourceMap::default()), "unknown directive `a\\nb` (remove\\nit)");
    }

    #[test]
    fn shows_place_caret_and_help() {
        let mut sources = SourceMap::default();
        let text = ". {\n    forwrd . 1.1.1.1\n}\n";
        let file = sources.add(Path::new("/etc/Corefile"), text.into());
        let span = Span { file, start: 8, end: 14 };
        let diagnostic = Diagnostic::error(span, "unknown directive `forwrd`").help("did you mean `forward`?");
        let shown = diagnostic.render(&sources, false);
        assert_eq!(
            shown,
            "error: unknown directive `forwrd`\n --> /etc/Corefile:2:5\n  |\n2 |     forwrd . 1.1.1.1\n  |     ^^^^^^\n  \
             |\n  = help: did you mean `forward`?"
        );
        assert_eq!(
            diagnostic.line(&sources),
            "/etc/Corefile:2:5: unknown directive `forwrd` (did you mean `forward`?)"
        );
        assert!(diagnostic.render(&sources, true).contains("\u{1b}["));
    }

    #[test]
    fn endless_lines_and_words_are_not_repeated() {
        let mut sources = SourceMap::default();
        let file = sources.add(Path::new("long"), "x".repeat(100_000));
        let span = Span { file, start: 2, end: 99_000 };
        let diagnostic = Diagnostic::error(span, "y".repeat(100_000)).help("shorten it");
        let shown = diagnostic.render(&sources, false);
        assert!(shown.contains("y...\n--> long:1:3\n") && shown.contains("help: shorten it"), "{}", &shown[490..]);
        assert!(shown.len() < 1000 && diagnostic.line(&sources).len() < 1000);
    }

    #[test]
    fn places_in_two_files_and_at_the_very_end() {
        let mut sources = SourceMap::default();
        let one = sources.add(Path::new("one"), "a b".into());
        let two = sources.add(Path::new("two"), "c\n".into());
        let end = Span { file: one, start: 3, end: 3 };
        let shown = Diagnostic::warning(end, "m")
            .label("here")
            .related(Span { file: two, start: 0, end: 1 }, "there")
            .render(&sources, false);
        assert!(shown.starts_with("warning: m\n --> one:1:4\n"), "{shown}");
        assert!(shown.contains("::: two:1:1"), "{shown}");
        assert_eq!(render_all(&[], &sources, false), "0 errors, 0 warnings\n");
    }
}
