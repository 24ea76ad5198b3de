//! Questions in, responses out: the addresses of upstreams and the options of a `forward` line.

mod address;
pub mod spec;

pub use address::{Address, AddressError, Transport};
