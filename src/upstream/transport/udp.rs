//! One question over UDP: a socket of its own on a random port, with a random ID.
//!
//! Port and ID together are what a forger has to guess (RFC 5452 section 9.2), so neither is used twice on purpose.
//! The socket is connected: the kernel drops what comes from anywhere else, and reports an ICMP refusal at once.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll, ready};

use nix::errno::Errno;
use rand::RngExt;
use socket2::{Domain, Socket, Type};

use super::{Event, accept, cut};
use crate::dns::header;
use crate::sys::datagram::Datagram;
use crate::upstream::failure::{Failure, Leg, Network, Stage};
use crate::upstream::tally::{Mismatch, Tally};

/// The largest answer taken as it is. We advertise far less (RFC 9715 section 3), so larger ones are cut.
const LARGEST: usize = 4096;
/// Source ports are drawn from here to 65535.
const FIRST_PORT: u16 = 1024;
/// How often another port is drawn when one is in use, before the kernel is asked for any.
const PORT_DRAWS: usize = 5;
/// As many wrong messages look like guessing: the question goes over TCP (RFC 5452 section 9.3).
const WRONG_LIMIT: u32 = 8;

/// A question that waits for its answer on a socket of its own.
pub(crate) struct Question {
    socket: Datagram,
    id: u16,
    remote: SocketAddr,
}

impl Question {
    /// Sends `query`, with another ID, to `remote`.
    pub(crate) fn ask(query: &[u8], remote: SocketAddr, source: Option<IpAddr>) -> Result<Question, Failure> {
        let leg = |stage| Leg { stage, network: Network::Udp, local: None, remote };
        let socket = open(remote, source).map_err(|error| Failure::from_io(&error, leg(Stage::Dial)))?;
        let id: u16 = rand::rng().random();
        let sent = socket.send_vectored(&[IoSlice::new(&id.to_be_bytes()), IoSlice::new(&query[2..])]);
        match sent {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(Failure::Local(leg(Stage::Write), Errno::ENOBUFS));
            }
            Err(error) => return Err(Failure::from_io(&error, leg(Stage::Write))),
        }
        let socket = Datagram::new(socket.into()).map_err(|error| Failure::from_io(&error, leg(Stage::Dial)))?;
        Ok(Question { socket, id, remote })
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>, query: &[u8], tally: &Tally, wrong: &mut u32) -> Poll<Event> {
        while *wrong < WRONG_LIMIT {
            // One octet more than the largest, so that a longer answer can be told from one that just fits.
            let mut buffer = [0; LARGEST + 1];
            let length = match ready!(self.socket.poll_recv(cx, &mut buffer)) {
                Ok(length) => length,
                Err(error) => return Poll::Ready(Event::Failed(Failure::from_io(&error, self.leg()))),
            };
            if length > LARGEST {
                // Its end is missing here, whatever the server meant.
                buffer[2] |= header::TC;
            }
            match accept(query, self.id, &buffer[..length]) {
                Ok(mut answer) => {
                    if length > LARGEST {
                        cut(query, &mut answer);
                    }
                    return Poll::Ready(Event::Answer(answer));
                }
                Err(reason) => {
                    tally.mismatch(reason);
                    *wrong += 1;
                    if reason == Mismatch::Malformed {
                        return Poll::Ready(Event::Spoiled);
                    }
                }
            }
        }
        Poll::Ready(Event::Forged)
    }

    pub(super) fn leg(&self) -> Leg {
        Leg { stage: Stage::Read, network: Network::Udp, local: self.socket.local_addr().ok(), remote: self.remote }
    }
}

/// A non-blocking socket on a random port, connected to `remote`.
fn open(remote: SocketAddr, source: Option<IpAddr>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(remote), Type::DGRAM.nonblocking().cloexec(), None)?;
    let any: IpAddr = match remote {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let local = source.filter(|source| source.is_ipv4() == remote.is_ipv4()).unwrap_or(any);
    let mut random = rand::rng();
    let bound = (0..PORT_DRAWS).any(|_| {
        let port = random.random_range(FIRST_PORT..=u16::MAX);
        socket.bind(&SocketAddr::new(local, port).into()).is_ok()
    });
    if !bound {
        socket.bind(&SocketAddr::new(local, 0).into())?;
    }
    socket.connect(&remote.into())?;
    Ok(socket)
}
