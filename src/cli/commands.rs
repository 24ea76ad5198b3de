//! The subcommands: the word of each, what it is for, and which flags it takes. The usage of `-h`, what is said to a stray
//! word, and the tree that man page and shell completions are made from are all read from here.

use clap::{Command, CommandFactory};

use super::explain::Explain;
use super::flags::Flags;
use super::ready::Ready;
use super::top::Top;

/// One way to call the program.
struct Subcommand {
    word: &'static str,
    /// What stands between the word and the flags.
    arguments: &'static str,
    about: &'static str,
    flags: fn() -> Command,
}

impl Subcommand {
    fn call(&self) -> String {
        format!("dnslet {}{} [flags]", self.word, self.arguments)
    }
}

const SUBCOMMANDS: [Subcommand; 8] = [
    Subcommand {
        word: "check",
        arguments: "",
        about: "read the configuration, print what is wrong with it, and leave",
        flags: Flags::command,
    },
    Subcommand {
        word: "cleanup",
        arguments: "",
        about: "remove from this node what an agent left, and leave",
        flags: Flags::command,
    },
    Subcommand {
        word: "doctor",
        arguments: "",
        about: "look at this node, say how DNS stands and what to do, and leave",
        flags: Flags::command,
    },
    Subcommand {
        word: "ready",
        arguments: "",
        about: "whether the agent beside it is ready, in one line: for probes",
        flags: Ready::command,
    },
    Subcommand {
        word: "status",
        arguments: "",
        about: "what a running agent has done since it was started",
        flags: Flags::command,
    },
    Subcommand { word: "top", arguments: "", about: "what it does now, as rates", flags: Top::command },
    Subcommand {
        word: "explain",
        arguments: " NAME -ns NAMESPACE",
        about: "what a pod's lookup does, with autopath and without",
        flags: Explain::command,
    },
    Subcommand {
        word: "host",
        arguments: " enable|disable|renew|status",
        about: "whether the programs of this machine ask dnslet at 127.0.0.1 (-localip), with a way back",
        flags: host,
    },
];

/// With its own words below it.
fn host() -> Command {
    let words = [
        ("enable", "have them ask dnslet first, and the servers of today while it is away"),
        ("disable", "bring back what was there before"),
        ("renew", "where that was done, bring it up to date; what a service does at each start"),
        ("status", "say whether they do, and what would be brought back"),
    ];
    Flags::command().subcommands(words.map(|(word, about)| Flags::command().name(word).about(about)))
}

/// The program with all its subcommands and flags, for documents and completions made from it. Names of flags are
/// without dashes; people write them with one.
pub fn command() -> Command {
    let sub = |one: &Subcommand| (one.flags)().name(one.word).about(one.about).override_usage(one.call());
    let mut command = serving().override_usage("dnslet [flags]").disable_help_subcommand(true);
    command = command.subcommands(SUBCOMMANDS.iter().map(sub));
    command.build();
    command
}

/// The program without a subcommand.
pub(super) fn serving() -> Command {
    Flags::command().override_usage(usage())
}

/// A line for each way to call the program, as `-h` shows them below `Usage: `.
fn usage() -> String {
    let mut lines = vec![format!("{:<23} serve", "dnslet [flags]")];
    let line = |one: &Subcommand| {
        let call = one.call();
        format!("{call:<23} {}{}", if call.len() > 23 { "  " } else { "" }, one.about)
    };
    lines.extend(SUBCOMMANDS.iter().map(line));
    lines.join("\n       ")
}

/// The words in a sentence: `check, cleanup and doctor`.
pub(super) fn words() -> String {
    let words: Vec<&str> = SUBCOMMANDS.iter().map(|one| one.word).collect();
    let (last, most) = words.split_last().expect("there are subcommands");
    format!("{} and {last}", most.join(", "))
}
