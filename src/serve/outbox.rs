//! The replies of one connection: those that are ready, and those on their way to the kernel.

use super::local::MESSAGE;
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::task::{Context, Waker};

/// Filled by the tasks of the connection's questions, emptied by the connection.
#[derive(Default)]
pub(crate) struct Outbox {
    ready: RefCell<Vec<u8>>,
    /// Replies on their way, `written` octets of them with the kernel.
    writing: RefCell<Vec<u8>>,
    written: Cell<usize>,
    inflight: Cell<usize>,
    waker: RefCell<Option<Waker>>,
    closed: Cell<bool>,
}

/// One question's place in the outbox, for as long as it is in flight.
pub(crate) struct Slot {
    outbox: Rc<Outbox>,
}

impl Outbox {
    /// Puts a reply behind the others, its length in front of it (RFC 1035 section 4.2.2). An empty one is silence. If
    /// the client has gone, nobody wants it.
    pub(crate) fn put(&self, reply: &[u8]) {
        if reply.is_empty() || reply.len() > MESSAGE || self.closed.get() {
            return;
        }
        let mut ready = self.ready.borrow_mut();
        ready.extend_from_slice(&(reply.len() as u16).to_be_bytes());
        ready.extend_from_slice(reply);
    }

    /// Whether the kernel has all that was on its way.
    pub(crate) fn is_written(&self) -> bool {
        self.written.get() == self.writing.borrow().len()
    }

    /// When all is written: sends what is ready on its way. False if nothing is.
    pub(crate) fn advance(&self) -> bool {
        let mut writing = self.writing.borrow_mut();
        writing.clear();
        self.written.set(0);
        std::mem::swap(&mut *self.ready.borrow_mut(), &mut *writing);
        !writing.is_empty()
    }

    /// Has `write` take octets that are on their way, and returns how many it took.
    pub(crate) fn write(&self, write: impl FnOnce(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
        let n = write(&self.writing.borrow()[self.written.get()..])?;
        self.written.set(self.written.get() + n);
        Ok(n)
    }

    /// Octets that the kernel has not taken.
    pub(crate) fn octets(&self) -> usize {
        self.ready.borrow().len() + self.writing.borrow().len() - self.written.get()
    }

    /// Octets of memory.
    pub(crate) fn capacity(&self) -> usize {
        self.ready.borrow().capacity() + self.writing.borrow().capacity()
    }

    /// Questions in flight.
    pub(crate) fn inflight(&self) -> usize {
        self.inflight.get()
    }

    /// Wakes this task when the next question is done.
    pub(crate) fn wake_later(&self, cx: &Context<'_>) {
        *self.waker.borrow_mut() = Some(cx.waker().clone());
    }

    /// Gives back memory beyond `keep` octets, where nothing is in it.
    pub(crate) fn shrink(&self, keep: usize) {
        if self.octets() > 0 {
            return;
        }
        for buffer in [&self.ready, &self.writing] {
            if buffer.borrow().capacity() > keep {
                buffer.take();
                self.written.set(0);
            }
        }
    }

    /// The connection is over.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.ready.take();
        self.writing.take();
        self.written.set(0);
    }
}

impl Slot {
    pub(crate) fn new(outbox: &Rc<Outbox>) -> Self {
        outbox.inflight.set(outbox.inflight.get() + 1);
        Self { outbox: outbox.clone() }
    }

    /// Hands over the reply.
    pub(crate) fn put(self, reply: &[u8]) {
        self.outbox.put(reply);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.outbox.inflight.set(self.outbox.inflight.get() - 1);
        if let Some(waker) = self.outbox.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}
