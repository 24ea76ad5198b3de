//! The end: clients elsewhere first, then what another instance serves too is left to it, then the server drains, then the
//! node is left as it is to be found.

use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::life::signals::{Asked, Signals};

use super::child::Event;
use super::{Keeper, next};

/// What a server may take to end besides its lameduck time; it gives what is in progress four seconds.
const DRAIN: Duration = Duration::from_millis(4_500);

/// What all the rest may take: rules that go, addresses that are left to another instance, the node as it is to be found.
const REST: Duration = Duration::from_secs(5);

/// A longer lameduck time is not waited for.
const LONGEST_LAMEDUCK: Duration = Duration::from_secs(24 * 3600);

impl Keeper<'_> {
    /// Stops as the signal asks, and returns the exit code.
    pub(super) async fn stop(&mut self, asked: Asked, signals: &mut Signals) -> Result<u8> {
        self.stopping = true;
        self.report();
        if let Some(tending) = &mut self.tending {
            tending.withdraw().await;
        }
        if asked != Asked::Quit {
            self.holdings.leave().await;
        }
        // No other server follows, so the sockets are this one's alone: each is closed the moment its queue is answered.
        self.holdings.keep(&[], &[]);
        self.pass_on(match asked {
            Asked::Quit => Signal::SIGKILL,
            Asked::Interrupt => Signal::SIGINT,
            Asked::Terminate | Asked::Reload | Asked::Upgrade => Signal::SIGTERM,
        });
        let code = if asked == Asked::Quit { 0 } else { self.drained(signals).await };
        self.finish(code).await
    }

    /// Waits for the server's end and returns its exit code. Passes on what it is told meanwhile: a second interrupt does
    /// not want to wait.
    async fn drained(&mut self, signals: &mut Signals) -> u8 {
        let late = tokio::time::sleep(self.lameduck() + DRAIN);
        tokio::pin!(late);
        while self.child.is_some() {
            tokio::select! {
                biased;
                event = next(&mut self.child) => match event {
                    Event::Ended(status) => {
                        self.child = None;
                        return status.ok().and_then(|status| u8::try_from(status.code()?).ok()).unwrap_or_default();
                    }
                    Event::Asks(request) => if self.answer(request).await.is_err() {
                        self.pass_on(Signal::SIGKILL);
                    },
                },
                asked = signals.next() => self.pass_on(match asked {
                    Asked::Interrupt => Signal::SIGINT,
                    Asked::Quit => Signal::SIGQUIT,
                    Asked::Reload | Asked::Upgrade | Asked::Terminate => continue,
                }),
                () = &mut late => {
                    tracing::warn!("the server has not drained in time and is ended");
                    self.pass_on(Signal::SIGKILL);
                    self.child = None;
                }
            }
        }
        0
    }

    /// How long a stop may take, all in all.
    pub(super) fn longest_stop(&self) -> Duration {
        self.lameduck() + DRAIN + REST
    }

    fn lameduck(&self) -> Duration {
        let lameduck = self.serving.as_ref().map(|serving| serving.lameduck).unwrap_or_default();
        lameduck.min(LONGEST_LAMEDUCK)
    }

    /// Leaves the node as it is to be found.
    pub(super) async fn finish(&mut self, code: u8) -> Result<u8> {
        if let Some(tending) = self.tending.take() {
            tending.teardown().await;
        }
        self.pidfile = None;
        Ok(code)
    }
}
