//! What the tests stand on: an agent process (`agent`), the upstreams it asks (`upstream`, scripted, and `peers`, real
//! servers), the clients that ask it (`client`, `dig`), the program run as people do (`program`), and messages read and written apart from the product's own code
//! (`message`, `wire`).

pub mod address;
pub mod agent;
pub mod answer;
pub mod certificates;
pub mod cgroup;
pub mod chance;
pub mod client;
pub mod dig;
pub mod line;
pub mod message;
pub mod namespace;
pub mod peers;
pub mod process;
pub mod program;
pub mod time;
pub mod upstream;
pub mod wire;
pub mod wrong;

pub use agent::Agent;
pub use message::{Message, Query};
pub use upstream::Upstream;
