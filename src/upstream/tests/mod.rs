//! Whole exchanges over real loopback sockets.

mod certificates;
mod choice;
mod datagrams;
mod streams;
mod wrong;
