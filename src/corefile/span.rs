//! Places in the text: a span names a file and a byte range in it; the source map turns spans into lines and columns.

use std::path::{Path, PathBuf};

/// One of the files of a [`SourceMap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(u32);

/// A byte range `start..end` in one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// The file.
    pub file: FileId,
    /// The first byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The range from the start of `self` to the end of `other`; `self` alone if they are in different files.
    pub fn to(self, other: Self) -> Self {
        if self.file == other.file { Self { end: other.end.max(self.end), ..self } } else { self }
    }
}

/// Every text that took part in one parse, in the order in which they were met.
#[derive(Clone, Debug, Default)]
pub struct SourceMap {
    files: Vec<SourceFile>,
}

/// One text and where its lines start.
#[derive(Clone, Debug)]
pub struct SourceFile {
    path: PathBuf,
    text: String,
    line_starts: Vec<u32>,
}

impl SourceMap {
    /// Texts longer than this are refused by [`crate::corefile::parse`]; offsets fit in 32 bits.
    pub const MAX_TEXT: usize = 16 << 20;

    /// Takes in a text; `text` is cut at [`Self::MAX_TEXT`] (callers report that before).
    pub fn add(&mut self, path: &Path, mut text: String) -> FileId {
        if text.len() > Self::MAX_TEXT {
            let end = (0..=Self::MAX_TEXT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(end);
        }
        let mut line_starts = vec![0];
        line_starts.extend(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at as u32 + 1));
        self.files.push(SourceFile { path: path.to_path_buf(), text, line_starts });
        FileId(self.files.len() as u32 - 1)
    }

    /// The file with this id. Ids come from [`Self::add`] of the same map.
    pub fn file(&self, id: FileId) -> &SourceFile {
        &self.files[id.0 as usize]
    }

    /// All files, first the root file.
    pub fn files(&self) -> &[SourceFile] {
        &self.files
    }

    /// Line and column (both from 1, columns in characters) of the start of a span.
    pub fn position(&self, span: Span) -> (usize, usize) {
        let file = self.file(span.file);
        let line = file.line_of(span.start);
        let start = file.line_starts[line] as usize;
        (line + 1, file.text[start..span.start as usize].chars().count() + 1)
    }

    /// `path:line:column` of the start of a span.
    pub fn locate(&self, span: Span) -> String {
        let (line, column) = self.position(span);
        format!("{}:{line}:{column}", self.file(span.file).path.display())
    }
}

impl SourceFile {
    /// The path as given or resolved.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The line (from 0) that holds a byte offset.
    pub(super) fn line_of(&self, offset: u32) -> usize {
        self.line_starts.partition_point(|start| *start <= offset) - 1
    }

    /// The byte range of the lines `first..=last` (from 0), without the last line break.
    pub(super) fn lines(&self, first: usize, last: usize) -> std::ops::Range<usize> {
        let start = self.line_starts[first] as usize;
        let end = self.line_starts.get(last + 1).map_or(self.text.len(), |next| *next as usize - 1);
        start..end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters() {
        let mut map = SourceMap::default();
        let file = map.add(Path::new("Corefile"), "a\n\u{e9}\u{e9} b\n".into());
        let span = Span { file, start: 7, end: 8 };
        assert_eq!(map.position(span), (2, 4));
        assert_eq!(map.locate(span), "Corefile:2:4");
        assert_eq!(&map.file(file).text()[map.file(file).lines(1, 1)], "\u{e9}\u{e9} b");
    }
}
