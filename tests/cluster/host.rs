//! A machine of the cluster: a thread in a network namespace of its own. What it is asked to do it does in there; the
//! sockets it opens stay there, whoever uses them. The namespace goes away with the thread.

use std::sync::mpsc::{self, Sender};
use std::thread;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Pid, gettid};

type Job = Box<dyn FnOnce() + Send>;

pub struct Host {
    thread: Pid,
    jobs: Sender<Job>,
}

impl Host {
    /// A new namespace with nothing but a loopback interface that is down. Needs CAP_SYS_ADMIN.
    pub fn new() -> Host {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (named, name) = mpsc::channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace, which root may make");
            named.send(gettid()).expect("somebody waits for it");
            queue.into_iter().for_each(|job| job());
        });
        Host { thread: name.recv().expect("the thread says its number first"), jobs }
    }

    /// What `ip link add ... netns` takes.
    pub fn namespace(&self) -> Pid {
        self.thread
    }

    /// Does this in the namespace, commands it starts included, and waits for the result.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, result) = mpsc::channel();
        // Nobody waits any more only if this thread panicked.
        let job = Box::new(move || sender.send(job()).unwrap_or_default());
        self.jobs.send(job).expect("the thread lives as long as this value");
        result.recv().expect("what the host was asked to do went well")
    }
}
