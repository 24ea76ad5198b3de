//! One test, or several, per rule of docs/compliance.md, named after the rule's number there: `format` holds 1-14,
//! `proxy` 20-29, `accept` 30-38, `caching` and `dnssec` 40-56, `failures` 60-72 and 89, `stale` 65-71, `edns` 80-93,
//! `transport` 100-112, `odd` 130-142.
//! All of them ask the built binary beside a scripted upstream.

mod accept;
mod caching;
mod dnssec;
mod edns;
mod failures;
mod format;
mod odd;
mod proxy;
mod stale;
mod transport;

use crate::support::{Agent, Upstream};

/// An agent with an ordinary cache and one upstream.
#[track_caller]
fn cached() -> (Agent, Upstream) {
    Agent::beside_upstream("cache\n forward . {once}")
}
