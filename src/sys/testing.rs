//! Unit tests that change their process for good run in one of their own.

use std::process::Command;

/// Set for the second run of a test.
const INSIDE: &str = "DNSLET_UNIT_ALONE";

/// Says whether this is the run in a process of its own. If not, runs the test of that full name there, started by the
/// program `through` with its arguments if there are any, and fails if it fails.
#[track_caller]
pub(super) fn alone(test: &str, through: &[&str]) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let itself = std::env::current_exe().unwrap();
    let mut run = match through {
        [] => Command::new(itself),
        [program, arguments @ ..] => {
            let mut run = Command::new(program);
            run.args(arguments).arg(itself);
            run
        }
    };
    run.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
    let output = run.output().unwrap_or_else(|error| panic!("{through:?}: {error} (apt-get install util-linux)"));
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "in a process of its own:\n{printed}\n{errors}");
    assert!(printed.contains("1 passed"), "no test is called {test}:\n{printed}\n{errors}");
    false
}
