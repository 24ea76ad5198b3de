//! Words into server blocks and directives. Lines and braces are all the structure there is.

use std::path::Path;
use std::sync::Arc;

use super::diagnostic::Diagnostic;
use super::import::{Environment, Files, Stream};
use super::lexer::Lexeme;
use super::span::Span;
use super::tree::{Directive, Parsed, ServerBlock, Token};

const MAX_DEPTH: usize = 32;
const MAX_DIAGNOSTICS: usize = 100;

/// Reads the text of the file `root`. Nothing is opened: `files` hands over what imports name, `env` knows variables.
pub fn parse(root: &Path, text: &str, files: &mut Files<'_>, env: &Environment<'_>) -> Parsed {
    let mut parser = Parser { stream: Stream::new(root, text, files, env), blocks: Vec::new(), unclosed: false };
    parser.file();
    let Parser { stream, blocks, .. } = parser;
    let mut diagnostics = stream.diagnostics;
    if diagnostics.len() > MAX_DIAGNOSTICS {
        let more = diagnostics.len() - MAX_DIAGNOSTICS;
        diagnostics.truncate(MAX_DIAGNOSTICS);
        diagnostics.push(Diagnostic::error(None, format!("{more} more findings are not shown")));
    }
    Parsed { blocks, sources: stream.sources, diagnostics, watched: stream.watched }
}

struct Parser<'a> {
    stream: Stream<'a>,
    blocks: Vec<ServerBlock>,
    /// A missing `}` was reported; the blocks around it are unclosed for the same reason.
    unclosed: bool,
}

/// How a line ended.
enum End {
    Line,
    /// With a brace that opens a block.
    Open(Span),
}

impl Parser<'_> {
    fn report(&mut self, diagnostic: Diagnostic) {
        self.stream.diagnostics.push(diagnostic);
    }

    /// Follows imports that stand where a line starts, until another word does.
    fn follow_imports(&mut self) {
        while self.stream.peek().is_some_and(|word| word.first && &*word.token.text == "import") {
            if let Some(word) = self.stream.next() {
                self.stream.import(&word.token);
            }
        }
    }

    fn file(&mut self) {
        loop {
            self.follow_imports();
            let Some(word) = self.stream.peek().cloned() else { return };
            match &*word.token.text {
                "}" => {
                    self.stream.next();
                    self.report(
                        Diagnostic::error(word.token.span, "this `}` closes nothing")
                            .help("remove it, or look above for a `{` that is missing or glued to a word"),
                    );
                }
                "{" => {
                    self.report(
                        Diagnostic::error(word.token.span, "this block has no zone")
                            .help("name the zones it serves before the brace, as in `example.org {` or `. {`"),
                    );
                    self.stream.next();
                    self.directives(Some(word.token.span), 0);
                }
                _ => self.block(),
            }
        }
    }

    fn block(&mut self) {
        let mut keys = Vec::new();
        let place = self.stream.peek().map(|word| word.token.span);
        let end = self.keys(&mut keys);
        if let [only] = keys.as_slice()
            && let Some(name) = only.text.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'))
        {
            let (name, span) = (name.to_owned(), only.span);
            return self.snippet(&name, span, end);
        }
        let directives = match end {
            Some(End::Open(span)) => self.directives(Some(span), 0),
            Some(End::Line) => self.directives(None, 0),
            None => Vec::new(),
        };
        if keys.is_empty() {
            return self.report(
                Diagnostic::warning(place, "this block has no zone and is left out")
                    .help("name the zones it serves before the brace; is a variable not set?"),
            );
        }
        self.blocks.push(ServerBlock { keys, directives });
    }

    /// Reads keys up to the opening brace (consumed), or to the end of the line if there is none. `None`: end of text.
    fn keys(&mut self, keys: &mut Vec<Token>) -> Option<End> {
        let mut comma = None;
        let mut started = false;
        loop {
            if comma.is_some() {
                self.follow_imports();
            }
            let Some(word) = self.stream.peek().cloned() else {
                if let Some(span) = comma {
                    self.report(
                        Diagnostic::error(span, "the file ends after a comma").help("add another zone, or remove it"),
                    );
                }
                return None;
            };
            if &*word.token.text == "{" {
                if let Some(span) = comma {
                    self.report(
                        Diagnostic::error(span, "after a comma another zone must follow").help("remove the comma"),
                    );
                }
                self.stream.next();
                return Some(End::Open(word.token.span));
            }
            if started && word.first && comma.is_none() {
                return Some(End::Line);
            }
            started = true;
            self.stream.next();
            let (mut token, glued) = self.word(&word.token);
            comma = token.text.ends_with(',').then_some(token.span);
            if comma.is_some() {
                token.text = Arc::from(&token.text[..token.text.len() - 1]);
            }
            if !token.text.is_empty() {
                keys.push(token);
            }
            if glued {
                return Some(End::Open(word.token.span));
            }
        }
    }

    /// The word with its environment references replaced. `word{` is reported, and told apart so that the caller can
    /// go on as if there were a space.
    fn word(&mut self, typed: &Token) -> (Token, bool) {
        let mut token = self.stream.expand(typed);
        let glued = !typed.quoted && typed.text.len() > 1 && typed.text.ends_with('{');
        if glued {
            let word = typed.text.trim_end_matches('{');
            self.report(
                Diagnostic::error(typed.span, "the brace is part of this word")
                    .help(format!("put a space before it: `{word} {{`")),
            );
            token.text = Arc::from(token.text.trim_end_matches('{'));
        }
        (token, glued)
    }

    fn snippet(&mut self, name: &str, span: Span, end: Option<End>) {
        let Some(End::Open(open)) = end else {
            return self.report(
                Diagnostic::error(span, format!("the snippet `{name}` has no braces"))
                    .help(format!("write `({name}) {{`, its lines, and `}}`")),
            );
        };
        let mut words: Vec<Lexeme> = Vec::new();
        let mut depth = 0;
        while let Some(word) = self.stream.next() {
            match &*word.token.text {
                "{" => depth += 1,
                "}" if depth == 0 => {
                    if let Some(first) = words.first_mut() {
                        first.first = true;
                    }
                    return self.stream.define(name, span, words);
                }
                "}" => depth -= 1,
                _ => {}
            }
            words.push(word);
        }
        self.not_closed(open);
    }

    fn not_closed(&mut self, open: Span) {
        if !std::mem::replace(&mut self.unclosed, true) {
            self.report(
                Diagnostic::error(open, "this `{` is never closed")
                    .help("add a line with `}` where the block is meant to end"),
            );
        }
    }

    /// Reads lines up to the closing brace; without an opening one, to the end of the text.
    fn directives(&mut self, open: Option<Span>, depth: usize) -> Vec<Directive> {
        let mut directives: Vec<Directive> = Vec::new();
        loop {
            self.follow_imports();
            let Some(word) = self.stream.peek().cloned() else {
                if let Some(open) = open {
                    self.not_closed(open);
                }
                return directives;
            };
            match &*word.token.text {
                "}" => {
                    if open.is_some() {
                        self.stream.next();
                    }
                    // Without an opening brace the caller reports it as closing nothing.
                    return directives;
                }
                "{" => {
                    self.stream.next();
                    let block = self.options(word.token.span, depth);
                    match directives.last_mut() {
                        Some(directive) if directive.block.is_none() => directive.block = Some(block),
                        _ => self.report(
                            Diagnostic::error(word.token.span, "this `{` belongs to no directive")
                                .help("write it at the end of a directive's line"),
                        ),
                    }
                }
                _ => {
                    if let Some(directive) = self.directive(depth) {
                        directives.push(directive);
                    }
                }
            }
        }
    }

    fn directive(&mut self, depth: usize) -> Option<Directive> {
        let mut words: Vec<Token> = Vec::new();
        let mut block = None;
        while let Some(word) = self.stream.peek().cloned() {
            if !words.is_empty() && word.first {
                break;
            }
            match &*word.token.text {
                "{" => {
                    self.stream.next();
                    block = Some(self.options(word.token.span, depth));
                    break;
                }
                "}" => {
                    self.report(
                        Diagnostic::warning(word.token.span, "this `}` ends a line")
                            .label("read as the end of the block; CoreDNS refuses it here")
                            .help("write it on a line of its own"),
                    );
                    break;
                }
                "{}" if !words.is_empty() && !word.token.quoted => {
                    self.stream.next();
                    self.report(
                        Diagnostic::warning(word.token.span, "`{}` is read as an empty block")
                            .label("CoreDNS takes it for an argument")
                            .help("leave it out"),
                    );
                    block = Some(Vec::new());
                    break;
                }
                _ => {
                    self.stream.next();
                    let (token, glued) = self.word(&word.token);
                    words.push(token);
                    if glued {
                        block = Some(self.options(word.token.span, depth));
                        break;
                    }
                }
            }
        }
        if block.is_some() {
            self.after_block();
        }
        let mut words = words.into_iter();
        let name = words.next()?;
        Some(Directive { name, args: words.collect(), block })
    }

    /// After the brace that closes options, the line must end.
    fn after_block(&mut self) {
        let Some(word) = self.stream.peek().cloned() else { return };
        if word.first || &*word.token.text == "}" {
            return;
        }
        while self.stream.next_on_line().is_some() {}
        self.report(
            Diagnostic::error(word.token.span, "nothing may follow `}` on its line").help("start a new line here"),
        );
    }

    fn options(&mut self, open: Span, depth: usize) -> Vec<Directive> {
        if depth < MAX_DEPTH {
            return self.directives(Some(open), depth + 1);
        }
        self.report(Diagnostic::error(open, format!("blocks are nested more than {MAX_DEPTH} deep")));
        let mut depth = 1;
        while let Some(word) = self.stream.next() {
            match &*word.token.text {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Vec::new();
            }
        }
        self.not_closed(open);
        Vec::new()
    }
}
