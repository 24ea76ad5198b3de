use std::fmt::Write as _;
use std::path::Path;

use super::*;

/// Parses `/c/Corefile` beside the given files and variables.
fn read(text: &str, files: &[(&str, &str)], env: &[(&str, &str)]) -> Parsed {
    let mut load = |path: &Path| {
        let mut files = files.to_vec();
        files.sort();
        let found: Vec<_> = files
            .iter()
            .filter(|(name, _)| glob_match(path, Path::new(name)))
            .map(|(name, text)| Imported { path: name.into(), text: (*text).to_owned() })
            .collect();
        if found.is_empty() && !is_pattern(path) { Err("no such file".to_owned()) } else { Ok(found) }
    };
    let env = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    parse(Path::new("/c/Corefile"), text, &mut load, &env)
}

/// `[key,key]{name <arg>{...};}`
fn show(parsed: &Parsed) -> String {
    fn lines(out: &mut String, directives: &[Directive]) {
        out.push('{');
        for directive in directives {
            out.push_str(&directive.name.text);
            directive.args.iter().for_each(|word| _ = write!(out, " <{word}>"));
            if let Some(block) = &directive.block {
                lines(out, block);
            }
            out.push(';');
        }
        out.push('}');
    }
    let mut out = String::new();
    for block in &parsed.blocks {
        let keys: Vec<_> = block.keys.iter().map(|key| &*key.text).collect();
        let _ = write!(out, "[{}]", keys.join(" "));
        lines(&mut out, &block.directives);
    }
    out
}

fn findings(parsed: &Parsed) -> Vec<String> {
    parsed.diagnostics.iter().map(|found| found.line(&parsed.sources)).collect()
}

#[track_caller]
fn tree_with(text: &str, files: &[(&str, &str)], env: &[(&str, &str)], expected: &str) {
    let parsed = read(text, files, env);
    assert_eq!((show(&parsed).as_str(), findings(&parsed)), (expected, Vec::new()), "{text:?}");
}

#[track_caller]
fn tree(text: &str, expected: &str) {
    tree_with(text, &[], &[], expected);
}

/// The tree, and every finding in order.
#[track_caller]
fn found_with(text: &str, files: &[(&str, &str)], env: &[(&str, &str)], expected: &str, messages: &[&str]) {
    let parsed = read(text, files, env);
    assert_eq!(findings(&parsed), messages, "{text:?}");
    assert_eq!(show(&parsed), expected, "{text:?}");
}

#[track_caller]
fn found(text: &str, expected: &str, messages: &[&str]) {
    found_with(text, &[], &[], expected, messages);
}

#[test]
fn blocks_keys_and_braces() {
    tree("", "");
    tree("example.org", "[example.org]{}");
    tree("a b,\n\nc,d {\n}\n\"\" e\n{\n x\n}", "[a b c,d]{}[e]{x;}");
    tree(". {\n f . 1 {\n  a b\n  c {\n   d\n  }\n }\n x\n}", "[.]{f <.> <1>{a <b>;c{d;};};x;}");
    tree(".\nwhoami\nlog a\n", "[.]{whoami;log <a>;}");
    tree(".\n{\nwhoami\n}", "[.]{whoami;}");
    tree(". {\n cache\n {\n success 1\n }\n}", "[.]{cache{success <1>;};}");
    tree(". \"{\"\n whoami\n\"}\"", "[.]{whoami;}");
    tree("(x) y {\n}", "[(x) y]{}");
    tree(". {\n debug#x extra\n log \"a # b\"\n}", "[.]{debug;log <a # b>;}");
    tree(". {\n x \"a\nb\" c\n y\n}", "[.]{x <a\nb> <c>;y;}");
    tree("a {\n} b {\n}", "[a]{}[b]{}");
}

#[test]
fn braces_in_odd_places() {
    found(
        ". { whoami }\na {\n}",
        "[.]{whoami;}[a]{}",
        &["/c/Corefile:1:12: this `}` ends a line (write it on a line of its own)"],
    );
    found(". {\n cache {}\n}", "[.]{cache{};}", &["/c/Corefile:2:8: `{}` is read as an empty block (leave it out)"]);
    found(
        "example.org{\n cache{\n  success 1\n }\n}",
        "[example.org]{cache{success <1>;};}",
        &[
            "/c/Corefile:1:1: the brace is part of this word (put a space before it: `example.org {`)",
            "/c/Corefile:2:2: the brace is part of this word (put a space before it: `cache {`)",
        ],
    );
    found(
        ". {\n}\n}\n{\n x\n}\n",
        "[.]{}",
        &[
            "/c/Corefile:3:1: this `}` closes nothing (remove it, or look above for a `{` that is missing or glued to a \
         word)",
            "/c/Corefile:4:1: this block has no zone (name the zones it serves before the brace, as in `example.org {` or \
         `. {`)",
        ],
    );
    found(
        ". {\n cache {\n  success 1\n",
        "[.]{cache{success <1>;};}",
        &["/c/Corefile:2:8: this `{` is never closed (add a line with `}` where the block is meant to end)"],
    );
    found(
        ". {\n f 1 {\n  a\n } b\n x\n {\n }\n {\n }\n}",
        "[.]{f <1>{a;};x{};}",
        &[
            "/c/Corefile:4:4: nothing may follow `}` on its line (start a new line here)",
            "/c/Corefile:8:2: this `{` belongs to no directive (write it at the end of a directive's line)",
        ],
    );
    let deep = format!(". {{\n{}x\n{}}}\ny {{\n}}", "a {\n".repeat(5000), "}\n".repeat(5000));
    let parsed = read(&deep, &[], &[]);
    assert_eq!(findings(&parsed), ["/c/Corefile:34:3: blocks are nested more than 32 deep"]);
    assert_eq!(parsed.blocks.len(), 2);
}

#[test]
fn commas() {
    found(
        "a, {\n}\nb,",
        "[a]{}[b]{}",
        &[
            "/c/Corefile:1:1: after a comma another zone must follow (remove the comma)",
            "/c/Corefile:3:1: the file ends after a comma (add another zone, or remove it)",
        ],
    );
}

#[test]
fn environment() {
    let env = [("A", "a b"), ("N", "A"), ("R", "{$R}x"), ("Z", "53"), ("IMP", "import"), ("B", "{")];
    tree_with("a:{$Z} {\n {$N} \"{$A} {%A%}\" {$} {%%}\n}", &[], &env, "[a:53]{A <a b a b> <{$}> <{%%}>;}");
    tree_with(". {\n x {${%N%}} {$B}\n {$IMP} y\n}", &[], &env, "[.]{x <a b> <{>;import <y>;}");
    found_with(
        ". {\n x {$NO} {$NO}\n}",
        &[],
        &env,
        "[.]{x <> <>;}",
        &["/c/Corefile:2:4: the environment variable NO is not set"],
    );
    found_with(
        ". {\n x {$R}\n}",
        &[],
        &env,
        "[.]{x <>;}",
        &[
            "/c/Corefile:2:4: replacing the environment variable R does not come to an end (its value must not refer to \
         itself)",
        ],
    );
    found_with(
        "{$NO} {\n x\n}",
        &[],
        &env,
        "",
        &[
            "/c/Corefile:1:1: the environment variable NO is not set",
            "/c/Corefile:1:1: this block has no zone and is left out (name the zones it serves before the brace; is a \
         variable not set?)",
        ],
    );
}

#[test]
fn snippets() {
    tree("(s) {\n a 1\n b {\n  c\n }\n}\n. {\n import s\n import s\n}", "[.]{a <1>;b{c;};a <1>;b{c;};}");
    tree("(s) { a }\nx {\n import s\n}", "[x]{a;}");
    tree("(o) {\n  d 1\n}\n. {\n cache {\n  import o\n  e\n }\n}", "[.]{cache{d <1>;e;};}");
    tree("(k) {\n a,\n}\nimport k\nb {\n}", "[a b]{}");
    found(
        "(s) {\n}\n(s) {\n a\n}\n(t)\n. {\n import s\n}",
        "[.]{}",
        &[
            "/c/Corefile:3:1: the snippet `s` is already defined (give one of them another name)",
            "/c/Corefile:6:1: the snippet `t` has no braces (write `(t) {`, its lines, and `}`)",
        ],
    );
    found(
        ". {\n import\n import a b\n import \"\"\n import tls\n}\n(tlss) {\n}\nimport tls",
        "[.]{}",
        &[
            "/c/Corefile:2:2: `import` takes one name, not 0 (name a snippet, a file, or a pattern with one `*`; write one \
         import per name)",
            "/c/Corefile:3:2: `import` takes one name, not 2 (name a snippet, a file, or a pattern with one `*`; write one \
         import per name)",
            "/c/Corefile:4:9: `import` needs a name (name a snippet, a file, or a pattern with one `*`)",
            "/c/Corefile:5:9: cannot import /c/tls: no such file",
            "/c/Corefile:9:8: cannot import /c/tls: no such file (did you mean the snippet `tlss`?)",
        ],
    );
}

#[test]
fn imports_in_a_circle_end() {
    found(
        "(a) {\n import b\n}\n(b) {\n x\n import a\n}\n. {\n import a\n}",
        "[.]{x;}",
        &["/c/Corefile:6:9: this snippet imports itself (remove this import, or the one that leads back here)"],
    );
    found_with(
        "import one\n",
        &[("/c/one", "import d/two"), ("/c/d/two", "import ../one\nimport two")],
        &[],
        "",
        &[
            "/c/d/two:1:8: this file imports itself (remove this import, or the one that leads back here)",
            "/c/d/two:2:8: this file imports itself (remove this import, or the one that leads back here)",
        ],
    );
}

#[test]
fn repeated_imports_are_bounded() {
    let mut text = "(s0) {\n x\n}\n".to_owned();
    for level in 1..40 {
        let _ = writeln!(text, "(s{level}) {{\n import s{0}\n import s{0}\n}}", level - 1);
    }
    text.push_str(". {\n import s39\n}\n");
    let parsed = read(&text, &[], &[]);
    assert_eq!(parsed.diagnostics[0].message, "more than 10000 snippets are imported");

    let big = "(s) {\n x ".to_owned() + &"y".repeat(100_000) + "\n}\n. {\n" + &"import s\n".repeat(5000) + "}";
    assert_eq!(read(&big, &[], &[]).diagnostics[0].message, "the imports of this file expand to too much text");
}

#[test]
fn files() {
    let files = [
        ("/c/conf.d/b.conf", "b {\n import ../common\n}\n"),
        ("/c/conf.d/a.conf", "a {\n import ../common\n}\n"),
        ("/c/common", "whoami"),
        ("/x/zones", "z1,\nz2"),
    ];
    tree_with(
        "import conf.d/*.conf\nimport /x/zones\n{\n import common\n log\n}",
        &files,
        &[],
        "[a]{whoami;}[b]{whoami;}[z1 z2]{whoami;log;}",
    );
    let parsed = read("import conf.d/*.conf\nimport none\nimport no.*", &files, &[]);
    let watched: Vec<_> = parsed.watched.iter().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(watched, ["/c/conf.d/*.conf", "/c/common", "/c/none", "/c/no.*"]);
    assert_eq!(
        findings(&parsed),
        ["/c/Corefile:2:8: cannot import /c/none: no such file", "/c/Corefile:3:8: no file matches this pattern",]
    );
    found_with(
        "import conf.d/*/*\nimport [ab]",
        &files,
        &[],
        "",
        &[
            "/c/Corefile:1:8: this pattern has too many wildcards (a pattern may have one `*` and one `?`, and no `[...]`)",
            "/c/Corefile:2:8: this pattern has too many wildcards (a pattern may have one `*` and one `?`, and no `[...]`)",
        ],
    );
}

#[test]
fn the_digest_ignores_layout_and_sees_words() {
    let digest = |text: &str| read(text, &[("/c/f", "log")], &[("V", "1")]).digest();
    let base = digest(". {\n cache 30\n log\n}");
    assert_eq!(base.len(), 128);
    assert_eq!(base, digest("\n# note\n.   {\n\n\tcache \"30\"\nlog # log\n}\n\n"));
    assert_eq!(base, digest(". {\n cache 30 # c\n import f\n}"));
    assert_eq!(digest(". {\n cache 1\n}"), digest(". {\n cache {$V}\n}"));
    let others = [". {\n cache 30 log\n}", ". {\n cache 3 0\n log\n}", ". {\n log\n cache 30\n}", ". {\n cache 30\n}"];
    assert!(others.iter().all(|text| digest(text) != base));
}

#[test]
fn findings_are_bounded() {
    let parsed = read(&"}\n".repeat(1000), &[], &[]);
    assert_eq!(parsed.diagnostics.len(), 101);
    assert_eq!(parsed.diagnostics[100].message, "900 more findings are not shown");
}
