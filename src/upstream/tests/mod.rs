//! Whole exchanges over real loopback sockets.

mod choice;
mod datagrams;
mod streams;
