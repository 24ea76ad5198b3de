//! The question whether the agent of this pod is ready: asked by a probe that runs beside it, answered by its keeper.
//!
//! The keeper listens on an abstract Unix socket (unix(7)), which is seen in the whole network namespace: with the host's
//! network, by the agents of other pods too. Its name says whose it is, by pid namespace and pid, so that a probe finds its
//! own without being told, in a container with a read-only root as well. Root and the keeper's user are sent one line when they
//! connect, and nobody else is.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener, UnixStream as StdStream};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};

use crate::sys::{clock, process};

/// What the names of such sockets begin with.
const PREFIX: &str = "dnslet/ready/";

/// Octets of a line, its newline among them; a longer one is cut. A new connection's buffer takes it whole.
pub(super) const LONGEST: usize = 2048;

/// How a line begins that says that all is as it should be.
pub const READY: &str = "ready: ";
/// How a line begins that says that the agent runs, and something is not as it should be.
pub const NOT_READY: &str = "not ready: ";
/// How a line begins that says that no server has served yet.
pub const STARTING: &str = "starting: ";

/// The keeper's end.
#[derive(Debug)]
pub(super) struct Inquiries {
    /// `None` where there could be none, which was said.
    listener: Option<UnixListener>,
}

/// Somebody who asked.
#[derive(Debug)]
pub(super) struct Inquirer(UnixStream);

impl Inquiries {
    /// Listens under the name of this process. Must be called inside a runtime.
    pub(super) fn open() -> Inquiries {
        let listener = listen().inspect_err(|error| {
            tracing::warn!("`dnslet ready` gets no answer from this agent, whose socket for it cannot be had: {error}");
        });
        Inquiries { listener: listener.ok() }
    }

    /// Waits for the next one who asks. Safe to cancel.
    pub(super) async fn next(&self) -> Inquirer {
        let Some(listener) = &self.listener else { return std::future::pending().await };
        loop {
            // One that has hung up already is not waited for; where descriptors have run out, it asks again.
            match listener.accept().await {
                Ok((stream, _)) if may_ask(&stream) => return Inquirer(stream),
                // Anybody in the network namespace can connect. Who has no say on this agent learns nothing of it.
                Ok(_) => {}
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Says the same to everybody from here on, while the keeper is busy with its end.
    pub(super) fn repeat(&mut self, line: &'static str) {
        let inquiries = Inquiries { listener: self.listener.take() };
        tokio::spawn(async move {
            loop {
                inquiries.next().await.tell(line);
            }
        });
    }
}

impl Inquirer {
    /// Sends one line and hangs up. Nothing is waited for.
    pub(super) fn tell(self, line: &str) {
        let _ = self.0.try_write(bounded(line).as_bytes());
    }
}

fn may_ask(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| is_trusted(peer.uid()))
}

/// Root, and the user of this process.
fn is_trusted(user: u32) -> bool {
    user == 0 || user == nix::unistd::geteuid().as_raw()
}

/// One line of so many octets at most, with its newline.
fn bounded(line: &str) -> String {
    const CUT: &str = " ...";
    let mut text = line.replace('\n', " ");
    if text.len() >= LONGEST {
        text.truncate(text.floor_char_boundary(LONGEST - CUT.len() - 1));
        text.push_str(CUT);
    }
    text + "\n"
}

fn listen() -> io::Result<UnixListener> {
    let name = name(process::pid_namespace()?, std::process::id());
    let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

fn name(namespace: u64, keeper: u32) -> String {
    format!("{PREFIX}{namespace}/{keeper}")
}

/// The keepers that can be asked in this network namespace.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Keepers {
    /// Those of this pid namespace, by their pids.
    pub here: Vec<u32>,
    /// How many there are in others: in other pods.
    pub elsewhere: usize,
}

impl Keepers {
    /// Looks for them. The error is that the kernel does not tell.
    pub fn find() -> io::Result<Keepers> {
        Ok(Keepers::listed(&fs::read_to_string("/proc/net/unix")?, process::pid_namespace()?))
    }

    fn listed(table: &str, namespace: u64) -> Keepers {
        let mut keepers = Keepers::default();
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // Connections of such a socket bear its name too; __SO_ACCEPTCON is the flag of those that listen.
            let [_, _, _, "00010000", _, _, _, path] = fields[..] else { continue };
            let Some((of, pid)) = path.strip_prefix('@').and_then(|path| path.strip_prefix(PREFIX)?.split_once('/'))
            else {
                continue;
            };
            match (of.parse() == Ok(namespace), pid.parse()) {
                (true, Ok(pid)) => keepers.here.push(pid),
                (false, Ok(_)) => keepers.elsewhere += 1,
                (_, Err(_)) => {}
            }
        }
        keepers
    }
}

/// Asks the keeper with this pid, and returns its line. The error is a sentence.
pub fn ask(keeper: u32, patience: Duration) -> Result<String, String> {
    let silent = |error: &io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => format!("the agent does not answer within {patience:?}"),
        io::ErrorKind::ConnectionRefused => "the agent has just ended".to_owned(),
        _ => format!("the agent cannot be asked: {error}"),
    };
    let stream = connect(keeper, patience).map_err(|error| silent(&error))?;
    is_keeper(&stream, keeper)?;
    let mut line = String::new();
    stream.take(LONGEST as u64).read_to_string(&mut line).map_err(|error| silent(&error))?;
    match line.strip_suffix('\n') {
        Some(line) => Ok(line.to_owned()),
        None => Err("the agent hung up without an answer, which it gives to root and to its own user".to_owned()),
    }
}

/// Both steps together, to connect and to wait for the line, take no longer than `patience`.
fn connect(keeper: u32, patience: Duration) -> io::Result<StdStream> {
    let begun = clock::now();
    let name = format!("\0{}", name(process::pid_namespace()?, keeper));
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Where many wait to be accepted, to connect is to wait.
    socket.set_write_timeout(Some(patience))?;
    socket.connect(&SockAddr::unix(OsStr::from_bytes(name.as_bytes()))?)?;
    let left = patience.saturating_sub(clock::now().saturating_duration_since(begun));
    // Zero would mean for ever.
    socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
    Ok(socket.into())
}

/// Anybody in the network namespace may take a free name: who listens must be the process of that number, and of a user
/// whom we have to trust anyway.
fn is_keeper(stream: &StdStream, keeper: u32) -> Result<(), String> {
    let peer = getsockopt(stream, PeerCredentials).map_err(|error| format!("the agent cannot be asked: {error}"))?;
    match is_trusted(peer.uid()) && u32::try_from(peer.pid()) == Ok(keeper) {
        true => Ok(()),
        false => Err(format!(
            "the socket that bears the name of the agent (pid {keeper}) is that of pid {}, uid {}",
            peer.pid(),
            peer.uid()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keepers_of_this_pod_are_told_from_those_of_others() {
        let table = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 32345 @dnslet/ready/4026531836/812\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 32346 @dnslet/ready/4026531836/812\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 32347 @dnslet/ready/4026532999/1\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 32348 @dnslet/ready/4026531836/x\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 32349 /run/dnslet/ready/4026531836/3\n\
            0000000000000000: 00000002 00000000 00000000 0002 01 32350\n";
        assert_eq!(Keepers::listed(table, 4_026_531_836), Keepers { here: vec![812], elsewhere: 1 });
    }

    #[test]
    fn a_line_is_one_line_and_bounded() {
        assert_eq!(bounded("ready: a\nb"), "ready: a b\n");
        let long = bounded(&"ä".repeat(LONGEST));
        assert!(long.len() <= LONGEST && long.ends_with("ä ...\n"), "{}", long.len());
    }

    #[test]
    fn who_listens_without_an_answer_is_not_waited_for_and_a_stranger_is_not_heard() {
        let patience = Duration::from_millis(20);
        // The name of another process, taken by this one.
        let name = name(process::pid_namespace().unwrap(), 1);
        let _stranger = StdListener::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap();
        let heard = ask(1, patience).unwrap_err();
        assert!(heard.contains(&format!("is that of pid {}", std::process::id())), "{heard}");
        assert_eq!(Keepers::find().unwrap().here.iter().filter(|pid| **pid == 1).count(), 1);

        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let inquiries = runtime.block_on(async { Inquiries::open() });
        let hung = ask(std::process::id(), patience).unwrap_err();
        assert_eq!(hung, "the agent does not answer within 20ms");
        let told = runtime.block_on(async {
            let asking = tokio::task::spawn_blocking(|| ask(std::process::id(), Duration::from_secs(10)));
            inquiries.next().await.tell("to one who has hung up");
            inquiries.next().await.tell("ready: all of it");
            asking.await.unwrap()
        });
        assert_eq!(told.unwrap(), "ready: all of it");
    }
}
