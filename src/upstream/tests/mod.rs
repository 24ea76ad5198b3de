//! Whole exchanges over real loopback sockets.

mod certificates;
mod choice;
mod datagrams;
mod edns;
mod forgery;
mod stalls;
mod streams;
mod wrong;
