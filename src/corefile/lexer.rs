//! Text into words. Words are separated by white space; `"` at the start of a word quotes it; `#` hides the rest of a
//! line; a lone carriage return outside quotes vanishes without separating anything.

use std::sync::Arc;

use super::diagnostic::Diagnostic;
use super::span::{FileId, Span};
use super::tree::Token;

/// A word and whether it begins a line. A word "begins a line" when the word before it ended on an earlier one.
#[derive(Clone, Debug)]
pub(super) struct Lexeme {
    pub(super) token: Token,
    pub(super) first: bool,
}

/// All words of `text`; an unclosed quote is reported and ends at the end of the text.
pub(super) fn lex(file: FileId, text: &str, diagnostics: &mut Vec<Diagnostic>) -> Vec<Lexeme> {
    let mut lexer = Lexer { file, text, at: if text.starts_with('\u{feff}') { 3 } else { 0 }, fresh: true };
    let mut lexemes = Vec::new();
    while let Some(lexeme) = lexer.word(diagnostics) {
        lexemes.push(lexeme);
    }
    lexemes
}

struct Lexer<'a> {
    file: FileId,
    text: &'a str,
    /// Byte offset of the next character.
    at: usize,
    /// No word has ended on the current line yet.
    fresh: bool,
}

impl Lexer<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn word(&mut self, diagnostics: &mut Vec<Diagnostic>) -> Option<Lexeme> {
        self.skip();
        let start = self.at;
        let first = self.fresh;
        let quoted = self.peek()? == '"';
        let text = if quoted { self.quoted(diagnostics) } else { self.plain() };
        self.fresh = false;
        let span = Span { file: self.file, start: start as u32, end: self.at as u32 };
        Some(Lexeme { token: Token { text: Arc::from(text), span, quoted }, first })
    }

    /// Passes over white space and comments.
    fn skip(&mut self) {
        while let Some(next) = self.peek() {
            if next == '#' {
                let rest = &self.text[self.at..];
                self.at += rest.find('\n').unwrap_or(rest.len());
            } else if next.is_whitespace() {
                self.fresh |= next == '\n';
                self.at += next.len_utf8();
            } else {
                return;
            }
        }
    }

    fn plain(&mut self) -> String {
        let mut word = String::new();
        while let Some(next) = self.peek() {
            if next == '#' || (next.is_whitespace() && next != '\r') {
                break;
            }
            if next != '\r' {
                word.push(next);
            }
            self.at += next.len_utf8();
        }
        word
    }

    fn quoted(&mut self, diagnostics: &mut Vec<Diagnostic>) -> String {
        let start = self.at;
        let mut word = String::new();
        self.at += 1;
        while let Some(next) = self.peek() {
            self.at += next.len_utf8();
            match next {
                '"' => return word,
                '\\' => {
                    let escaped = self.peek();
                    if escaped != Some('"') {
                        word.push('\\');
                    }
                    if let Some(escaped) = escaped {
                        word.push(escaped);
                        self.at += escaped.len_utf8();
                    }
                }
                _ => word.push(next),
            }
        }
        let span = Span { file: self.file, start: start as u32, end: start as u32 + 1 };
        diagnostics.push(
            Diagnostic::error(span, "this quote is never closed")
                .label("everything from here to the end of the file is one word")
                .help("close the word with \" ; inside it, write \\\" for a quote"),
        );
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::span::SourceMap;
    use std::path::Path;

    /// Words of a text, joined by spaces, lines separated by `|`; quoted words in single quotes.
    fn words(text: &str) -> String {
        let mut map = SourceMap::default();
        let file = map.add(Path::new("x"), text.into());
        let mut out = String::new();
        for Lexeme { token, first } in lex(file, text, &mut Vec::new()) {
            if !out.is_empty() {
                out.push(if first { '|' } else { ' ' });
            }
            out.push_str(&if token.quoted { format!("'{}'", token.text) } else { token.text.to_string() });
        }
        out
    }

    #[test]
    fn words_and_lines() {
        for (text, expected) in [
            ("a b\nc", "a b|c"),
            ("\u{feff}a b", "a b"),
            ("a\u{a0}b\u{2003}c", "a b c"),
            ("a\rb\r\nc", "ab|c"),
            ("\"a b\" c", "'a b' c"),
            ("\"a\"b\"c", "'a' b\"c"),
            ("\"\" x", "'' x"),
            (r#""a\"b\n\\" x"#, r#"'a"b\n\\' x"#),
            ("\"a # { \n\" b\nc", "'a # { \n' b|c"),
            ("debug#x extra\nnext", "debug|next"),
            ("debug #x extra\nnext", "debug|next"),
            ("# only\n#\n", ""),
            ("a{ {} {", "a{ {} {"),
        ] {
            assert_eq!(words(text), expected, "{text:?}");
        }
    }

    #[test]
    fn spans_cover_the_words_as_typed() {
        let text = "aa \"b c\" d";
        let mut map = SourceMap::default();
        let file = map.add(Path::new("x"), text.into());
        let spans: Vec<_> = lex(file, text, &mut Vec::new())
            .iter()
            .map(|lexeme| &text[lexeme.token.span.start as usize..lexeme.token.span.end as usize])
            .collect();
        assert_eq!(spans, ["aa", "\"b c\"", "d"]);
    }

    #[test]
    fn an_unclosed_quote_is_an_error() {
        let mut diagnostics = Vec::new();
        let mut map = SourceMap::default();
        let file = map.add(Path::new("x"), String::new());
        assert_eq!(&*lex(file, "a \"b\nc\\", &mut diagnostics)[1].token.text, "b\nc\\");
        assert_eq!(diagnostics[0].message, "this quote is never closed");
    }
}
