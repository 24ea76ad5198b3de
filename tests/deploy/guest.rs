//! A Debian with its own systemd, booted in a second, for tests of what is installed on a machine.
//!
//! ```text
//!   outside 198.18.0.1 --- eth0 198.18.0.2 the guest
//!   nsd, cluster.local                     its resolv.conf: nameserver 198.18.0.1
//! ```
//!
//! ```ignore
//! let guest = Guest::boot();                                  // a copy of its own: nothing is left of it afterwards
//! guest.install(env!("CARGO_BIN_EXE_dnslet"), "/usr/bin/dnslet");
//! guest.write("/etc/dnslet/Corefile", "...");
//! guest.run("systemctl start dnslet");                        // a line of shell; fails with what it printed
//! let (code, printed) = guest.tries("dnslet host status");    // the same where failure is an answer
//! guest.enter(|| Udp::to(server).ask(&query));                // here, with the guest's network
//! guest.reboot();
//! ```
//!
//! The root is made once by debootstrap, in target/guest; `systemd-nspawn` boots it on a copy in memory. The journal is
//! in memory too, and goes on over a reboot only where /var/log/journal is made first.

#[path = "../node/lab/load.rs"]
#[allow(clippy::duplicate_mod, reason = "the lab has it for hosts of its own kind")]
pub mod load;
mod network;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::process::{Directory, Process};
use crate::support::{peers, time};

pub use network::Host;

/// A name that the outside answers, which `load` asks for.
pub const NAME: &str = "web.shop.svc.cluster.local";
/// Where the outside is, and its DNS.
pub const OUTSIDE: &str = "198.18.0.1";
/// Where the guest is.
pub const GUEST: &str = "198.18.0.2";

/// A booted guest; it ends with this value.
pub struct Guest {
    /// Its network.
    pub host: Host,
    /// The network of everybody else.
    pub outside: Host,
    /// The DNS server outside.
    pub dns: Process,
    /// Its systemd, as this machine numbers it.
    leader: u32,
    machine: Process,
    group: String,
}

impl Guest {
    /// Boots one, with its network up and a DNS server outside, and waits until its start is complete.
    #[track_caller]
    pub fn boot() -> Guest {
        Guest::with(&[])
    }

    /// The same with more packages of Debian in it.
    #[track_caller]
    pub fn with(packages: &[&str]) -> Guest {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let (host, outside) = (Host::new(), Host::new());
        outside.cable(&format!("{OUTSIDE}/24"), &host, &format!("{GUEST}/24"));
        let dns = outside.run(|| peers::cluster(SocketAddr::new(OUTSIDE.parse().expect("an address"), 53)));
        let group = format!("dnslet-guest-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        let scratch = Directory::new();
        // Whatever ends this test ends all of the guest: the first process of its namespace dies with ours.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "nsenter", &format!("--net={}", host.path())]);
        command.args(["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.arg(file("boot")).arg(root(packages)).arg(&group).arg(scratch.path());
        let machine = Process::start("the guest", command, Arc::clone(&scratch));
        let mut guest = Guest { host, outside, dns, leader: 0, machine, group };
        guest.wait_for_start(0);
        guest.write("/etc/resolv.conf", &format!("nameserver {OUTSIDE}\n"));
        guest
    }

    /// Runs a line of shell in the guest and returns what it prints; fails if it fails.
    #[track_caller]
    pub fn run(&self, line: &str) -> String {
        let (code, printed) = self.tries(line);
        assert_eq!(code, Some(0), "{line}: {printed}");
        printed
    }

    /// The same where failure is an answer: its exit code, and what it prints to either output.
    #[track_caller]
    pub fn tries(&self, line: &str) -> (Option<i32>, String) {
        let output = self.shell(line);
        let printed = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&printed).into_owned())
    }

    /// Runs the closure with the guest's network: a server in the guest is at 127.0.0.1 for it.
    #[track_caller]
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.host.run(work)
    }

    /// A file of the guest, as this machine names it. A symbolic link would be followed from here: `run` reads those.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.leader))
    }

    /// Writes a file of the guest.
    #[track_caller]
    pub fn write(&self, inside: &str, text: &str) {
        let path = self.path(inside);
        fs::create_dir_all(path.parent().expect("a file in a directory")).expect("root may write");
        fs::write(&path, text).unwrap_or_else(|error| panic!("{inside}: {error}"));
    }

    /// Copies a file of this machine into the guest, with its mode.
    #[track_caller]
    pub fn install(&self, file: impl AsRef<Path>, inside: &str) {
        fs::copy(&file, self.path(inside)).unwrap_or_else(|error| panic!("{}: {error}", file.as_ref().display()));
    }

    /// Shuts the guest down and boots it again, as it is.
    #[track_caller]
    pub fn reboot(&mut self) {
        let before = self.leader;
        // The answer may be cut off by what was asked for.
        let _ = self.tries("systemctl reboot");
        self.wait_for_start(before);
    }

    #[track_caller]
    fn wait_for_start(&mut self, before: u32) {
        self.leader = time::until("the guest's first process", || {
            self.machine.check_alive();
            first_process(self.machine.pid()).filter(|leader| *leader != before)
        });
        let state = time::until("the guest to start", || {
            let (_, said) = self.tries("systemctl is-system-running --wait");
            ["running", "degraded"].contains(&said.trim()).then_some(said)
        });
        assert_eq!(state.trim(), "running", "{}", self.tries("systemctl --failed; journalctl -b -p warning").1);
    }

    fn shell(&self, line: &str) -> Output {
        let mut command = Command::new("nsenter");
        command.args(["--all", "--target", &self.leader.to_string(), "/bin/sh", "-c", line]);
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root");
        command.output().expect("nsenter: apt-get install util-linux")
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Its processes may outlive the signal by a moment, and a group in use is not removed.
        self.machine.signal(nix::sys::signal::Signal::SIGKILL);
        self.machine.wait();
        for hierarchy in ["", "systemd", "unified"] {
            let group = Path::new("/sys/fs/cgroup").join(hierarchy).join(&self.group);
            time::until("the guest's control groups to be empty", || (remove(&group) || !group.exists()).then_some(()));
        }
    }
}

/// The root that guests boot, made if it is not there. Its name says by which script, and with which packages.
#[track_caller]
fn root(packages: &[&str]) -> PathBuf {
    let script = file("root");
    let text = fs::read(&script).expect("a file of this repository");
    let mark = text.iter().fold(5381_u32, |sum, octet| sum.wrapping_mul(33) ^ u32::from(*octet));
    let name = [vec![format!("{mark:08x}")], packages.iter().map(ToString::to_string).collect()].concat().join("+");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/guest").join(name);
    let output = Command::new(&script).arg(&root).args(packages).output().expect("bash");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{printed}{}\nthis needs root, a mirror of Debian, and: apt-get install debootstrap systemd-container",
        String::from_utf8_lossy(&output.stderr)
    );
    root
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/deploy/guest").join(name)
}

/// The first process of the innermost namespace below this process.
fn first_process(process: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    // Here, in the namespace around the guest, and in the guest.
    if numbers.split_whitespace().count() == 3 {
        return numbers.trim().ends_with("\t1").then_some(process);
    }
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).ok()?;
    children.split_whitespace().find_map(|child| first_process(child.parse().ok()?))
}

/// Removes a control group and those below it; false while one is in use.
fn remove(group: &Path) -> bool {
    let below = fs::read_dir(group).into_iter().flatten().flatten().map(|entry| entry.path());
    below.filter(|path| path.is_dir()).all(|path| remove(&path)) && fs::remove_dir(group).is_ok()
}
