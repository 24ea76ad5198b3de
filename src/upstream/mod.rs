//! Questions in, responses out: everything between a miss and the servers that know.
//!
//! In comes a `forward` line as a [`spec::PoolSpec`] with the addresses of its upstreams, and then, per miss, an
//! [`Ask`]: a complete query, until when it may be sent, and a deadline. Out goes an [`Exchanged`], a message that answers that very question, or a
//! [`Failure`] that reads like CoreDNS's and carries an Extended DNS Error.
//!
//! Example: `forward . 10.0.0.10 10.0.0.11` and the question `www.example.org A`. [`Pool::exchange`] shuffles the two
//! (`policy random`), leaves out what is down, and asks 10.0.0.11 from a new UDP socket on a random port with a random
//! ID. Its usual round trip passes without answer, so 10.0.0.10 is asked as well, and both sockets stay open. A message
//! with another ID arrives, is counted and ignored; then the answer comes, with TC=1. The question goes to the same
//! upstream over TCP, on a connection that all workers share, and what comes back is the response. Since 10.0.0.11 said
//! nothing, a check starts: `. NS` until it answers. After the third failure in a row it is down and passed by.
//!
//! UDP comes first, whatever the client used, unless the line says `force_tcp` or the upstream is `tls://`: a truncated
//! answer is completed over TCP before anybody sees it, which is what a TCP client needs (RFC 2181 section 9, RFC 9210
//! section 3). Where that fails, the other upstreams are asked over TCP. `prefer_udp` is therefore always true.
//!
//! How often a question is sent is bounded: twice per upstream and transport, six times in all; a TCP question whose
//! connection is lost goes out once more. All questions together are bounded as well ([`budget`]). What was learnt about an upstream is kept in [`Upstreams`], by address, TLS
//! identity and source address, so pools share it and a reload does not lose it.
//!
//! Trouble is learnt from queries first ([`health`]): three in a row that bring nothing put an upstream last at once.
//! [`check`] then finds out whether it is down. One that is down gets one packet a second; with all of them down every
//! other question fails without being sent.
//!
//! A server that answers over TCP and not over UDP, as behind a filter, is asked over TCP from then on, and UDP is tried
//! beside it now and then ([`silence`]).
//!
//! A message with everything right but records that cannot be read is no response. Over UDP a better one may follow, so
//! waiting goes on; on a connection it fails its attempt.
//!
//! A server that does not know EDNS is asked again without, in the same exchange, and without from the start for the next
//! quarter of an hour.
//!
//! The room never caches and never judges what a response says, RCODEs of `failover` and the TC bit excepted. It never
//! sends clear text where TLS was asked for.

mod address;
mod budget;
mod check;
mod edns;
mod exchange;
mod failure;
mod health;
mod notice;
mod pool;
mod registry;
mod selection;
mod server;
mod silence;
pub mod spec;
mod tally;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod transport;

pub use address::{Address, AddressError, Transport};
pub use exchange::Exchange;
pub use failure::{Failure, Leg, Network, Stage};
pub use pool::{Ask, BuildError, Exchanged, Pool};
pub use registry::Upstreams;
pub use server::Upstream;
pub use transport::tls::CertificateError;
