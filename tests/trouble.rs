//! Upstreams in trouble under load, seen from the clients: what they lose, how long they wait, and how much is sent
//! meanwhile. `source` is an upstream whose trouble is turned on and off, `load` are clients that ask at a fixed rate.
//!
//! Each test runs in a namespace of its own, so that it can lose packets; those whose figures are times run one after
//! another.

mod failover;
mod flapping;
mod load;
mod loss;
mod outage;
mod source;

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::support::namespace;

/// Held by a test whose figures are times.
static TURN: Mutex<()> = Mutex::new(());

/// Runs the named test again in a namespace, with no other test of this kind beside it; where the user may ask for it,
/// other work of the machine gives way too. True inside.
#[track_caller]
fn entered_alone(test: &str) -> bool {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let first = ["chrt", "--rr", "1"];
    let may = Command::new(first[0]).args(&first[1..]).arg("true").status().is_ok_and(|status| status.success());
    namespace::entered_by(if may { &first } else { &[] }, test)
}

/// Sets rules for packets that arrive in this namespace; `unfilter` takes them away.
#[track_caller]
fn filter(rules: &[String]) {
    let rules: String = rules.iter().map(|rule| format!("{rule}\n")).collect();
    nft(&format!("table inet trouble {{\n chain arriving {{\n type filter hook input priority 0;\n{rules}}}\n}}\n"));
}

#[track_caller]
fn unfilter() {
    nft("delete table inet trouble\n");
}

#[track_caller]
fn nft(text: &str) {
    let mut child =
        Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft: apt-get install nftables");
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("nft reads its input");
    assert!(child.wait().expect("our own child").success(), "nft takes these rules:\n{text}");
}
