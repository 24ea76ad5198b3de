//! The one place that reads a clock. Everything else is handed a time.

use std::time::{Instant, SystemTime};

/// The monotonic time now. Ages and deadlines use it, so a stepped wall clock changes neither.
#[allow(clippy::disallowed_methods, reason = "the one place that may")]
pub fn now() -> Instant {
    Instant::now()
}

/// The wall-clock time now, for log lines and start times only.
pub fn wall() -> SystemTime {
    SystemTime::now()
}
