//! dnslet: a per-node DNS cache agent. The rooms, in import order: a room may import only rooms above it
//! (docs/architecture.md, "Rooms").

pub mod sys;

pub mod dns;

pub mod observe;

pub mod corefile;

pub mod cache;

pub mod upstream;

pub mod plugins;

pub mod routes;

pub mod resolve;

pub mod serve;

pub mod node;

pub mod life;

pub mod cli;
