//! What a service manager and its service say to each other: sd_notify(3) and sd_listen_fds(3) of systemd, which others
//! speak too. Everything begins with variables of the environment; without them nothing is said.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use socket2::SockRef;

/// The variables that are meant for one process, and not for its children.
pub const VARIABLES: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

/// The first descriptor that is handed over: SD_LISTEN_FDS_START.
const FIRST: RawFd = 3;

/// The service manager of this process, if it wants to hear of it.
#[derive(Debug, Default)]
pub struct Supervisor {
    socket: Option<UnixDatagram>,
    /// It ends this process when it hears nothing for so long.
    pub watchdog: Option<Duration>,
}

impl Supervisor {
    /// The one that the environment names. The error says which variable is wrong.
    pub fn from_environment() -> io::Result<Supervisor> {
        Supervisor::named(&|variable| std::env::var(variable).ok())
    }

    /// The same with these values of variables.
    ///
    /// # Errors
    /// A variable that cannot be used, by its name.
    pub fn named(environment: &dyn Fn(&str) -> Option<String>) -> io::Result<Supervisor> {
        let Some(name) = environment("NOTIFY_SOCKET") else { return Ok(Supervisor::default()) };
        let socket = connected(&name)
            .map_err(|error| io::Error::new(error.kind(), format!("NOTIFY_SOCKET={name} cannot be used: {error}")))?;
        let is_ours = environment("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let watchdog = environment("WATCHDOG_USEC").filter(|_| is_ours).map(|text| {
            let micros = text.parse().ok().filter(|micros| *micros > 0);
            let wrong = || io::Error::new(io::ErrorKind::InvalidInput, format!("WATCHDOG_USEC={text} is no time"));
            micros.map(Duration::from_micros).ok_or_else(wrong)
        });
        Ok(Supervisor { socket: Some(socket), watchdog: watchdog.transpose()? })
    }

    /// Whether anybody listens.
    pub fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// Says these lines, as in `READY=1`. False if they were not taken, which may be said again: nothing waits here.
    pub fn tell(&self, lines: &str) -> bool {
        self.socket.as_ref().is_none_or(|socket| socket.send(lines.as_bytes()).is_ok())
    }
}

/// Takes over the sockets that a service manager opened for this process (LISTEN_FDS), closed on exec from here on; none if
/// it did not, or did so for another process. To be called once, before this process opens anything. The error names the
/// descriptor that is no socket.
pub fn inherited() -> io::Result<Vec<OwnedFd>> {
    let variable = |name| std::env::var(name).ok();
    let is_ours = variable("LISTEN_PID").is_some_and(|pid| pid == std::process::id().to_string());
    let count = variable("LISTEN_FDS").filter(|_| is_ours).map_or(Ok(0), |text| {
        let wrong = |_| io::Error::new(io::ErrorKind::InvalidInput, format!("LISTEN_FDS={text} is no number"));
        text.parse::<u16>().map_err(wrong)
    })?;
    (FIRST..FIRST + RawFd::from(count)).map(take_over).collect()
}

fn take_over(number: RawFd) -> io::Result<OwnedFd> {
    let wrong = |error: io::Error| io::Error::new(error.kind(), format!("descriptor {number} of LISTEN_FDS: {error}"));
    // SAFETY: `number` is not -1, and nothing is read or written through the borrow; one that is not open, or no socket, is
    // answered with an error.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    SockRef::from(&borrowed).r#type().map_err(wrong)?;
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(|errno| wrong(errno.into()))?;
    // SAFETY: the descriptor is open and was opened for this process before it began; as the caller is told to ensure,
    // nothing else in it owns one of these numbers.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn connected(name: &str) -> io::Result<UnixDatagram> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_supervisor_hears_what_it_is_told_and_how_often_it_wants_to() {
        for name in
            ["@dnslet-test-supervisor".to_owned(), std::env::temp_dir().join("dnslet-supervisor").display().to_string()]
        {
            let name = format!("{name}-{}", std::process::id());
            let address = name.strip_prefix('@').map_or_else(
                || SocketAddr::from_pathname(&name).unwrap(),
                |name| SocketAddr::from_abstract_name(name).unwrap(),
            );
            let theirs = UnixDatagram::bind_addr(&address).unwrap();
            let environment = |variable: &str| match variable {
                "NOTIFY_SOCKET" => Some(name.clone()),
                "WATCHDOG_USEC" => Some("3000000".to_owned()),
                _ => None,
            };
            let supervisor = Supervisor::named(&environment).unwrap();
            assert_eq!(supervisor.watchdog, Some(Duration::from_secs(3)));
            assert!(supervisor.tell("READY=1\nSTATUS=x"));
            let mut heard = [0; 64];
            let length = theirs.recv(&mut heard).unwrap();
            assert_eq!(&heard[..length], b"READY=1\nSTATUS=x");
            let _ = std::fs::remove_file(&name);
        }
    }

    #[test]
    fn without_a_supervisor_nothing_is_said_and_a_wrong_one_is_named() {
        let nobody = Supervisor::named(&|_| None).unwrap();
        assert!(!nobody.is_there() && nobody.watchdog.is_none() && nobody.tell("READY=1"));
        let missing = |variable: &str| (variable == "NOTIFY_SOCKET").then(|| "/nowhere/at/all".to_owned());
        let error = Supervisor::named(&missing).unwrap_err().to_string();
        assert!(error.starts_with("NOTIFY_SOCKET=/nowhere/at/all cannot be used: "), "{error}");
        let another = |variable: &str| match variable {
            "WATCHDOG_PID" => Some("1".to_owned()),
            "WATCHDOG_USEC" => Some("1".to_owned()),
            _ => None,
        };
        assert_eq!(Supervisor::named(&another).unwrap().watchdog, None, "meant for another process");
    }
}
