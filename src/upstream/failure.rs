//! Why an exchange brought no response, worded as CoreDNS words it, because people grep their logs for that.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use nix::errno::Errno;

use crate::dns::Ede;

/// Why there is no response. The network ones describe the last attempt of the exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No answer in time.
    Timeout(Leg),
    /// The upstream's host says that nobody listens there (RST, or ICMP port unreachable).
    Refused(Leg),
    /// No route, or the network forbids it.
    Unreachable(Leg, Errno),
    /// The upstream ended the connection before it answered; no `Errno` means it was closed in order.
    Closed(Leg, Option<Errno>),
    /// The TLS handshake failed: an unknown authority, another name, no common version.
    Tls(Leg, Arc<str>),
    /// What came as the answer cannot be read.
    Malformed(Leg),
    /// This host could not send: no descriptors, no buffers, or a local rule forbids it.
    Local(Leg, Errno),
    /// Every connection to the upstream has as many queries in flight as it may.
    Busy(Leg),
    /// Every upstream is down.
    NoHealthy,
    /// More packets a second would go to upstreams than the process may send.
    Paced,
    /// More queries in progress than `max_concurrent` allows.
    Overloaded {
        /// The limit that was reached.
        limit: usize,
    },
}

/// The leg of the way on which an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leg {
    /// What was being done.
    pub stage: Stage,
    /// Over what.
    pub network: Network,
    /// Our end, where it is known.
    pub local: Option<SocketAddr>,
    /// The upstream.
    pub remote: SocketAddr,
}

/// What was being done when an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Opening a socket or a connection.
    Dial,
    /// Waiting for the answer.
    Read,
    /// Sending the query.
    Write,
}

/// What an attempt went over; also the `proto` label of the connection metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Network {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
}

/// The network causes, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// [`Failure::Timeout`].
    Timeout,
    /// [`Failure::Refused`].
    Refused,
    /// [`Failure::Unreachable`].
    Unreachable,
    /// [`Failure::Closed`].
    Closed,
    /// [`Failure::Tls`].
    Tls,
    /// [`Failure::Malformed`].
    Malformed,
    /// [`Failure::Local`], [`Failure::Busy`] and what concerns no single upstream.
    Local,
}

impl Network {
    /// Every network, in the order of their discriminants.
    pub(crate) const ALL: [Network; 3] = [Network::Udp, Network::Tcp, Network::Tls];

    /// `udp`, `tcp` or `tcp-tls`.
    pub fn name(self) -> &'static str {
        match self {
            Network::Udp => "udp",
            Network::Tcp => "tcp",
            Network::Tls => "tcp-tls",
        }
    }
}

impl Cause {
    /// Every cause, in the order of their discriminants.
    pub(crate) const ALL: [Cause; 7] =
        [Cause::Timeout, Cause::Refused, Cause::Unreachable, Cause::Closed, Cause::Tls, Cause::Malformed, Cause::Local];

    /// The value of a `reason` label.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Cause::Timeout => "timeout",
            Cause::Refused => "refused",
            Cause::Unreachable => "unreachable",
            Cause::Closed => "closed",
            Cause::Tls => "tls",
            Cause::Malformed => "malformed",
            Cause::Local => "local",
        }
    }
}

impl Failure {
    /// Sorts an error of a socket call.
    pub(crate) fn from_io(error: &io::Error, leg: Leg) -> Failure {
        let errno = error.raw_os_error().map(Errno::from_raw);
        match (error.kind(), errno) {
            (io::ErrorKind::ConnectionRefused, _) => Failure::Refused(leg),
            (io::ErrorKind::TimedOut, _) => Failure::Timeout(leg),
            (io::ErrorKind::UnexpectedEof, _) => Failure::Closed(leg, None),
            (io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe, errno) => {
                Failure::Closed(leg, errno)
            }
            (_, Some(errno @ (Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::ENETDOWN | Errno::EHOSTDOWN))) => {
                Failure::Unreachable(leg, errno)
            }
            (_, Some(errno)) => Failure::Local(leg, errno),
            // A TLS alert or a broken record reaches us as an error without a number.
            (_, None) if leg.network == Network::Tls => Failure::Tls(leg, error.to_string().into()),
            (_, None) => Failure::Local(leg, Errno::EIO),
        }
    }

    /// The Extended DNS Error that tells a client (RFC 8914 sections 4.1, 4.23 to 4.25).
    pub fn ede(&self) -> Ede {
        match self {
            Failure::Timeout(_) | Failure::NoHealthy => Ede::NO_REACHABLE_AUTHORITY,
            Failure::Refused(_)
            | Failure::Unreachable(..)
            | Failure::Closed(..)
            | Failure::Tls(..)
            | Failure::Local(..)
            | Failure::Busy(_) => Ede::NETWORK_ERROR,
            Failure::Malformed(_) => Ede::INVALID_DATA,
            Failure::Paced | Failure::Overloaded { .. } => Ede::OTHER,
        }
    }

    /// Under which cause it is counted.
    pub(crate) fn cause(&self) -> Cause {
        match self {
            Failure::Timeout(_) => Cause::Timeout,
            Failure::Refused(_) => Cause::Refused,
            Failure::Unreachable(..) => Cause::Unreachable,
            Failure::Closed(..) => Cause::Closed,
            Failure::Tls(..) => Cause::Tls,
            Failure::Malformed(_) => Cause::Malformed,
            Failure::Local(..)
            | Failure::Busy(_)
            | Failure::NoHealthy
            | Failure::Paced
            | Failure::Overloaded { .. } => Cause::Local,
        }
    }

    /// Whether it says that the upstream cannot be reached. A malformed answer does not: somebody there answers. What a
    /// local rule forbids does, but not that this host is short of something.
    pub(crate) fn blames_upstream(&self) -> bool {
        match self {
            Failure::Local(_, errno) => {
                !matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM | Errno::EAGAIN)
            }
            _ => !matches!(self.cause(), Cause::Local | Cause::Malformed),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Timeout(leg) => write!(out, "{leg}: i/o timeout"),
            Failure::Refused(leg) => write!(out, "{leg}: {}: connection refused", leg.call()),
            Failure::Unreachable(leg, errno) | Failure::Local(leg, errno) | Failure::Closed(leg, Some(errno)) => {
                write!(out, "{leg}: {}: {}", leg.call(), errno.desc().to_ascii_lowercase())
            }
            Failure::Closed(_, None) => out.write_str("EOF"),
            Failure::Tls(leg, reason) => write!(out, "{leg}: tls: {reason}"),
            Failure::Malformed(leg) => write!(out, "{leg}: malformed response"),
            Failure::Busy(leg) => write!(out, "{leg}: too many queries in flight"),
            Failure::NoHealthy => out.write_str("no healthy proxies"),
            Failure::Paced => out.write_str("too many packets to upstreams"),
            Failure::Overloaded { limit } => write!(out, "concurrent queries exceeded maximum {limit}"),
        }
    }
}

impl std::error::Error for Failure {}

impl Leg {
    /// The system call that Go names in its message.
    fn call(&self) -> &'static str {
        match self.stage {
            Stage::Dial => "connect",
            Stage::Read => "read",
            Stage::Write => "write",
        }
    }
}

impl fmt::Display for Leg {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let network = match self.network {
            Network::Udp => "udp",
            Network::Tcp | Network::Tls => "tcp",
        };
        match (self.stage, self.local) {
            (Stage::Dial, _) => write!(out, "dial {network} {}", self.remote),
            (_, None) => write!(out, "{} {network} {}", self.call(), self.remote),
            (_, Some(local)) => write!(out, "{} {network} {local}->{}", self.call(), self.remote),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leg(stage: Stage, network: Network) -> Leg {
        let local = (stage != Stage::Dial).then(|| "10.0.0.1:40000".parse().unwrap());
        Leg { stage, network, local, remote: "10.0.0.10:53".parse().unwrap() }
    }

    #[test]
    fn failures_read_as_coredns_words_them() {
        let refused = io::Error::from_raw_os_error(Errno::ECONNREFUSED as i32);
        let reset = io::Error::from_raw_os_error(Errno::ECONNRESET as i32);
        let no_route = io::Error::from_raw_os_error(Errno::EHOSTUNREACH as i32);
        let forbidden = io::Error::from_raw_os_error(Errno::EPERM as i32);
        for (error, stage, network, expected) in [
            (&refused, Stage::Dial, Network::Tcp, "dial tcp 10.0.0.10:53: connect: connection refused"),
            (&refused, Stage::Read, Network::Udp, "read udp 10.0.0.1:40000->10.0.0.10:53: read: connection refused"),
            (
                &reset,
                Stage::Read,
                Network::Tcp,
                "read tcp 10.0.0.1:40000->10.0.0.10:53: read: connection reset by peer",
            ),
            (&no_route, Stage::Dial, Network::Udp, "dial udp 10.0.0.10:53: connect: no route to host"),
            (
                &forbidden,
                Stage::Write,
                Network::Udp,
                "write udp 10.0.0.1:40000->10.0.0.10:53: write: operation not permitted",
            ),
        ] {
            assert_eq!(Failure::from_io(error, leg(stage, network)).to_string(), expected);
        }
        assert_eq!(
            Failure::Timeout(leg(Stage::Read, Network::Udp)).to_string(),
            "read udp 10.0.0.1:40000->10.0.0.10:53: i/o timeout"
        );
        assert_eq!(Failure::NoHealthy.to_string(), "no healthy proxies");
        assert_eq!(Failure::Overloaded { limit: 1000 }.to_string(), "concurrent queries exceeded maximum 1000");
    }

    #[test]
    fn a_full_host_does_not_blame_the_upstream() {
        let blames = |errno: Errno| {
            let error = io::Error::from_raw_os_error(errno as i32);
            Failure::from_io(&error, leg(Stage::Write, Network::Udp)).blames_upstream()
        };
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM] {
            assert!(!blames(errno), "{errno}");
        }
        for errno in [Errno::ECONNREFUSED, Errno::ENETUNREACH, Errno::EPERM, Errno::EACCES, Errno::ECONNRESET] {
            assert!(blames(errno), "{errno}");
        }
    }
}
