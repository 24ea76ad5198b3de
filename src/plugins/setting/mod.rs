//! Directives that set something up: what they may say, and what it means as values.

pub mod bind;
pub mod bufsize;
pub mod cache;
pub mod debug;
pub mod errors;
pub mod forward;
pub mod health;
pub mod loop_check;
pub mod pprof;
pub mod prometheus;
pub mod ready;
pub mod reload;
pub mod timeouts;
