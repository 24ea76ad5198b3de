//! The files of `autopath`: their search lists are read with the configuration, and again while it is in force.
//!
//! `autopath @query` wants what kubelet gives to pods from the node's file: the last `search` line. A file that the line
//! names is read as a C library would: there a `domain` line is a list of one.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::dns::Name;
use crate::plugins::policy::autopath::{List, MAX_CHARACTERS, MAX_SUFFIXES, NODES};
use crate::resolve::Resolver;
use crate::routes::Routes;

/// What the search lists of a configuration are.
#[derive(Debug, Clone, Default)]
pub(super) struct SearchFiles(BTreeMap<PathBuf, Held>);

#[derive(Debug, Clone)]
struct Held {
    reader: Reader,
    list: Arc<[Name]>,
    /// What was wrong when the file was last read; the list may be older then.
    fault: Option<String>,
}

/// Whose list a file has.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reader {
    /// A client that reads this file.
    Client,
    /// Pods of clusters with these zones, whose names are not among the node's.
    Pods(Vec<Name>),
}

/// What one file says.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    list: Vec<Name>,
    /// What was left out, and why.
    left_out: Option<String>,
}

impl SearchFiles {
    /// Reads every file the routes name. The error, of the first that was named and cannot be used, is a sentence for the
    /// operator.
    pub(super) fn read(routes: &Routes) -> Result<SearchFiles, String> {
        let (files, faults) = SearchFiles::read_all(routes);
        faults.into_iter().next().map_or(Ok(files), |(_, fault)| Err(fault))
    }

    /// The same, but what cannot be used is told beside it, and has no list: no walk begins there.
    pub(super) fn read_all(routes: &Routes) -> (SearchFiles, Vec<(PathBuf, String)>) {
        let (mut files, mut unusable) = (BTreeMap::new(), Vec::new());
        for (path, reader) in readers(routes) {
            let (list, fault) = match read(&path, &reader) {
                Ok(Found { list, left_out }) => (list, left_out),
                Err(fault) => (Vec::new(), Some(fault)),
            };
            match &fault {
                Some(fault) if reader == Reader::Client && list.is_empty() => {
                    unusable.push((path.clone(), fault.clone()));
                }
                Some(fault) => tracing::warn!(plugin = "autopath", "{fault}"),
                None => {}
            }
            files.insert(path, Held { reader, list: list.into(), fault });
        }
        (SearchFiles(files), unusable)
    }

    /// Reads the same files again and says what is new: the file whose list changed with its list, or what is wrong with
    /// one. What was said is not said again.
    pub(super) fn read_again(&mut self) -> Vec<Result<String, String>> {
        self.0.iter_mut().flat_map(|(path, held)| held.read_again(path)).collect()
    }

    /// Gives the lists to those who use them.
    pub(super) fn hand_to(&self, resolver: &Resolver) {
        self.0.iter().for_each(|(path, held)| resolver.search(path, &held.list));
    }

    /// The files that are read again.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }
}

impl Held {
    fn read_again(&mut self, path: &Path) -> Vec<Result<String, String>> {
        let mut news = Vec::new();
        let (fault, remark) = match read(path, &self.reader) {
            Ok(Found { list, left_out }) => {
                if *list != *self.list {
                    let names: Vec<_> = list.iter().map(ToString::to_string).collect();
                    let names = if names.is_empty() { "no suffixes".to_owned() } else { names.join(" ") };
                    news.push(Ok(format!("{}: {names}", path.display())));
                    self.list = list.into();
                }
                (left_out, "")
            }
            Err(fault) => (Some(fault), "; the list stays as it was"),
        };
        if let Some(fault) = fault.as_ref().filter(|fault| self.fault.as_ref() != Some(fault)) {
            news.push(Err(format!("{fault}{remark}")));
        }
        self.fault = fault;
        news
    }
}

/// Each file once. One that is named and is the node's as well is read with the fewer names.
fn readers(routes: &Routes) -> BTreeMap<PathBuf, Reader> {
    let mut readers = BTreeMap::new();
    for route in &routes.routes {
        let Some(autopath) = &route.autopath else { continue };
        let Some(path) = autopath.file() else { continue };
        let reader = readers.entry(path.to_owned()).or_insert(Reader::Client);
        if let List::Query(_) = autopath.list {
            let zones = autopath.zones.as_ref().unwrap_or(&route.zones);
            let mut known = match reader {
                Reader::Client => Vec::new(),
                Reader::Pods(known) => std::mem::take(known),
            };
            known.extend(zones.iter().cloned());
            *reader = Reader::Pods(known);
        }
    }
    readers
}

/// What pods of a cluster with this zone have from the node; nothing where its file cannot be read.
pub(super) fn of_node(zone: &Name) -> Vec<Name> {
    read(Path::new(NODES), &Reader::Pods(vec![zone.clone()])).map(|found| found.list).unwrap_or_default()
}

/// The error is a sentence for the operator.
fn read(path: &Path, reader: &Reader) -> Result<Found, String> {
    let file = path.display();
    let refused = |error: io::Error| format!("cannot read the search list in {file}: {error}");
    let mut found = search_list(&String::from_utf8_lossy(&std::fs::read(path).map_err(refused)?), reader);
    found.left_out = found.left_out.map(|left_out| format!("of the search list in {file} is left out: {left_out}"));
    if *reader == Reader::Client && found.list.is_empty() {
        return Err(format!(
            "no search list in {file}: autopath needs a line `search DOMAIN...` there, or `@query` in place of the file"
        ));
    }
    Ok(found)
}

/// The last line counts (resolv.conf(5)); of that at most as much as kubelet gives to pods.
fn search_list(text: &str, reader: &Reader) -> Found {
    let keyword = |word: &str| word == "search" || word == "domain" && *reader == Reader::Client;
    let mut lines = text.lines().rev();
    let line = lines.find(|line| line.split_whitespace().next().is_some_and(keyword));
    let mut words = line.unwrap_or_default().split_whitespace();
    let most = if words.next() == Some("domain") { 1 } else { usize::MAX };
    let (mut list, mut left_out, mut characters) = (Vec::new(), Vec::new(), 0);
    for (at, word) in words.take(most).filter(|word| *word != ".").enumerate() {
        if at == MAX_SUFFIXES || characters + word.len() > MAX_CHARACTERS {
            left_out.push(format!("what is beyond {MAX_SUFFIXES} domains or {MAX_CHARACTERS} characters"));
            break;
        }
        characters += word.len() + 1;
        match Name::parse(word) {
            Err(error) => left_out.push(format!("`{}` ({error})", word.escape_debug())),
            Ok(name) if reader.has(&name) => left_out.push(format!(
                "{name} (the cluster's own: this is a pod's list; dnslet's pod needs `dnsPolicy: Default`)"
            )),
            Ok(name) if list.contains(&name) => {}
            Ok(name) => list.push(name),
        }
    }
    Found { list, left_out: (!left_out.is_empty()).then(|| left_out.join(", ")) }
}

impl Reader {
    /// Whether a name is one that pods have before those of the node.
    fn has(&self, name: &Name) -> bool {
        match self {
            Reader::Client => false,
            Reader::Pods(zones) => zones.iter().any(|zone| name.is_under(zone)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::check_text;

    fn names(list: &[Name]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    fn of_client(text: &str) -> Vec<String> {
        names(&search_list(text, &Reader::Client).list)
    }

    fn pods() -> Reader {
        Reader::Pods(vec![Name::parse("cluster.local").unwrap()])
    }

    #[test]
    fn the_last_line_counts() {
        let text = "# search a\n; search b\nnameserver 10.0.0.1\nsearch c d\n\tsearch\tEU.corp.example. corp.example eu.corp.example\r\noptions ndots:5\n";
        assert_eq!(of_client(text), ["eu.corp.example.", "corp.example."]);
        assert_eq!(of_client("search a b\ndomain c d\n"), ["c."]);
        assert_eq!(of_client("domain c\nsearch a b"), ["a.", "b."]);
        assert_eq!(of_client("search a\nsearch\n"), Vec::<String>::new());
        assert_eq!(of_client("search .\n"), Vec::<String>::new());
        assert_eq!(of_client("searching a\n"), Vec::<String>::new());
        let found = search_list("search a\ndomain c\n", &pods());
        assert_eq!((names(&found.list), found.left_out), (vec!["a.".to_owned()], None), "kubelet reads no `domain`");
    }

    #[test]
    fn what_cannot_be_used_is_left_out_and_told() {
        let found = search_list("search a..b corp.example svc.cluster.local", &pods());
        assert_eq!(names(&found.list), ["corp.example."]);
        assert_eq!(
            found.left_out.unwrap(),
            "`a..b` (a label is empty (two dots in a row)), svc.cluster.local. (the cluster's own: this is a pod's list; \
             dnslet's pod needs `dnsPolicy: Default`)"
        );
        assert_eq!(of_client("search svc.cluster.local"), ["svc.cluster.local."]);
    }

    #[test]
    fn a_long_list_is_cut_where_kubelet_cuts_it() {
        let line = |count: usize, word: &str| {
            "search".to_owned() + &(0..count).map(|at| format!(" {at:02}{word}")).collect::<String>()
        };
        let found = |text: &str| search_list(text, &Reader::Client);
        let whole = found(&line(32, ".example"));
        assert_eq!((whole.list.len(), whole.left_out), (32, None));
        let cut = found(&line(33, ".example"));
        assert_eq!((cut.list.len(), names(&cut.list).last().unwrap().as_str()), (32, "31.example."));
        assert_eq!(cut.left_out.unwrap(), "what is beyond 32 domains or 2048 characters");
        // Names of 127 characters: sixteen and the blanks between them are 2047.
        let long = format!("{}.{}", "x".repeat(61), "y".repeat(63));
        assert_eq!(found(&line(16, &long)).list.len(), 16);
        assert_eq!(found(&line(17, &long)).list.len(), 16);
        assert_eq!(found(&line(16, &format!("{long}.z"))).list.len(), 15);
    }

    /// A file of its own, removed at the end.
    struct File(PathBuf);

    impl Drop for File {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn a_faulty_file_keeps_the_old_list_and_is_reported_once() {
        let file = File(std::env::temp_dir().join(format!("dnslet-searches-{}", std::process::id())));
        let shown = file.0.display().to_string();
        let text = format!(". {{\n autopath {shown}\n cache\n whoami\n}}\n");
        let routes = check_text("C", &text).unwrap();
        let refused = SearchFiles::read(&routes).unwrap_err();
        assert!(refused.starts_with(&format!("cannot read the search list in {shown}: ")), "{refused}");
        let none = format!(
            "no search list in {shown}: autopath needs a line `search DOMAIN...` there, or `@query` in place of the file"
        );
        std::fs::write(&file.0, "nameserver 10.0.0.1\n").unwrap();
        assert_eq!(SearchFiles::read(&routes).unwrap_err(), none);

        std::fs::write(&file.0, "search a.example\n").unwrap();
        let mut files = SearchFiles::read(&routes).unwrap();
        assert_eq!(files.paths().collect::<Vec<_>>(), [file.0.as_path()]);
        let left_out =
            format!("of the search list in {shown} is left out: `b..c` (a label is empty (two dots in a row))");
        for (text, list, news) in [
            ("search a.example\n# the same\n", "a.example.", vec![]),
            ("search\n", "a.example.", vec![Err(format!("{none}; the list stays as it was"))]),
            ("search\n", "a.example.", vec![]),
            ("search a.example\n", "a.example.", vec![]),
            ("search b.example b..c\n", "b.example.", vec![Ok(format!("{shown}: b.example.")), Err(left_out)]),
            ("search b.example b..c\n# again\n", "b.example.", vec![]),
        ] {
            std::fs::write(&file.0, text).unwrap();
            assert_eq!(files.read_again(), news, "{text}");
            assert_eq!(names(&files.0[&file.0].list), [list], "{text}");
        }
    }

    /// The list of the node may be missing or empty: then pods have the suffixes of the cluster and no others.
    #[test]
    fn the_file_of_the_node_need_not_be_there() {
        let file = File(std::env::temp_dir().join(format!("dnslet-node-searches-{}", std::process::id())));
        let mut held = Held { reader: pods(), list: [].into(), fault: None };
        assert_eq!(held.read_again(&file.0).len(), 1, "missing, and told");
        assert_eq!(held.read_again(&file.0), [], "once");
        let shown = file.0.display();
        for (text, news) in [
            ("search corp.example\n", format!("{shown}: corp.example.")),
            ("nameserver 10.0.0.1\n", format!("{shown}: no suffixes")),
        ] {
            std::fs::write(&file.0, text).unwrap();
            assert_eq!(held.read_again(&file.0), [Ok(news)]);
        }
    }

    #[test]
    fn one_file_for_several_blocks_is_read_with_the_fewest_names() {
        let text = "a.test {\n autopath @query\n cache\n}\nb.test {\n autopath x.b.test @query\n cache\n}\nc.test {\n autopath \
                    /etc/resolv.conf\n cache\n}\nd.test {\n autopath @query {\n search corp.example\n }\n cache\n}\n";
        let found = readers(&check_text("C", text).unwrap());
        let zones = ["a.test", "x.b.test"].map(|zone| Name::parse(zone).unwrap());
        assert_eq!(found, BTreeMap::from([("/etc/resolv.conf".into(), Reader::Pods(zones.into()))]));
    }
}
