//! The stream of words the parser reads: a stack of word lists. `import` pushes a list, its end pops it, so text that
//! comes from a snippet or another file is read as if it stood where the import stands. Environment references are
//! replaced here too.

use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::diagnostic::Diagnostic;
use super::lexer::{Lexeme, lex};
use super::span::{SourceMap, Span};
use super::tree::Token;

/// A file that an import named.
#[derive(Clone, Debug)]
pub struct Imported {
    /// Its path, as diagnostics show it and relative imports inside it start from.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// Hands over the files for a path: one file, or, when [`is_pattern`] holds, those that match, in lexical order
/// (none is allowed). The error is what stands after "cannot import PATH: ".
pub type Files<'a> = dyn FnMut(&Path) -> Result<Vec<Imported>, String> + 'a;

/// The value of an environment variable.
pub type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

const MAX_SNIPPETS: usize = 10_000;
const MAX_FILES: usize = 100_000;
/// Bytes of words (each counted with a fixed overhead) one parse may read, repetitions included.
const MAX_VOLUME: usize = 64 << 20;
const MAX_VALUE: usize = 64 << 10;
const MAX_REPLACEMENTS: usize = 100;

/// Whether a path of an import names any number of files.
pub fn is_pattern(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?'])
}

/// Whether a path matches a pattern in which `*` stands for any characters but `/`, and `?` for one.
pub fn glob_match(pattern: &Path, path: &Path) -> bool {
    let (mut pattern, mut path) = (pattern.components(), path.components());
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return true,
            (Some(a), Some(b)) if component_match(a, b) => {}
            _ => return false,
        }
    }
}

/// The paths that a pattern may mean, in lexical order. `names` lists the names in a directory (none if it cannot be
/// read); parts of the pattern without wildcards are not checked for existence.
pub fn glob(pattern: &Path, names: &mut dyn FnMut(&Path) -> Vec<String>) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for part in pattern.components() {
        if is_pattern(part.as_ref()) {
            let mut next = Vec::new();
            for directory in &found {
                let mut matching = names(directory);
                matching.retain(|name| wildcard(&part.as_os_str().to_string_lossy(), name));
                next.extend(matching.into_iter().map(|name| directory.join(name)));
            }
            found = next;
        } else {
            found.iter_mut().for_each(|path| path.push(part));
        }
    }
    found.sort();
    found
}

/// The path without `.` and with `dir/..` taken out, so that one file has one name.
fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(out.components().next_back(), Some(Component::Normal(_))) => {
                out.pop();
            }
            _ => out.push(part),
        }
    }
    out
}

fn component_match(pattern: Component<'_>, name: Component<'_>) -> bool {
    wildcard(&pattern.as_os_str().to_string_lossy(), &name.as_os_str().to_string_lossy())
}

/// Wildcard match of one path component; at most one `*` matters here, more are handled all the same.
fn wildcard(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, n));
            p += 1;
        } else if pattern.get(p).is_some_and(|c| *c == '?' || *c == name[n]) {
            (p, n) = (p + 1, n + 1);
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            (p, n) = (at + 1, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[derive(Clone, PartialEq)]
enum Origin {
    File(PathBuf),
    Snippet(String),
}

struct Frame {
    words: Rc<[Lexeme]>,
    next: usize,
    origin: Origin,
}

struct Snippet {
    words: Rc<[Lexeme]>,
    defined: Span,
}

type Loaded = Rc<[(PathBuf, Rc<[Lexeme]>)]>;

/// See the head of this file.
pub(super) struct Stream<'a> {
    frames: Vec<Frame>,
    pub(super) sources: SourceMap,
    pub(super) watched: Vec<PathBuf>,
    pub(super) diagnostics: Vec<Diagnostic>,
    files: &'a mut Files<'a>,
    env: &'a Environment<'a>,
    snippets: HashMap<String, Snippet>,
    loaded: HashMap<PathBuf, Loaded>,
    unset: HashSet<String>,
    snippet_count: usize,
    file_count: usize,
    volume: usize,
}

impl<'a> Stream<'a> {
    pub(super) fn new(root: &Path, text: &str, files: &'a mut Files<'a>, env: &'a Environment<'a>) -> Self {
        let mut stream = Self {
            frames: Vec::new(),
            sources: SourceMap::default(),
            watched: Vec::new(),
            diagnostics: Vec::new(),
            files,
            env,
            snippets: HashMap::new(),
            loaded: HashMap::new(),
            unset: HashSet::new(),
            snippet_count: 0,
            file_count: 0,
            volume: 0,
        };
        let words = stream.take_in(root, text.to_owned());
        stream.frames.push(Frame { words, next: 0, origin: Origin::File(root.to_path_buf()) });
        stream
    }

    /// The next word, not consumed.
    pub(super) fn peek(&mut self) -> Option<&Lexeme> {
        while self.frames.last().is_some_and(|frame| frame.next == frame.words.len()) {
            self.frames.pop();
        }
        let frame = self.frames.last()?;
        frame.words.get(frame.next)
    }

    /// The next word.
    pub(super) fn next(&mut self) -> Option<Lexeme> {
        let word = self.peek()?.clone();
        if let Some(frame) = self.frames.last_mut() {
            frame.next += 1;
        }
        self.volume += word.token.text.len() + 64;
        if self.volume > MAX_VOLUME {
            self.stop(word.token.span, "the imports of this file expand to too much text".into());
        }
        Some(word)
    }

    /// Consumes the next word if it is on the line of the word before it.
    pub(super) fn next_on_line(&mut self) -> Option<Lexeme> {
        if self.peek().is_some_and(|word| !word.first) { self.next() } else { None }
    }

    /// Replaces `import NAME`, whose first word was just read, by what it names.
    pub(super) fn import(&mut self, word: &Token) {
        // Looked up without `peek`: the list this import stands in must stay on the stack while its imports are read.
        let mut arguments = Vec::new();
        while let Some(frame) = self.frames.last_mut() {
            match frame.words.get(frame.next) {
                Some(next) if !next.first => arguments.push(next.token.clone()),
                _ => break,
            }
            frame.next += 1;
        }
        let [name] = arguments.as_slice() else {
            let span = arguments.last().map_or(word.span, |last| word.span.to(last.span));
            return self.diagnostics.push(
                Diagnostic::error(span, format!("`import` takes one name, not {}", arguments.len()))
                    .help("name a snippet, a file, or a pattern with one `*`; write one import per name"),
            );
        };
        let name = self.expand(name);
        if name.text.is_empty() {
            return self.diagnostics.push(
                Diagnostic::error(name.span, "`import` needs a name")
                    .help("name a snippet, a file, or a pattern with one `*`"),
            );
        }
        if let Some(snippet) = self.snippets.get(&*name.text) {
            let words = snippet.words.clone();
            self.snippet_count += 1;
            if self.snippet_count > MAX_SNIPPETS {
                return self.stop(name.span, format!("more than {MAX_SNIPPETS} snippets are imported"));
            }
            self.push(&name, Origin::Snippet(name.text.to_string()), words);
        } else {
            self.import_files(word, &name);
        }
    }

    fn import_files(&mut self, word: &Token, name: &Token) {
        let here = self.sources.file(word.span.file).path().parent().unwrap_or(Path::new(""));
        let path = clean(&here.join(&*name.text));
        let shown = path.to_string_lossy();
        if shown.matches('*').count() > 1 || shown.matches('?').count() > 1 || shown.contains('[') {
            return self.diagnostics.push(
                Diagnostic::error(name.span, "this pattern has too many wildcards")
                    .help("a pattern may have one `*` and one `?`, and no `[...]`"),
            );
        }
        let files = match self.loaded.get(&path) {
            Some(files) => files.clone(),
            None => match self.load(&path, name) {
                Some(files) => files,
                None => return,
            },
        };
        if files.is_empty() {
            self.diagnostics.push(Diagnostic::warning(name.span, "no file matches this pattern"));
        }
        self.file_count += files.len();
        if self.file_count > MAX_FILES {
            return self.stop(name.span, format!("more than {MAX_FILES} files are imported"));
        }
        for (path, words) in files.iter().rev() {
            self.push(name, Origin::File(path.clone()), words.clone());
        }
    }

    fn load(&mut self, path: &Path, name: &Token) -> Option<Loaded> {
        self.watched.push(path.to_path_buf());
        match (self.files)(path) {
            Ok(imported) => {
                let files: Loaded = imported
                    .into_iter()
                    .map(|Imported { path, text }| {
                        let words = self.take_in(&path, text);
                        (path, words)
                    })
                    .collect();
                self.loaded.insert(path.to_path_buf(), files.clone());
                Some(files)
            }
            Err(reason) => {
                let mut diagnostic =
                    Diagnostic::error(name.span, format!("cannot import {}: {reason}", path.display()))
                        .label("neither a snippet defined above nor a readable file");
                let snippets = self.snippets.keys().map(String::as_str);
                if let Some(snippet) = super::nearest(&name.text, snippets) {
                    diagnostic = diagnostic.help(format!("did you mean the snippet `{snippet}`?"));
                }
                self.diagnostics.push(diagnostic);
                None
            }
        }
    }

    fn take_in(&mut self, path: &Path, text: String) -> Rc<[Lexeme]> {
        let too_long = text.len() > SourceMap::MAX_TEXT;
        let file = self.sources.add(path, text);
        if too_long {
            let message = format!("{} is longer than {} MiB", path.display(), SourceMap::MAX_TEXT >> 20);
            self.diagnostics.push(Diagnostic::error(None, message));
        }
        lex(file, self.sources.file(file).text(), &mut self.diagnostics).into()
    }

    fn push(&mut self, name: &Token, origin: Origin, words: Rc<[Lexeme]>) {
        // A list that is on the stack but untouched is a later match of the pattern that is being read, not a parent.
        if self.frames.iter().any(|frame| frame.next > 0 && frame.origin == origin) {
            let what = if matches!(origin, Origin::File(_)) { "file" } else { "snippet" };
            return self.diagnostics.push(
                Diagnostic::error(name.span, format!("this {what} imports itself"))
                    .help("remove this import, or the one that leads back here"),
            );
        }
        self.frames.push(Frame { words, next: 0, origin });
    }

    /// Defines a snippet.
    pub(super) fn define(&mut self, name: &str, defined: Span, words: Vec<Lexeme>) {
        if let Some(earlier) = self.snippets.get(name) {
            self.diagnostics.push(
                Diagnostic::error(defined, format!("the snippet `{name}` is already defined"))
                    .related(earlier.defined, "first defined here")
                    .help("give one of them another name"),
            );
            return;
        }
        self.snippets.insert(name.to_owned(), Snippet { words: words.into(), defined });
    }

    fn stop(&mut self, span: Span, message: String) {
        self.frames.clear();
        self.diagnostics.push(Diagnostic::error(span, message).label("reading stops here"));
    }

    /// The word with its environment references replaced: all `{%NAME%}`, then all `{$NAME}`.
    pub(super) fn expand(&mut self, token: &Token) -> Token {
        if !token.text.contains("{%") && !token.text.contains("{$") {
            return token.clone();
        }
        let mut text = token.text.to_string();
        for (open, close) in [("{%", "%}"), ("{$", "}")] {
            let mut count = 0;
            while let Some((from, to, name)) = reference(&text, open, close) {
                count += 1;
                let value = (self.env)(&name);
                if value.is_none() && self.unset.insert(name.clone()) {
                    let message = format!("the environment variable {name} is not set");
                    self.diagnostics.push(Diagnostic::warning(token.span, message).label("taken as empty"));
                }
                text.replace_range(from..to, &value.unwrap_or_default());
                if count > MAX_REPLACEMENTS || text.len() > MAX_VALUE {
                    let message = format!("replacing the environment variable {name} does not come to an end");
                    self.diagnostics
                        .push(Diagnostic::error(token.span, message).help("its value must not refer to itself"));
                    return Token { text: Arc::from(""), ..*token };
                }
            }
        }
        Token { text: Arc::from(text), ..*token }
    }
}

/// The first reference in a text: its range and the name in it. An empty name ends the search.
fn reference(text: &str, open: &str, close: &str) -> Option<(usize, usize, String)> {
    let from = text.find(open)?;
    let inside = from + open.len();
    let length = text[inside..].find(close)?;
    let name = &text[inside..inside + length];
    (!name.is_empty()).then(|| (from, inside + length + close.len(), name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, path, expected) in [
            ("/etc/*.conf", "/etc/a.conf", true),
            ("/etc/*.conf", "/etc/x/a.conf", false),
            ("/etc/*/a?", "/etc/x/a1", true),
            ("/etc/*/a?", "/etc/x/a12", false),
            ("*", "anything", true),
            ("a*c", "abcbc", true),
        ] {
            assert_eq!(glob_match(Path::new(pattern), Path::new(path)), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn listing() {
        let mut names = |directory: &Path| match directory.to_str() {
            Some("/c") => vec!["b".to_owned(), "a".to_owned(), "z".to_owned()],
            Some("/c/a") => vec!["2.x".to_owned(), "1.x".to_owned(), "1.y".to_owned()],
            _ => Vec::new(),
        };
        assert_eq!(glob(Path::new("/c/a/*.x"), &mut names), [Path::new("/c/a/1.x"), Path::new("/c/a/2.x")]);
        assert_eq!(glob(Path::new("/c/?/f"), &mut names).len(), 3);
    }
}
