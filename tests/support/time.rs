//! Waiting. Tests wait for events; the deadlines here only say when to give up.

use std::time::{Duration, Instant};

/// When a test gives up on an event. Long, since the machine may be busy; no test relies on it running out.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Lets wall time pass. For what only time brings about: TTLs in another process, a slow upstream's slowness.
#[allow(clippy::disallowed_methods, reason = "the one place that may")]
pub fn pass(duration: Duration) {
    std::thread::sleep(duration);
}

/// Asks `probe` until it says something.
#[track_caller]
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(now() < end, "gave up waiting for {what}");
        pass(Duration::from_millis(10));
    }
}

pub fn now() -> Instant {
    dnslet::sys::clock::now()
}
