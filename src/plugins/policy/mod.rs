//! Plugins behind the cache: they shape what a miss is answered with.

pub mod autopath;
pub mod whoami;
