//! The program run to its end, as people run its subcommands.

use std::process::Command;

/// Exit code, standard output and standard error.
#[track_caller]
pub fn dnslet(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_dnslet")).args(arguments).output().expect("the built binary");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// That a text holds each of these.
#[track_caller]
pub fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
}
