//! Completions for a shell: what clap_complete writes for flags with two dashes, made to offer them with one.

use clap::Command;
use clap_complete::{Shell, generate};

pub(crate) fn script(command: &Command, shell: Shell) -> String {
    let mut script = Vec::new();
    generate(shell, &mut command.clone(), "dnslet", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    match shell {
        // Fish calls such a flag an old-style option. Its argparse knows none: where one stands, no subcommand can follow.
        Shell::Fish => {
            script.replace(" -l ", " -o ").replace("2>/dev/null\n    or return\n", "2>/dev/null\n    or return 0\n")
        }
        // Without -s, which would take -conf for -c -o -n -f.
        Shell::Zsh => one_dash(&script, command).replace("=(-s -S -C)", "=(-C)").replace("=(-s -C)", "=(-C)"),
        _ => one_dash(&script, command),
    }
}

fn one_dash(script: &str, command: &Command) -> String {
    let commands = std::iter::once(command).chain(command.get_subcommands());
    let names = commands.flat_map(Command::get_arguments).filter_map(|arg| arg.get_long());
    names.fold(script.to_owned(), |script, name| script.replace(&format!("--{name}"), &format!("-{name}")))
}
