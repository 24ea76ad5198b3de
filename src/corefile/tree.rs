//! The syntax tree: words, directives, server blocks, and a digest of them.

use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest, Sha512};

use super::diagnostic::{Diagnostic, Severity};
use super::span::{SourceMap, Span};

/// A word: its text after quotes and environment references are resolved, and its place as typed.
#[derive(Clone, Debug)]
pub struct Token {
    /// The text.
    pub text: Arc<str>,
    /// Where it stands.
    pub span: Span,
    /// It was written in quotes.
    pub quoted: bool,
}

/// One line of a block: `name args... { block }`.
#[derive(Clone, Debug)]
pub struct Directive {
    /// The first word.
    pub name: Token,
    /// The other words of the line.
    pub args: Vec<Token>,
    /// The lines between braces, if there are braces.
    pub block: Option<Vec<Directive>>,
}

/// `keys... { directives }`. A key list without braces has no directives if another block follows.
#[derive(Clone, Debug)]
pub struct ServerBlock {
    /// The words before the brace, without their commas.
    pub keys: Vec<Token>,
    /// The lines of the block.
    pub directives: Vec<Directive>,
}

/// What [`crate::corefile::parse`] found. Usable only if [`Parsed::has_errors`] is false.
#[derive(Debug, Default)]
pub struct Parsed {
    /// The server blocks in order.
    pub blocks: Vec<ServerBlock>,
    /// All texts.
    pub sources: SourceMap,
    /// What is wrong, in the order met.
    pub diagnostics: Vec<Diagnostic>,
    /// Every path and pattern an import named, found or not: what to watch besides the root file.
    pub watched: Vec<PathBuf>,
}

impl Parsed {
    /// Whether any finding is an error.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// SHA-512 of all words in their structure, in lower-case hexadecimal. Comments, layout, file names and line
    /// numbers do not count; values of environment variables and imported text do.
    pub fn digest(&self) -> String {
        let mut hash = Sha512::new();
        for block in &self.blocks {
            hash.update([b'B']);
            block.keys.iter().for_each(|key| feed(&mut hash, key));
            feed_block(&mut hash, &block.directives);
        }
        let mut hex = String::with_capacity(128);
        for byte in hash.finalize() {
            let _ = write!(hex, "{byte:02x}");
        }
        hex
    }
}

fn feed(hash: &mut Sha512, token: &Token) {
    hash.update([b'W']);
    hash.update((token.text.len() as u64).to_be_bytes());
    hash.update(token.text.as_bytes());
}

fn feed_block(hash: &mut Sha512, directives: &[Directive]) {
    hash.update([b'{']);
    for directive in directives {
        hash.update([b'L']);
        feed(hash, &directive.name);
        directive.args.iter().for_each(|word| feed(hash, word));
        if let Some(block) = &directive.block {
            feed_block(hash, block);
        }
    }
    hash.update([b'}']);
}

impl Directive {
    /// From the name to the last argument.
    pub fn span(&self) -> Span {
        self.args.last().map_or(self.name.span, |last| self.name.span.to(last.span))
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
