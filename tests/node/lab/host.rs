//! One network namespace of the lab, and commands run in it.

use std::fs::File;
use std::io::Write;
use std::panic::resume_unwind;
use std::process::{Command, Stdio};
use std::thread;

use nix::sched::{CloneFlags, setns};

/// A network namespace by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host(pub &'static str);

impl Host {
    pub fn make(self) {
        run(Command::new("ip").args(["netns", "add", self.0]));
        // Without detection of duplicates an IPv6 link works as soon as it is up, as those of a node long have.
        for links in ["all", "default"] {
            self.sysctl(&format!("net/ipv6/conf/{links}/accept_dad"), "0");
        }
        self.ip("link set lo up");
    }

    /// Runs the closure on a thread that has moved into the namespace. What it starts stays there; a socket it makes
    /// belongs there, wherever it is used afterwards.
    #[track_caller]
    pub fn run<T: Send>(self, work: impl FnOnce() -> T + Send) -> T {
        let done = thread::scope(|scope| {
            let moved = scope.spawn(|| {
                self.enter();
                work()
            });
            moved.join()
        });
        done.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Moves the calling thread into the namespace.
    pub fn enter(self) {
        let name = File::open(format!("/run/netns/{}", self.0)).expect("a namespace that was made");
        setns(name, CloneFlags::CLONE_NEWNET).expect("the private user namespace may");
    }

    /// `ip` with these words.
    #[track_caller]
    pub fn ip(self, words: &str) -> String {
        run(Command::new("ip").args(["-n", self.0]).args(words.split(' ')))
    }

    /// A command of words without spaces inside them; returns what it prints and fails if it fails.
    #[track_caller]
    pub fn command(self, words: &str) -> String {
        let mut words = words.split(' ');
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words);
        self.run(|| run(&mut command))
    }

    /// A command that must fail; returns what it says.
    #[track_caller]
    pub fn refused(self, words: &str) -> String {
        let mut words = words.split(' ');
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words);
        let output = self.run(|| command.output()).unwrap_or_else(|error| missing(&command, &error));
        assert!(!output.status.success(), "{command:?} was not refused");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// A program that reads its orders from standard input.
    #[track_caller]
    pub fn feed(self, words: &str, text: &str) {
        let mut words = words.split(' ');
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words);
        self.run(|| feed(&mut command, text));
    }

    /// nft with this script.
    #[track_caller]
    pub fn nft(self, script: &str) {
        self.feed("nft -f -", script);
    }

    /// Writes a kernel parameter, its name with slashes.
    #[track_caller]
    pub fn sysctl(self, name: &str, value: &str) {
        self.run(|| std::fs::write(format!("/proc/sys/{name}"), value))
            .unwrap_or_else(|error| panic!("{name} = {value}: {error}"));
    }
}

/// Runs a command to its end and returns what it prints; fails if it fails.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| missing(command, &error));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {printed}{}", String::from_utf8_lossy(&output.stderr));
    printed
}

#[track_caller]
fn feed(command: &mut Command, text: &str) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| missing(command, &error));
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("a program that reads");
    let output = child.wait_with_output().expect("our own child");
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {printed}\n{text}");
}

#[track_caller]
fn missing(command: &Command, error: &std::io::Error) -> ! {
    panic!("{command:?}: {error}; apt-get install iproute2 nftables iptables conntrack strace util-linux mount")
}
