//! Signals as values.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// `SIGHUP`, `SIGUSR1`: read the configuration again and apply it, changed or not.
    Reload,
    /// `SIGTERM`: stop in order.
    Terminate,
    /// `SIGINT`: stop in order; a second one leaves at once.
    Interrupt,
    /// `SIGQUIT`: leave at once.
    Quit,
    /// `SIGUSR2`: CoreDNS replaces itself. Listened to because the kernel's default would end the process.
    Upgrade,
}

/// The signals this process listens to; others keep the kernel's default.
#[derive(Debug)]
pub(super) struct Signals {
    hangup: Signal,
    user1: Signal,
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    user2: Signal,
}

impl Signals {
    /// Takes the signals over. Must be called inside a tokio runtime.
    pub(super) fn new() -> io::Result<Signals> {
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for the next one. Several of a kind may arrive as one. Safe to cancel.
    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            biased;
            _ = self.quit.recv() => Asked::Quit,
            _ = self.terminate.recv() => Asked::Terminate,
            _ = self.interrupt.recv() => Asked::Interrupt,
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.user1.recv() => Asked::Reload,
            _ = self.user2.recv() => Asked::Upgrade,
        }
    }
}
