//! The `corefile` room: text becomes a syntax tree.
//!
//! **In**: the text of a Corefile, a function that hands over the files an `import` names, a function that knows the
//! environment. **Out**: [`Parsed`]: the server blocks with the place of every word, what is wrong with the text, the
//! files that took part, and a digest of the words.
//!
//! One example walked through:
//!
//! ```text
//! example.org:{$PORT} {        one ServerBlock; keys = ["example.org:53"], the variable already replaced
//!     cache 30 {               one Directive; name = "cache", args = ["30"]
//!         prefetch 5           its block holds one Directive; name = "prefetch", args = ["5"]
//!     }
//!     import common            the lines of the snippet `(common) { ... }`, or of the file of that name, come here
//! }
//! ```
//!
//! The text passes through [`lexer`] (words with their place and "first on its line"), then [`import`] (a stack of word
//! lists: an import pushes one, so the parser never knows where a word came from), then [`parser`] (braces and lines
//! become blocks and directives). A fault is written down as a [`Diagnostic`] and reading goes on with the next line,
//! so one run tells everything that is wrong. A tree is returned even then; whoever gets it must look at
//! [`Parsed::has_errors`] first.
//!
//! The grammar is that of CoreDNS; what CoreDNS reads, this reads in the same way, with these exceptions, all of them
//! cases where the other reading helps nobody: `word#comment` hides the rest of the line; two imports of one snippet in
//! a row stay two; options may open on the line after their directive and close on the line of the last one; `{}` is
//! an empty option block; an unclosed quote and a brace glued to a word are errors; imports that run in a circle and
//! variables that contain themselves are errors, not endless loops.
//!
//! Never: knows the name of a plugin, opens a file, reads the environment, or stops at the first fault.

mod diagnostic;
mod import;
mod lexer;
mod parser;
mod span;
mod tree;

pub use diagnostic::{Diagnostic, Severity, nearest, one_of, render_all};
pub use import::{Environment, Files, Imported, glob, glob_match, is_pattern};
pub use parser::parse;
pub use span::{FileId, SourceFile, SourceMap, Span};
pub use tree::{Directive, Parsed, ServerBlock, Token};

#[cfg(test)]
mod tests;
