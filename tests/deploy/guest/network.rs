//! Network namespaces without names: they go away with the last that uses them, however a test ends.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::panic::resume_unwind;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

/// One host, as the network sees it.
#[derive(Clone)]
pub struct Host(Arc<File>);

impl Host {
    /// With a loopback interface and nothing else.
    pub fn new() -> Host {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace: run this as root");
            run("ip link set lo up");
            File::open("/proc/thread-self/ns/net").expect("a mounted /proc")
        });
        Host(Arc::new(made.join().unwrap_or_else(|panic| resume_unwind(panic))))
    }

    /// Names the namespace to another process, for as long as this value lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Runs the closure on a thread that has moved there. What it starts stays there; a socket it makes belongs there,
    /// wherever it is used afterwards.
    #[track_caller]
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let done = thread::scope(|scope| {
            let moved = scope.spawn(|| {
                setns(&*self.0, CloneFlags::CLONE_NEWNET).expect("root may");
                work()
            });
            moved.join()
        });
        done.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Joins two hosts: each gets an interface `eth0` with its address.
    pub fn cable(&self, address: &str, other: &Host, others: &str) {
        self.run(|| {
            run(&format!("ip link add eth0 type veth peer name eth0 netns {}", other.path()));
            run(&format!("ip address add {address} dev eth0"));
            run("ip link set eth0 up");
        });
        other.run(|| {
            run(&format!("ip address add {others} dev eth0"));
            run("ip link set eth0 up");
        });
    }
}

/// A command of words without spaces inside them.
#[track_caller]
fn run(words: &str) {
    let mut words = words.split(' ');
    let mut command = Command::new(words.next().expect("a program"));
    let output = command.args(words).stdin(Stdio::null()).output().expect("apt-get install iproute2");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
