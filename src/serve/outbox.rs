//! The replies of one connection that are ready to be written.

use super::local::MESSAGE;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};

/// Filled by the tasks of the connection's questions, emptied by the connection.
#[derive(Default)]
pub(crate) struct Outbox {
    ready: RefCell<Vec<u8>>,
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

    /// Exchanges what is ready for the empty `buffer`.
    pub(crate) fn swap(&self, buffer: &mut Vec<u8>) {
        std::mem::swap(&mut *self.ready.borrow_mut(), buffer);
    }

    /// Octets ready.
    pub(crate) fn octets(&self) -> usize {
        self.ready.borrow().len()
    }

    /// Questions in flight.
    pub(crate) fn inflight(&self) -> usize {
        self.inflight.get()
    }

    /// Wakes this task when the next question is done.
    pub(crate) fn wake_later(&self, cx: &Context<'_>) {
        *self.waker.borrow_mut() = Some(cx.waker().clone());
    }

    /// Gives back memory beyond `keep` octets. Nothing is ready.
    pub(crate) fn shrink(&self, keep: usize) {
        let mut ready = self.ready.borrow_mut();
        if ready.capacity() > keep {
            *ready = Vec::new();
        }
    }

    /// The connection is over.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.ready.take();
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
