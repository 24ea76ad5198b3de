//! Man page and shell completions, as groff and bash take them.

mod completions;
mod man;

use std::io::Write;
use std::process::{Command, Output, Stdio};

use clap_complete::Shell;
use dnslet::cli;

use crate::support::program::{assert_has, dnslet};

/// What the program prints, having read this.
fn output(program: &str, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}: .ci/deps test installs it"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// The page as a terminal shows it, without bold, underlines and hyphenation.
fn shown(page: &str) -> String {
    let output = output("groff", &["-man", "-ww", "-rLL=200n", "-rHY=0", "-Tascii", "-P-cbou"], page);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "groff has nothing to warn of");
    String::from_utf8(output.stdout).unwrap()
}

/// What bash makes of a command line that ends where the cursor stands.
fn completed(line: &[&str]) -> Vec<String> {
    let script = completions::script(&cli::command(), Shell::Bash);
    let (last, previous) = (line[line.len() - 1], line[line.len() - 2]);
    let words = line.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    let ask = format!(
        "{script}\nCOMP_WORDS=({words}); COMP_CWORD={}\n_dnslet dnslet '{last}' '{previous}'\nfor reply in \"${{COMPREPLY[@]}}\"; do echo \"$reply\"; done",
        line.len() - 1
    );
    let output = output("bash", &["-u"], &ask);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn the_page_has_every_flag_and_every_subcommand() {
    let page = shown(&man::page(&cli::command()).unwrap());
    assert!(!page.contains("--"), "{page}");
    for call in [&["-h"][..], &["top", "-h"], &["explain", "-h"]] {
        let (_, help, _) = dnslet(call);
        let flags = help.lines().filter_map(|line| line.trim_start().strip_prefix('-')?.split("  ").next());
        let flags: Vec<String> = flags.map(|flag| format!("       -{flag}")).collect();
        assert!(flags.len() > 30, "{help}");
        for flag in &flags {
            assert!(page.contains(&format!("\n{flag}")), "{flag} of {call:?} is in\n{page}");
        }
    }
    let subcommands: Vec<String> =
        cli::command().get_subcommands().map(|one| format!("\n       dnslet {} ", one.get_name())).collect();
    assert_has(&page, &subcommands.iter().map(String::as_str).collect::<Vec<_>>());
    let sections =
        ["NAME", "FILES", "SIGNALS", "EXIT STATUS", "EXAMPLES", "SEE ALSO"].map(|name| format!("\n{name}\n"));
    assert_has(&page, &sections.each_ref().map(String::as_str));
}

#[test]
fn bash_completes_words_flags_and_files() {
    assert_eq!(completed(&["dnslet", "-loc"]), ["-localip"]);
    assert_eq!(completed(&["dnslet", "--loc"]), [""; 0], "one dash is how they are offered");
    assert_eq!(completed(&["dnslet", "do"]), ["doctor"]);
    assert_eq!(completed(&["dnslet", "doctor", "-loc"]), ["-localip"]);
    assert_eq!(completed(&["dnslet", "ho"]), ["host"]);
    assert_eq!(completed(&["dnslet", "host", "en"]), ["enable"]);
    assert_eq!(completed(&["dnslet", "explain", "web", "-n"]), ["-ns"]);
    assert_eq!(completed(&["dnslet", "check", "-conf", "Cargo.t"]), ["Cargo.toml"]);
    assert!(completed(&["dnslet", ""]).contains(&"top".to_owned()));
}

#[test]
fn other_shells_are_told_of_flags_with_one_dash() {
    let fish = completions::script(&cli::command(), Shell::Fish);
    assert_has(&fish, &["-o localip ", "or return 0\n"]);
    assert!(!fish.contains(" -l "), "{fish}");
    let zsh = completions::script(&cli::command(), Shell::Zsh);
    assert_has(&zsh, &["'-localip=[", "_arguments_options=(-C)"]);
    assert!(!zsh.contains("'--") && !zsh.contains("(-s"), "{zsh}");
}
