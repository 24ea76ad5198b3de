//! Whole exchanges over real loopback sockets.

mod certificates;
mod choice;
mod datagrams;
mod edns;
mod forgery;
mod streams;
mod wrong;
