//! The stub resolvers: small programs on the libraries that pods have, and dig. Each reads names and prints what it found.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One thing to look up.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// What kind of name it is.
    pub class: &'static str,
    /// `U`, `4`, `6`: addresses of both families, or of one. `S`: SRV records. `C`: the canonical name.
    pub kind: char,
    pub name: &'a str,
}

/// A stub resolver.
pub struct Stub {
    pub name: &'static str,
    /// What it can look up.
    pub kinds: &'static [char],
    /// How it looks up the addresses of a host that it is to connect to.
    pub hosts: &'static [char],
    /// It looks at a name before it asks, and ends on an odd one.
    pub strict: bool,
    program: PathBuf,
}

const ADDRESSES: &[char] = &['U', '4', '6', 'S'];

/// All of them, compiled in this directory where they are programs of ours.
#[track_caller]
pub fn all(directory: &Path) -> [Stub; 5] {
    let file = |name| directory.join(name);
    let source = |name, text: &str| {
        std::fs::write(file(name), text).expect("a writable directory");
        file(name)
    };
    source("words.h", include_str!("words.h"));
    let c = source("stub.c", include_str!("stub.c"));
    let ares = source("ares.c", include_str!("ares.c"));
    let go = source("stub.go", include_str!("stub.go"));
    build(Command::new("cc").args(["-O1", "-o"]).arg(file("glibc")).arg(&c).arg("-lresolv"), "gcc libc6-dev");
    build(Command::new("musl-gcc").args(["-static", "-O1", "-o"]).arg(file("musl")).arg(&c), "musl-tools");
    build(Command::new("cc").args(["-O1", "-o"]).arg(file("ares")).arg(&ares).arg("-lcares"), "gcc libc-ares-dev");
    let mut command = Command::new("go");
    command.args(["build", "-o"]).arg(file("go")).arg(&go).env("CGO_ENABLED", "0").env("GO111MODULE", "off");
    // Go compiles its library once, and keeps it there.
    build(command.env("GOCACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("go")), "golang-go");
    let ours = |name| Stub { name, kinds: ADDRESSES, hosts: &['U'], strict: false, program: file(name) };
    [
        ours("glibc"),
        ours("musl"),
        Stub { kinds: &['U', '4', '6', 'S', 'C'], ..ours("go") },
        ours("ares"),
        Stub { kinds: &['4', '6', 'S'], hosts: &['4', '6'], strict: true, program: "dig".into(), ..ours("dig") },
    ]
}

#[track_caller]
fn build(command: &mut Command, packages: &str) {
    let output = command.output().unwrap_or_else(|error| panic!("{error}: apt-get install {packages}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "apt-get install {packages}? {command:?}:\n{errors}");
}

impl Stub {
    /// Looks these up one after the other as /etc/resolv.conf says. One result for each: what was found, in order of the
    /// alphabet, or the error.
    #[track_caller]
    pub fn look_up(&self, directory: &Path, questions: &[Question<'_>]) -> Vec<String> {
        let dig = self.name == "dig";
        let line = |question: &Question<'_>| match dig {
            true => format!("{} {}\n", question.name, kind(question.kind)),
            false => format!("{} {}\n", question.kind, question.name),
        };
        let input = directory.join("questions");
        std::fs::write(&input, questions.iter().map(line).collect::<String>()).expect("a writable directory");
        let mut command = Command::new(&self.program);
        if dig {
            command.args(["+search", "-f"]).arg(&input);
        }
        let stdin = File::open(&input).expect("a file that was just written");
        let output = command.env("GODEBUG", "netdns=go").stdin(stdin).output();
        let output = output.expect("compiled, or: apt-get install bind9-dnsutils");
        let printed = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} failed: {errors}\n{printed}", self.name);
        let results: Vec<String> = match dig {
            true => {
                printed.split("<<>> DiG ").skip(1).zip(questions).map(|(text, asked)| of_dig(text, asked)).collect()
            }
            false => printed.lines().zip(questions).map(|(text, asked)| of_ours(text, asked)).collect(),
        };
        assert_eq!(results.len(), questions.len(), "{} left out some: {errors}\n{printed}", self.name);
        results
    }
}

/// The type that dig asks for.
fn kind(letter: char) -> &'static str {
    match letter {
        '4' => "A",
        '6' => "AAAA",
        _ => "SRV",
    }
}

fn of_ours(line: &str, question: &Question<'_>) -> String {
    let result = line.strip_prefix(&format!("{} {} =>", question.kind, question.name));
    result.unwrap_or_else(|| panic!("not the result for {question:?}: {line}")).trim().to_owned()
}

/// The RCODE, the records of the type asked for, and whose they are: aliases on the way there are another matter.
fn of_dig(text: &str, question: &Question<'_>) -> String {
    let first = text.lines().next().unwrap_or_default();
    let asked = format!("<<>> {} {}", question.name, kind(question.kind));
    assert!(first.ends_with(&asked), "not the result for {question:?}: {text}");
    let status = text.split_once("status: ").map_or("no reply", |(_, rest)| rest.split(',').next().unwrap_or_default());
    let (mut owner, mut found) = ("-", Vec::new());
    for line in text.lines().filter(|line| !line.starts_with(';')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [name, _ttl, "IN", kind, data @ ..] = &*words
            && *kind == self::kind(question.kind)
        {
            owner = name;
            found.push(data.join("-"));
        }
    }
    found.sort();
    format!("{status} {} canonical {owner}", found.join(" "))
}
