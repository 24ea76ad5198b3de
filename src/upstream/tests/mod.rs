//! Whole exchanges over real loopback sockets.

mod certificates;
mod choice;
mod datagrams;
mod edns;
mod filtered;
mod forgery;
mod limits;
mod outage;
mod stalls;
mod standing;
mod streams;
mod trouble;
mod wrong;
