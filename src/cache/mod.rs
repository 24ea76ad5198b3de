//! Responses kept in memory.
//!
//! In come a key (a question of a route), a response and the limits of the route's `cache` directive; out comes the
//! [`Entry`] again, fresh or expired: the caller has the time and decides. [`lifetime::of`] says whether a response may be
//! kept, in which class and for how long.
//!
//! Example: `A web.example.org` answered with TTL 300 in a block with `cache 30`: `lifetime::of` gives 30 s in
//! [`Class::Success`]; the entry goes into the one [`Cache`] of the process under the key made of the route's
//! fingerprint, name, type, class and bits. Three bounds hold: the octets of the whole cache (the least valuable entries
//! of any route go, as quick_cache judges), CAPACITY of the route and class ([`Quota`]), and a quarter of the octets for
//! negative entries of all routes together.
//!
//! [`Beneath`] says which names have names beneath them, so that a denial of one of those is not taken for more than it is.
//!
//! The room knows no Corefile, no upstream and no clock.

mod beneath;
mod entry;
mod key;
pub mod lifetime;
mod quota;
pub mod settings;
mod store;

pub use beneath::Beneath;
pub use entry::Entry;
pub use key::{HashedAlready, Key, KeyRef};
pub use lifetime::{Class, Lifetime};
pub use quota::Quota;
pub use settings::Settings;
pub use store::Cache;

#[cfg(test)]
mod tests;
