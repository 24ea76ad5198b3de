//! For tests: a network of one's own, with other hosts in it, without being root.

use std::any::type_name;
use std::env;
use std::fs::File;
use std::future::Future;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

/// Set in the process that has the private network.
const INSIDE: &str = "DNSLET_TEST_NETWORK";

/// Another host: a network namespace that lasts as long as this value.
pub(crate) struct Host {
    keeper: Child,
}

/// Runs `body`, the whole of a `#[test]`, as root of a new user and network namespace: the test's own binary is started
/// again for this one test. `lo` is up, `/run` is empty. Fails if the test fails there, or is not found there.
pub(crate) fn private<F: FnOnce()>(body: F) {
    if env::var_os(INSIDE).is_some() {
        // Locks and names below /run are the network's own too.
        run("ip link set lo up && mount -t tmpfs tmpfs /run");
        return body();
    }
    let path = type_name::<F>();
    let name = path.split_once("::").expect("a path in this crate").1.trim_end_matches("::{{closure}}");
    let output = Command::new("unshare")
        .args(["--map-root-user", "--net", "--mount"])
        .arg(env::current_exe().expect("the test's binary"))
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "yes")
        .output()
        .expect("unshare can be started; if it is missing: apt-get install util-linux");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "in the private network:\n{out}{err}");
}

/// Runs a future on a single-threaded runtime with all drivers.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// Runs a command line in the shell and returns what it printed. Fails if the command does.
pub(crate) fn run(line: &str) -> String {
    let (worked, printed) = attempt(line);
    let install = "apt-get install iproute2 nftables conntrack iptables util-linux";
    assert!(worked, "{line}: {printed} (if a program is missing: {install})");
    printed
}

/// Whether the command line succeeded, and what it printed.
pub(crate) fn attempt(line: &str) -> (bool, String) {
    let output = Command::new("sh").args(["-c", line]).output().expect("a shell");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

impl Host {
    /// A host with `lo` up, and a link from this network to it: `here` on this side, `eth0` on its side. `addresses` are
    /// put on its `eth0`, as in `10.9.0.2/24`.
    pub(crate) fn new(here: &str, addresses: &[&str]) -> Self {
        let mut keeper = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo up && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare can be started");
        let mut line = String::new();
        let out = keeper.stdout.as_mut().expect("it was piped");
        BufReader::new(out).read_line(&mut line).expect("the host is up");
        assert_eq!(line, "up\n");
        let host = Self { keeper };
        run(&format!("ip link add {here} type veth peer name eth0 netns {}", host.keeper.id()));
        run(&format!("ip link set {here} up"));
        host.run("ip link set eth0 up");
        for address in addresses {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            host.run(&format!("ip addr add {address} dev eth0 {nodad}"));
        }
        host
    }

    /// A command line that does the same on that host.
    pub(crate) fn on(&self, line: &str) -> String {
        assert!(!line.contains('\''), "the line is put between quotes");
        format!("nsenter --target {} --net --preserve-credentials sh -c '{line}'", self.keeper.id())
    }

    /// As [`run`], on that host.
    pub(crate) fn run(&self, line: &str) -> String {
        run(&self.on(line))
    }

    /// Starts a thread whose sockets are that host's.
    pub(crate) fn thread<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let network = File::open(format!("/proc/{}/ns/net", self.keeper.id())).expect("the host is up");
        std::thread::spawn(move || {
            nix::sched::setns(network, nix::sched::CloneFlags::CLONE_NEWNET).expect("the host's network");
            work()
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;
    use tokio::net::TcpStream;

    #[test]
    fn a_host_is_reached_over_its_link() {
        private(|| {
            let host = Host::new("pod", &["10.9.0.2/24", "fd09::2/64"]);
            run("ip addr add 10.9.0.1/24 dev pod && ip addr add fd09::1/64 dev pod nodad");
            for there in ["10.9.0.2:9", "[fd09::2]:9"] {
                let refusal = block_on(TcpStream::connect(there)).unwrap_err();
                assert_eq!(refusal.kind(), ErrorKind::ConnectionRefused, "{there}: {refusal}");
            }
            assert_eq!(run("id -u"), "0\n");
            assert!(host.run("ip link").contains("eth0") && !run("ip link").contains("eth0:"));
        });
    }

    #[test]
    #[should_panic(expected = "in the private network")]
    fn a_failure_inside_is_a_failure() {
        private(|| assert_eq!(run("echo yes"), "no"));
    }
}
