//! A child process in its own directory, with everything it prints kept, ended with this value.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::time;

pub struct Process {
    name: String,
    child: Child,
    log: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
    /// Held so that the directory lives as long as the process.
    _directory: Arc<Directory>,
    may_end: bool,
}

impl Process {
    /// Starts the command in its own process group. The directory goes away with the process.
    pub fn start(name: &str, command: Command, directory: Arc<Directory>) -> Process {
        Process::start_with(name, command, directory, Stdio::null())
    }

    /// The same with this standard input.
    pub fn start_with(name: &str, mut command: Command, directory: Arc<Directory>, input: Stdio) -> Process {
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let log = Arc::new(Mutex::new(String::new()));
        let readers = vec![
            keep(child.stdout.take().expect("piped"), Arc::clone(&log)),
            keep(child.stderr.take().expect("piped"), Arc::clone(&log)),
        ];
        Process { name: name.to_owned(), child, log, readers, _directory: directory, may_end: false }
    }

    /// Everything printed so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("no panic under the lock").clone()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Panics with the log when the process has ended.
    #[track_caller]
    pub fn check_alive(&mut self) {
        if let Some(status) = self.child.try_wait().expect("our own child") {
            self.may_end = true;
            panic!("{} ended by itself ({status}):\n{}", self.name, self.log());
        }
    }

    pub fn signal(&self, signal: Signal) {
        killpg(self.group(), signal).expect("the process is alive");
    }

    /// Waits for the end of a process that was told to end, or that ends by itself.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        self.may_end = true;
        let status = time::until("the process to end", || self.child.try_wait().expect("our own child"));
        self.readers.drain(..).for_each(|reader| reader.join().expect("a reader does not panic"));
        status
    }

    /// Waits until the log holds the text.
    #[track_caller]
    pub fn wait_for_log(&mut self, text: &str) {
        time::until(&format!("{text:?} in the log of {}", self.name), || {
            let found = self.log().contains(text);
            if !found {
                self.check_alive();
            }
            found.then_some(())
        });
    }

    fn group(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let ended = self.child.try_wait().expect("our own child");
        killpg(self.group(), Signal::SIGKILL).unwrap_or_default();
        self.child.wait().expect("our own child");
        self.readers.drain(..).for_each(|reader| reader.join().unwrap_or_default());
        let log = self.log();
        if thread::panicking() {
            eprintln!("--- {} printed:\n{log}---", self.name);
            return;
        }
        assert!(ended.is_none() || self.may_end, "{} ended by itself ({ended:?}):\n{log}", self.name);
        assert!(!log.contains("panicked at"), "{} panicked:\n{log}", self.name);
    }
}

/// Sends a signal to one process.
pub fn kill(process: u32, signal: Signal) {
    let process = Pid::from_raw(i32::try_from(process).expect("a process id"));
    nix::sys::signal::kill(process, signal).expect("the process is alive");
}

/// Stops a process, and waits until each of its threads stands still: the signal alone lets them go on for a moment.
pub fn stop(process: u32) {
    kill(process, Signal::SIGSTOP);
    time::until("every thread to stand still", || {
        let threads = fs::read_dir(format!("/proc/{process}/task")).expect("the process is alive");
        let stopped = |thread: fs::DirEntry| {
            let state = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            state.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T"))
        };
        threads.flatten().all(stopped).then_some(())
    });
}

fn keep(source: impl Read + Send + 'static, log: Arc<Mutex<String>>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut source = BufReader::new(source);
        let mut line = Vec::new();
        while source.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            log.lock().expect("no panic under the lock").push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    })
}

/// A directory of its own under the system's temporary one, removed with this value.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Arc<Directory> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let path = std::env::temp_dir().join(format!("dnslet-test-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a writable temporary directory");
        Arc::new(Directory(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file and returns its whole path.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("a file in a directory")).expect("a writable directory");
        fs::write(&path, text).expect("a writable directory");
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap_or_default();
    }
}
