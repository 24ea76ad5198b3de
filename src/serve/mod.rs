//! Datagrams and streams come in, replies go out.
//!
//! A [`Worker`] is a thread with a runtime of its own. It is handed [`Listener`]s, sockets that somebody else has bound,
//! and asks the [`Resolver`](crate::resolve::Resolver) of the configuration in force about each message it receives.
//! The verdict is a reply, written on the spot; or silence; or a miss, which becomes a task of the same worker and
//! sends its reply when it has one.
//!
//! Example: three queries wait in a UDP socket. The worker wakes once, receives them in one system call, looks at the
//! clock and the configuration once, and asks about each. Two are in memory: their replies leave together in one system
//! call. The third is a miss: its task remembers the way back to the client ([`ReturnPath`]) and sends the reply by it
//! later. A client with a TCP connection takes the same two roads; its replies leave in the order they become ready.
//!
//! What is taken on is bounded, see [`Limits`], and what is refused is counted. A worker that is told to
//! drain closes its addresses, answers what it has received, and ends by its deadline. An address that stays through a
//! change of configuration keeps its socket and its queue.
//!
//! The room never decides what a reply says, with one exception: a question that made the resolver panic is answered
//! SERVFAIL here, and no other question notices. It binds no socket and reads no configuration beyond the timeouts of
//! a listen address.
//!
//! [`ReturnPath`]: crate::sys::sockaddr::ReturnPath

mod batch;
mod inbox;
mod io;
mod limits;
mod listeners;
mod local;
mod memory;
mod outbox;
mod stream;
mod tether;
mod worker;

pub use limits::{Limits, Places};
pub use listeners::Listener;
pub use worker::{Setup, Worker};
