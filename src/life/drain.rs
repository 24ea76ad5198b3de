//! The stop: lameduck, then no more queries are taken, then what was taken is answered, then the end.

use std::time::Duration;

use crate::observe::errors_log::ErrorsLog;
use crate::sys::clock;

use super::agent::Agent;
use super::signals::Asked;

/// What is in progress has this long. With what the kernel and the supervisor add, a stop stays below five seconds.
const GRACE: Duration = Duration::from_secs(4);

impl Agent<'_> {
    /// Stops in order and returns the exit code. Dropped when a second interrupt does not want to wait.
    pub(super) async fn stop(&mut self, asked: Asked) -> u8 {
        let word = if asked == Asked::Interrupt { "SIGINT" } else { "SIGTERM" };
        tracing::info!("{word}: Shutting down servers then terminating");
        self.common.readiness.shutting_down();
        if let Some(probing) = self.probing.take() {
            probing.abort();
        }
        let lameduck = self.current.routes.process.lameduck;
        if !lameduck.is_zero() {
            tracing::info!(plugin = "health", "Going into lameduck mode for {}", in_go_notation(lameduck));
            tokio::time::sleep(lameduck).await;
        }
        self.common.health.watch(&[]);
        self.server.drain(clock::now() + GRACE).await;
        self.shared.load().error_logs().for_each(ErrorsLog::flush);
        0
    }
}

/// `5s`, `1m30s`, `1h0m0s`: as CoreDNS prints it.
fn in_go_notation(duration: Duration) -> String {
    let (seconds, fraction) = (duration.as_secs(), f64::from(duration.subsec_millis()) / 1000.0);
    let last = (seconds % 60) as f64 + fraction;
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => format!("{last}s"),
        (0, minutes) => format!("{minutes}m{last}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{last}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_look_as_in_coredns() {
        for (millis, text) in [(5_000, "5s"), (1_500, "1.5s"), (90_000, "1m30s"), (3_600_000, "1h0m0s")] {
            assert_eq!(in_go_notation(Duration::from_millis(millis)), text);
        }
    }
}
