//! The `node` room: what the node should look like in, changes of the kernel's state out.
//!
//! The room never sees a DNS message; to it DNS is a list of addresses and a port.

mod desired;
pub mod firewall;
mod links;
#[cfg(test)]
mod namespace;
mod status;

pub use desired::{Desired, Rules};
pub use links::Links;
pub use status::{Action, Kind, Status, Trouble};
