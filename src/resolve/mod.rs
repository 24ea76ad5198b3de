//! A query in, a reply out.
//!
//! [`Resolver`] is the snapshot that workers read: the compiled routes with their pools, quotas and meters. It changes
//! only as a whole, by a new one being published in [`Shared`]. `serve` hands each message to [`Resolver::answer`], which
//! runs without waiting and gives back a [`Verdict`]: the reply, silence, or a [`Miss`] to be awaited.
//!
//! Example: `A web.example.org` from a pod. `answer` parses it and finds the block `.`; `lookup` makes the key and asks
//! the cache. It is there: the entry is copied into the reply, ID, spelling and TTLs patched, done. It has expired, and
//! everybody who could be asked is down: the same, as a stale reply. The question failed a moment ago, and [`Failures`]
//! remembers how: that failure again. Otherwise it is a [`Miss`]. Awaited, it joins the flight of that key; the first one
//! there starts it: a [`Resolution`], a state machine without I/O, says which pool to ask and is told what came back;
//! `accept` takes from it what belongs to the question, `settle` stores it, and the flight lands for everyone who waits. A
//! refresh is a miss that nobody waits for.
//!
//! The first name of a search list takes a road of its own (`autopath`): several such questions, one reply ([`Walk`]).
//!
//! The room never touches a client's socket.

mod accept;
mod answer;
mod asked;
mod autopath;
mod awaited;
mod bits;
mod cut;
mod drive;
mod failures;
mod flights;
mod gate;
mod lookup;
mod loopguard;
mod miss;
mod outcome;
mod party;
mod querylog;
mod resolution;
mod resolver;
mod settle;
mod shuffle;
mod way;
mod whoami;

pub use accept::{Mismatch, accept};
pub use answer::Verdict;
pub use asked::Asked;
pub use autopath::{About, End, LONGEST as LONGEST_FIRST, Subject, Told, ToldName, Walk, Walks};
pub use awaited::Awaited;
pub use bits::Bits;
pub use failures::Failures;
pub use flights::Flights;
pub use gate::ClientPolicy;
pub use loopguard::LoopGuard;
pub use miss::{Landed, Miss};
pub use outcome::{Cause, Failed, Outcome};
pub use party::Bounds;
pub use resolution::{Effect, Event, Resolution};
pub use resolver::{Parts, Resolver, Shared};
pub use way::Client;

#[cfg(test)]
mod tests;
