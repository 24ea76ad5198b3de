//! Lines on their way to standard output: two bounded buffers and the thread that empties them.
//!
//! A pipe that nobody reads blocks its writer. Only the thread here may be that writer: whoever logs copies a line
//! under a short lock, or loses it when the buffer is full and learns so.

use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How long the thread sleeps at most before it looks whether there is something else to say.
const TICK: Duration = Duration::from_secs(1);

/// The two kinds of lines. They have a buffer each, so that a flood of queries does not crowd out an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// What the agent has to say.
    Log,
    /// One line per query, from the `log` plugin.
    Query,
}

impl Stream {
    /// The value of the label `stream`.
    pub(super) const LABELS: [&'static str; 2] = ["log", "query"];

    /// Octets that may wait.
    const CAPACITY: [usize; 2] = [256 * 1024, 1024 * 1024];
}

/// The buffers.
#[derive(Debug, Default)]
pub(super) struct Sink {
    state: Mutex<State>,
    wake: Condvar,
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    buffers: [Vec<u8>; 2],
    /// The thread sleeps and wants to be woken. Waking is a system call, so it is done only then.
    asleep: bool,
    /// The thread holds lines that are not yet written.
    writing: bool,
    closed: bool,
}

impl Sink {
    /// Adds a whole line, end of line included, or nothing: `false` where there is no room.
    pub(super) fn push(&self, stream: Stream, parts: &[&[u8]]) -> bool {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let mut state = self.state();
        let buffer = &mut state.buffers[stream as usize];
        if buffer.len() + length > Stream::CAPACITY[stream as usize] {
            return false;
        }
        for part in parts {
            buffer.extend_from_slice(part);
        }
        if mem::take(&mut state.asleep) {
            self.wake.notify_one();
        }
        true
    }

    /// Waits until everything is written, at most for `patience`; whether it is.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let state = self.state();
        let busy = |state: &mut State| state.writing || state.buffers.iter().any(|buffer| !buffer.is_empty());
        let waited = self.written.wait_timeout_while(state, patience, busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Lets the thread end once everything is written.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.wake.notify_one();
    }

    /// Starts the thread. `more` is asked at least once per [`TICK`] for lines that became due.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(super) fn drain(
        self: &Arc<Sink>,
        mut out: Box<dyn Write + Send>,
        mut more: impl FnMut() -> String + Send + 'static,
    ) -> io::Result<()> {
        let sink = Arc::clone(self);
        let work = move || {
            let mut batch = [Vec::new(), Vec::new()];
            while sink.take(&mut batch) {
                let due = more();
                for lines in [&batch[0], due.as_bytes(), &batch[1]] {
                    // Without a standard output there is nobody to tell.
                    let _ = out.write_all(lines);
                }
                let _ = out.flush();
            }
        };
        thread::Builder::new().name("log".to_owned()).spawn(work).map(|_| ())
    }

    /// Trades the buffers for the emptied ones of the last turn; returns `false` when closed and empty.
    fn take(&self, batch: &mut [Vec<u8>; 2]) -> bool {
        batch.iter_mut().for_each(Vec::clear);
        let mut state = self.state();
        state.writing = false;
        let idle = |state: &mut State| !state.closed && state.buffers.iter().all(Vec::is_empty);
        if idle(&mut state) {
            self.written.notify_all();
            state.asleep = true;
            let still = |state: &mut State| state.asleep && idle(state);
            state = self.wake.wait_timeout_while(state, TICK, still).unwrap_or_else(PoisonError::into_inner).0;
            state.asleep = false;
        }
        mem::swap(&mut state.buffers, batch);
        let empty = batch.iter().all(Vec::is_empty);
        state.writing = !empty;
        let over = state.closed && empty;
        drop(state);
        if over {
            self.written.notify_all();
        }
        !over
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// A pipe whose reader decides when a write may end.
    struct Slow {
        written: Sender<Vec<u8>>,
        allow: Receiver<()>,
    }

    impl Write for Slow {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.written.send(octets.to_vec()).unwrap();
            self.allow.recv().map_err(io::Error::other)?;
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_pipe_costs_lines_but_holds_up_nobody() {
        let (written, output) = channel();
        let (allow, allowed) = channel();
        let sink = Arc::new(Sink::default());
        sink.drain(Box::new(Slow { written, allow: allowed }), String::new).unwrap();
        assert!(sink.push(Stream::Log, &[b"first", b"\n"]));
        assert_eq!(output.recv().unwrap(), b"first\n", "the thread is now stuck in this write");
        let line = [b'q'; 1024];
        let taken = (0..2000).filter(|_| sink.push(Stream::Query, &[&line])).count();
        assert_eq!(taken, 1024, "1 MiB of lines waits, the rest is refused");
        assert!(sink.push(Stream::Log, &[b"still room for an error\n"]));
        assert!(!sink.flush(Duration::ZERO));
        for _ in 0..3 {
            allow.send(()).unwrap();
        }
        assert_eq!(output.recv().unwrap(), b"still room for an error\n");
        assert_eq!(output.recv().unwrap().len(), 1024 * 1024);
        assert!(sink.flush(Duration::from_secs(60)));
        sink.close();
        assert!(output.recv().is_err(), "the thread ended and dropped its pipe");
    }
}
