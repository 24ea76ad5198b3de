//! What the keeper and the server say to each other, and the two ends of the line.
//!
//! Two socketpairs. On one the server asks and waits for the reply, which may bring descriptors. On the other the keeper
//! tells news. Signals are passed on as signals. Both processes are the same program, so messages need no version.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream as StdStream;
use std::str::FromStr;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::dns::Protocol;
use crate::life::last::Last;
use crate::node::Status;
use crate::observe::probe::Failure;
use crate::sys::channel;

/// Octets of one message at most; both ends refuse more.
const LARGEST: usize = 128 << 10;
/// Descriptors in one message.
const DESCRIPTORS: usize = channel::DESCRIPTORS;
/// The keeper answers within milliseconds. Longer means that it hangs, and a server without it is of no use.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the server asks the keeper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Request {
    /// One UDP socket for each worker and one listening TCP socket.
    Dns {
        /// Where.
        address: SocketAddr,
        /// How many UDP sockets.
        workers: usize,
    },
    /// One listening TCP socket for HTTP.
    Http(SocketAddr),
    /// A configuration is in force, and its listeners are served. The keeper closes every other socket that it holds, and
    /// replies when clients are no longer brought to the addresses that are not listed.
    Serving(Serving),
    /// What there is to be read as configuration cannot be used, and why; `None` once it can. What was in force serves on.
    Faulty(Option<String>),
    /// Hold what is in force for the next server; without one, hold none.
    Keep(Option<Last>),
    /// What was in force with the server before.
    Recall,
    /// Write this Corefile to the file that the command line names.
    Write(String),
    /// The server ends with this exit code because it was told to or cannot start: there is no point in another one.
    Leaving(u8),
}

/// What a configuration means for the node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Serving {
    /// The listen addresses of DNS.
    pub(super) listens: Vec<SocketAddr>,
    /// Those that the configuration has besides, and that could not be had.
    pub(super) missing: Vec<SocketAddr>,
    /// The listen addresses of HTTP.
    pub(super) http: Vec<SocketAddr>,
    /// Those of HTTP that could not be had.
    pub(super) missing_http: Vec<SocketAddr>,
    /// The addresses that the cluster's zone is forwarded to.
    pub(super) cluster: Vec<SocketAddr>,
    /// How long the server goes on serving after it was told to stop.
    pub(super) lameduck: Duration,
}

/// What the keeper replies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Reply {
    /// The descriptors that were asked for, UDP first.
    Sockets {
        /// No interface has the address yet.
        absent: bool,
        /// Another process that answers at the address as well.
        sharer: Option<String>,
        /// Another message with more of them follows.
        more: bool,
    },
    /// What was to be held for this server.
    Recalled(Option<Last>),
    /// Done.
    Done,
    /// Not done; a sentence for the operator.
    Refused(String),
}

/// What the keeper tells the server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum News {
    /// The state of the node and of the server's life.
    Kept(Kept),
    /// What the listening sockets answered when they were asked.
    Probed(Vec<Probed>),
}

/// What the keeper did and sees.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// The node; `None` where it is not ours to set up.
    pub(super) node: Option<Status>,
    /// How often the server was started again because it had ended.
    pub(super) died: u64,
    /// How often it was ended and started again because it did not answer.
    pub(super) wedged: u64,
    /// Clients are sent elsewhere because the server does not answer.
    pub(super) failing_open: bool,
    /// How long that was so in all, in seconds.
    pub(super) open_seconds: f64,
}

/// The answer of one socket to one probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Probed {
    /// The address that was asked.
    pub(super) listen: SocketAddr,
    /// Over TCP, not UDP.
    pub(super) tcp: bool,
    /// How long the answer took, or why there is none.
    pub(super) result: Result<Duration, Failure>,
}

impl Probed {
    /// The transport that was used.
    pub(super) fn protocol(&self) -> Protocol {
        if self.tcp { Protocol::Tcp } else { Protocol::Udp }
    }
}

/// The numbers of the descriptors that are the server's ends: for its requests, and for news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// For requests.
    pub requests: RawFd,
    /// For news.
    pub news: RawFd,
    /// The keeper's process.
    pub parent: u32,
}

impl FromStr for Ends {
    type Err = String;

    fn from_str(text: &str) -> Result<Ends, String> {
        let mut numbers = text.split(',');
        let mut number = || numbers.next()?.parse::<u32>().ok();
        let ends = (|| Some((number()?, number()?, number()?)))();
        let (requests, news, parent) = ends.ok_or("`dnslet server` is what dnslet starts by itself; start dnslet")?;
        Ok(Ends { requests: requests as RawFd, news: news as RawFd, parent })
    }
}

impl fmt::Display for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{}", self.requests, self.news, self.parent)
    }
}

/// The sockets of one address, as the keeper hands them over.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) udp: Vec<UdpSocket>,
    pub(super) tcp: TcpListener,
    pub(super) absent: bool,
    pub(super) sharer: Option<String>,
}

/// The server's end: it asks and waits.
#[derive(Debug)]
pub(super) struct Keeper {
    requests: OwnedFd,
    /// A request went wrong on its way. Its reply may still come and would be taken for the next one's, so there is no next.
    broken: Cell<bool>,
}

impl Keeper {
    /// Takes over the descriptor that the keeper left for its child.
    pub(super) fn adopt(number: RawFd) -> io::Result<Keeper> {
        Keeper::over(channel::adopt(number)?, PATIENCE)
    }

    fn over(requests: OwnedFd, patience: Duration) -> io::Result<Keeper> {
        channel::set_timeout(requests.as_fd(), patience)?;
        Ok(Keeper { requests, broken: Cell::new(false) })
    }

    /// The line is of no use any more: the server has to end, and the keeper starts one with a fresh line.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// The sockets for DNS at this address. The error is a sentence for the operator.
    pub(super) fn dns(&self, address: SocketAddr, workers: usize) -> Result<Granted, String> {
        self.sockets(&Request::Dns { address, workers })
    }

    /// The listening socket for HTTP at this address. The error is a sentence for the operator.
    pub(super) fn http(&self, address: SocketAddr) -> Result<TcpListener, String> {
        self.sockets(&Request::Http(address)).map(|granted| granted.tcp)
    }

    /// Says what is in force.
    pub(super) fn serving(&self, serving: Serving) -> Result<(), String> {
        self.done(&Request::Serving(serving))
    }

    /// Says what is wrong with the configuration that there is to be read, if anything is.
    pub(super) fn faulty(&self, fault: Option<String>) -> Result<(), String> {
        self.done(&Request::Faulty(fault))
    }

    /// Leaves with it what is in force.
    pub(super) fn keep(&self, last: Option<Last>) -> Result<(), String> {
        self.done(&Request::Keep(last))
    }

    /// What the server before left; nothing for the first one.
    pub(super) fn recall(&self) -> Result<Option<Last>, String> {
        self.send(&Request::Recall)?;
        match self.receive()? {
            (Reply::Recalled(last), _) => Ok(last),
            _ => Err(self.lost("it did not say what was in force")),
        }
    }

    /// Has the text written to the file of `-conf`.
    pub(super) fn write(&self, text: &str) -> Result<(), String> {
        self.done(&Request::Write(text.to_owned()))
    }

    /// Says that this end is meant.
    pub(super) fn leaving(&self, code: u8) -> Result<(), String> {
        self.done(&Request::Leaving(code))
    }

    fn done(&self, request: &Request) -> Result<(), String> {
        self.send(request)?;
        match self.receive()? {
            (Reply::Done, _) => Ok(()),
            (Reply::Refused(sentence), _) => Err(sentence),
            _ => Err(self.lost("it replied to something else")),
        }
    }

    fn sockets(&self, request: &Request) -> Result<Granted, String> {
        self.send(request)?;
        let mut all = Vec::new();
        loop {
            match self.receive()? {
                (Reply::Sockets { more: true, .. }, descriptors) => all.extend(descriptors),
                (Reply::Sockets { absent, sharer, more: false }, descriptors) => {
                    all.extend(descriptors);
                    let tcp = all.pop().ok_or_else(|| self.lost("it sent no socket"))?.into();
                    return Ok(Granted { udp: all.into_iter().map(Into::into).collect(), tcp, absent, sharer });
                }
                (Reply::Refused(sentence), _) => return Err(sentence),
                _ => return Err(self.lost("it sent no sockets")),
            }
        }
    }

    fn send(&self, request: &Request) -> Result<(), String> {
        if self.is_broken() {
            return Err("the line to the keeper is broken".to_owned());
        }
        let bytes = message(request).map_err(|error| format!("the keeper cannot be asked: {error}"))?;
        match channel::send(self.requests.as_fd(), &bytes, &[]) {
            // More than this kernel's buffers take: nothing was sent.
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                Err(format!("the keeper cannot be asked: {error}"))
            }
            sent => sent.map_err(|error| self.lost(error)),
        }
    }

    fn receive(&self) -> Result<(Reply, Vec<OwnedFd>), String> {
        let received = receive(self.requests.as_fd()).map_err(|error| self.lost(error))?;
        received.ok_or_else(|| self.lost("it has ended"))
    }

    fn lost(&self, why: impl fmt::Display) -> String {
        self.broken.set(true);
        format!("the line to the keeper is broken: {why}")
    }
}

/// One end of the line inside a runtime: the keeper's ends of both pairs, and the server's end of the news.
#[derive(Debug)]
pub(super) struct Line {
    stream: UnixStream,
}

impl Line {
    /// Must be called inside a runtime.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Line> {
        let stream = StdStream::from(socket);
        stream.set_nonblocking(true)?;
        Ok(Line { stream: UnixStream::from_std(stream)? })
    }

    /// The next message with its descriptors; `None` when the other end is gone. Safe to cancel.
    pub(super) async fn next<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        loop {
            self.stream.readable().await?;
            match self.stream.try_io(Interest::READABLE, || receive(self.stream.as_fd())) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => return received,
            }
        }
    }

    /// Sends without waiting. News that find the other end too busy to read are lost: newer ones follow.
    pub(super) fn tell<T: Serialize>(&self, message: &T) -> io::Result<()> {
        send(self.stream.as_fd(), message, &[])
    }

    /// Replies with descriptors, in several messages where there are many. The other end waits for them, so its buffer
    /// is empty and has room for all.
    pub(super) fn grant(&self, absent: bool, sharer: Option<&str>, all: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut chunks = all.chunks(DESCRIPTORS).peekable();
        while let Some(chunk) = chunks.next() {
            let reply = Reply::Sockets { absent, sharer: sharer.map(str::to_owned), more: chunks.peek().is_some() };
            send(self.stream.as_fd(), &reply, chunk)?;
        }
        Ok(())
    }
}

fn send<T: Serialize>(socket: BorrowedFd<'_>, told: &T, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    channel::send(socket, &message(told)?, descriptors)
}

fn message<T: Serialize>(told: &T) -> io::Result<Vec<u8>> {
    let bytes = serde_json::to_vec(told)?;
    if bytes.len() > LARGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"));
    }
    Ok(bytes)
}

fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut buffer = vec![0; LARGEST];
    let Some((length, descriptors)) = channel::receive(socket, &mut buffer)? else { return Ok(None) };
    Ok(Some((serde_json::from_slice(&buffer[..length])?, descriptors)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_reply_is_not_taken_for_the_next_one() {
        let (ours, theirs) = channel::pair().unwrap();
        let keeper = Keeper::over(ours, Duration::from_millis(1)).unwrap();
        keeper.leaving(0).expect_err("nobody has replied");
        send(theirs.as_fd(), &Reply::Done, &[]).unwrap();
        assert!(keeper.is_broken());
        keeper.leaving(0).expect_err("this reply is another request's");
    }

    #[test]
    fn what_is_too_long_is_not_sent_and_breaks_nothing() {
        let (ours, theirs) = channel::pair().unwrap();
        let keeper = Keeper::over(ours, Duration::from_secs(60)).unwrap();
        let error = keeper.write(&"x".repeat(LARGEST)).unwrap_err();
        assert!(error.contains("too long"), "{error}");
        send(theirs.as_fd(), &Reply::Done, &[]).unwrap();
        keeper.leaving(0).unwrap();
    }
}
