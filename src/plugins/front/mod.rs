//! Plugins in front of the cache: they see every reply, hits included, and work on wire bytes.

pub mod aaaa;
pub mod format;
pub mod loadbalance;
pub mod log;
pub mod weights;
