//! Bytes in, words of DNS out, and back.
//!
//! A datagram becomes a [`Query`]: one question, its name lower-cased, its OPT understood, or a reason why it is
//! [`Unfit`]. An upstream's message becomes a [`Response`]: the same records without OPT, names compressed anew, the
//! places of the TTLs noted. A response becomes a reply again by [`reply::write`]: copy, patch the ID, the question, the
//! flags and the TTLs, put our own OPT behind it.
//!
//! Example: `dig @127.0.0.1 WWW.example.org` gives a `Query` with `name()` `\x03www\x07example\x03org\x00` and
//! `spelling()` `\x03WWW…`. The kept response says `www`; the reply says `WWW` in its question, and so in every owner
//! name, because those are pointers to it.
//!
//! The room does no I/O and reads no clock, and neither `Query::parse` nor `reply::write` allocates.

pub mod codes;
pub mod convert;
pub mod edns;
pub mod header;
pub mod name;
pub mod question;
pub mod record;
pub mod reply;
pub mod response;

pub use codes::{Class, Ede, Protocol, Rcode, Type};
pub use edns::{Edns, Explained};
pub use name::{MAX_NAME, Name, NameError};
pub use question::{Query, Unfit};
pub use record::{Expanded, Record};
pub use response::{Builder, Response};
