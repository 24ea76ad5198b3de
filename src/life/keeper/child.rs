//! The server's process, as its parent sees it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{ExitStatus, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child as Process, Command};

use crate::life::channel::{Ends, Line, News, Request};
use crate::sys::{channel, supervisor};

/// The first argument of the server's command line; the second names its ends of the line to the keeper.
pub const SERVER: &str = "server";

/// What a server does.
#[derive(Debug)]
pub(super) enum Event {
    /// It asks for something; an error if that cannot be understood.
    Asks(io::Result<Request>),
    /// It has ended.
    Ended(io::Result<ExitStatus>),
}

/// A running server.
#[derive(Debug)]
pub(super) struct Child {
    process: Process,
    /// Its requests; replies go the same way.
    pub(super) requests: Line,
    news: Line,
    pub(super) started: Instant,
    /// It said that it serves.
    pub(super) serves: bool,
    /// It was ended because it was of no use.
    pub(super) dismissed: bool,
    /// It said that it means to end, and with what code.
    pub(super) leaving: Option<u8>,
}

impl Child {
    /// Starts this program again as the server, with the same arguments, in a process group of its own: what a terminal
    /// sends to the group comes here and is passed on. `stdin` is what it reads as standard input. Must be called inside
    /// a runtime.
    pub(super) fn start(stdin: Option<&Stdin>, now: Instant) -> io::Result<Child> {
        let (requests, theirs) = channel::pair()?;
        let (news, their_news) = channel::pair()?;
        channel::inherit(&theirs)?;
        channel::inherit(&their_news)?;
        // Not by path: after an upgrade in place that would be another program than this one.
        let mut command = Command::new("/proc/self/exe");
        let ends = Ends { requests: theirs.as_raw_fd(), news: their_news.as_raw_fd(), parent: std::process::id() };
        command.arg0("dnslet").arg(SERVER).arg(ends.to_string()).args(std::env::args_os().skip(1)).process_group(0);
        // The service manager speaks with this process alone.
        for variable in supervisor::VARIABLES {
            command.env_remove(variable);
        }
        command.stdin(stdin.map_or_else(|| Ok(Stdio::null()), Stdin::again)?).kill_on_drop(true);
        let process = command.spawn()?;
        let (requests, news) = (Line::new(requests)?, Line::new(news)?);
        Ok(Child { process, requests, news, started: now, serves: false, dismissed: false, leaving: None })
    }

    /// Waits for its next request, or for its end once all requests were read. Safe to cancel.
    pub(super) async fn next(&mut self) -> Event {
        let Child { process, requests, .. } = self;
        let request = async {
            match requests.next().await {
                Ok(Some((request, _))) => Ok(request),
                Err(error) => Err(error),
                // Its end of the line is closed, so its end follows.
                Ok(None) => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            request = request => Event::Asks(request),
            status = process.wait() => Event::Ended(status),
        }
    }

    /// Tells it something; what it is too busy to read is lost.
    pub(super) fn tell(&self, news: &News) {
        let _ = self.news.tell(news);
    }

    /// Ends it at once.
    pub(super) fn dismiss(&mut self) {
        self.dismissed = true;
        self.signal(Signal::SIGKILL);
    }

    /// Sends it a signal; one that has ended needs none.
    pub(super) fn signal(&self, signal: Signal) {
        let id = self.process.id().and_then(|id| i32::try_from(id).ok());
        if let Some(id) = id {
            let _ = kill(Pid::from_raw(id), signal);
        }
    }
}

/// Standard input, read to its end: a server that is started again reads it from the beginning.
#[derive(Debug)]
pub(super) struct Stdin {
    file: OwnedFd,
}

impl Stdin {
    /// Reads all of standard input.
    pub(super) fn read() -> io::Result<Stdin> {
        let file = nix::sys::memfd::memfd_create(c"dnslet-stdin", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?;
        io::copy(&mut io::stdin().lock(), &mut File::from(file.try_clone()?))?;
        Ok(Stdin { file })
    }

    fn again(&self) -> io::Result<Stdio> {
        File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd())).map(Stdio::from)
    }
}
