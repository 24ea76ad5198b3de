//! The built dnslet as this node's agent: started, killed in parts, stopped.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{CLUSTER_DNS, CLUSTER_DNS_V6, LINK_LOCAL, LINK_LOCAL_V6, SERVICE, run};

pub struct Agent {
    keeper: Child,
}

/// The agent's program and a directory for its Corefile and its log.
pub struct Install {
    pub program: PathBuf,
    pub directory: PathBuf,
}

/// How the block of the cluster's zone keeps answers.
pub const CACHE: &str = "    cache 30\n";
/// The same, and search lists are walked.
pub const CACHE_AND_AUTOPATH: &str = "    cache {\n        success 9984 30\n        denial 9984 5\n        \
                                      denial_cut cluster.local\n    }\n    autopath @query {\n        search .\n    }\n";

impl Install {
    /// Starts the agent on the link-local address, its IPv6 twin and the Service IP. It writes to one log over its runs.
    pub fn start(&self) -> Agent {
        self.start_with(CACHE)
    }

    /// The same with these lines in the block of the cluster's zone.
    pub fn start_with(&self, lines: &str) -> Agent {
        let corefile = self.directory.join("Corefile");
        fs::write(&corefile, corefile_text(lines)).expect("a writable directory");
        let log = || File::options().create(true).append(true).open(self.log_file()).expect("a writable directory");
        let keeper = Command::new(&self.program)
            .arg("-localip")
            .arg(format!("{LINK_LOCAL},{LINK_LOCAL_V6},{SERVICE}"))
            .arg("-conf")
            .arg(&corefile)
            .env_remove("KUBERNETES_SERVICE_HOST")
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(log())
            .stderr(log())
            .spawn();
        Agent { keeper: keeper.unwrap_or_else(|error| panic!("cannot start {}: {error}", self.program.display())) }
    }

    /// Removes what the agent leaves on the node, and returns what it prints about that.
    pub fn clean_up(&self) -> io::Result<String> {
        run(&self.program.to_string_lossy(), &["cleanup"], "")
    }

    /// Everything the agent has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.directory.join("log")
    }
}

impl Agent {
    /// The keeper's child.
    pub fn server(&self) -> io::Result<Pid> {
        let keeper = self.keeper.id().to_string();
        for entry in fs::read_dir("/proc")? {
            let path = entry?.path();
            if parent(&path).as_deref() == Some(&keeper) {
                let name = path.file_name().and_then(|name| name.to_str()?.parse().ok());
                return Ok(Pid::from_raw(name.expect("a process's directory is called after its number")));
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// SIGKILL for the keeper, as the kernel sends it when memory runs out; returns once it is gone.
    pub fn kill(&mut self) -> io::Result<()> {
        self.keeper.kill()?;
        self.keeper.wait().map(drop)
    }

    /// SIGTERM, as a kubelet sends it; returns once it is gone.
    pub fn stop(&mut self) -> io::Result<ExitStatus> {
        kill(Pid::from_raw(self.keeper.id().try_into().expect("a process number")), Signal::SIGTERM)?;
        self.keeper.wait()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.keeper.try_wait()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill().unwrap_or_default();
    }
}

/// The parent of the process with this directory in /proc.
fn parent(process: &Path) -> Option<String> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:")).map(|number| number.trim().to_owned())
}

fn corefile_text(lines: &str) -> String {
    let servers: Vec<String> =
        CLUSTER_DNS.iter().map(ToString::to_string).chain(CLUSTER_DNS_V6.iter().map(ToString::to_string)).collect();
    let block = |zone: &str, more: &str| {
        format!(
            "{zone}:53 {{\n    bind {LINK_LOCAL} {LINK_LOCAL_V6} {SERVICE}\n    errors\n{more}    forward . {}\n}}\n",
            servers.join(" ")
        )
    };
    let own = format!("    health {LINK_LOCAL}:8080\n{lines}");
    format!("{}{}", block("cluster.local", &own), block(".", CACHE))
}
