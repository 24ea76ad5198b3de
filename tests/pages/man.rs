//! The man page: calls and flags from their definition, the rest from sections.1.

use anyhow::Result;
use clap::{Arg, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

/// What no flag can tell.
const SECTIONS: &str = include_str!("sections.1");

const VERSION: &str = concat!("dnslet ", env!("CARGO_PKG_VERSION"));

/// What the library writes before each part, and a page has once.
const QUOTES: &str = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n";

/// The page in roff. Flags that only one subcommand has come in a section of their own behind those of all.
pub(crate) fn page(command: &Command) -> Result<String> {
    let calls: Vec<String> = std::iter::once(command)
        .chain(command.get_subcommands())
        .filter_map(|one| Some(one.get_overridden_usage()?.to_string()))
        .collect();
    let man = Man::new(command.clone().override_usage(calls.join("\n"))).manual("dnslet").source(VERSION);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    subcommands(command).to_writer(&mut page)?;
    man.render_options_section(&mut page)?;
    for sub in command.get_subcommands() {
        let own: Vec<Arg> = sub.get_arguments().filter(|arg| !has(command, arg)).cloned().collect();
        if !own.is_empty() {
            Man::new(Command::new("dnslet").disable_help_flag(true).args(own)).render_options_section(&mut page)?;
        }
    }
    let page = String::from_utf8(page)?.replace(QUOTES, "").replace(r"\-\-", r"\-");
    Ok([QUOTES, &page, SECTIONS].concat())
}

fn subcommands(command: &Command) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["DESCRIPTION"]);
    roff.text([roman("Without a word it serves. With one of these it does something else, and takes the same flags:")]);
    for sub in command.get_subcommands() {
        roff.control("TP", []).text([bold(sub.get_name())]);
        roff.text([roman(sub.get_about().map(ToString::to_string).unwrap_or_default())]);
    }
    roff
}

fn has(command: &Command, arg: &Arg) -> bool {
    command.get_arguments().any(|other| other.get_long() == arg.get_long())
}
