//! The agent on the node, started as its manifest would.

use std::net::{SocketAddr, TcpStream};
use std::ops::{Deref, DerefMut};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Host, LINK_LOCAL, NODE, POD1, SERVICE, UPSTREAM_SERVICE, Who, endpoints, kernel, listening};
use crate::support::agent::{http_get, sum};
use crate::support::client::{Tcp, Udp};
use crate::support::process::{Directory, Process};
use crate::support::{Query, time, wire};

/// How long an answer takes that comes at all, where the next attempt is not far.
const AT_ONCE: Duration = Duration::from_millis(100);

/// An agent about to be started.
pub struct Start {
    directory: Arc<Directory>,
    arguments: Vec<String>,
    wrapper: Vec<String>,
    without_nf_tables: bool,
    corefile: String,
}

/// A running agent: the keeper is the process, the server its child. It ends with this value.
pub struct Running(Process);

impl Start {
    /// The shipped Corefile and the flags of its manifest, on all four addresses.
    pub fn new() -> Start {
        let listen = listening().map(|address| address.ip().to_string());
        let shipped = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corefiles/nodelocaldns"));
        let corefile = shipped
            .expect("the shipped Corefile")
            .replace("health __PILLAR__LOCAL__DNS__", &format!("health {}", LINK_LOCAL[0]))
            .replace("__PILLAR__DNS__DOMAIN__", "cluster.local")
            .replace("__PILLAR__LOCAL__DNS__", &LINK_LOCAL.join(" "))
            .replace("__PILLAR__DNS__SERVER__", &SERVICE.join(" "))
            .replace("__PILLAR__CLUSTER__DNS__", UPSTREAM_SERVICE)
            .replace("__PILLAR__UPSTREAM__SERVERS__", "10.9.3.2");
        let fallback = endpoints().map(|server| server.to_string());
        Start {
            directory: Directory::new(),
            arguments: Vec::new(),
            wrapper: Vec::new(),
            without_nf_tables: false,
            corefile,
        }
        .flag("-localip", &listen.join(","))
        .flag("-fallback", &fallback.join(","))
    }

    pub fn flag(mut self, flag: &str, value: &str) -> Start {
        self.arguments.push(format!("{flag}={value}"));
        self
    }

    /// Leaves out a flag that is otherwise given.
    pub fn without(mut self, flag: &str) -> Start {
        self.arguments.retain(|argument| !argument.starts_with(&format!("{flag}=")));
        self
    }

    /// Starts the agent by way of another program.
    pub fn under(mut self, program: &[&str]) -> Start {
        self.wrapper = program.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Starts the agent as on a kernel that was built without nf_tables.
    pub fn without_nf_tables(mut self) -> Start {
        self.without_nf_tables = true;
        self
    }

    /// Replaces a part of the Corefile.
    pub fn edit(mut self, from: &str, to: &str) -> Start {
        assert!(self.corefile.contains(from), "{from:?} in\n{}", self.corefile);
        self.corefile = self.corefile.replace(from, to);
        self
    }

    /// Starts the agent and waits for nothing.
    pub fn launch(self) -> Running {
        let corefile = self.directory.write("Corefile", &self.corefile).display().to_string();
        let mut words = self.wrapper.clone();
        words.extend([env!("CARGO_BIN_EXE_dnslet").to_owned(), "-conf".to_owned(), corefile]);
        words.extend(self.arguments.iter().cloned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(self.directory.path()).env_remove("KUBERNETES_SERVICE_HOST");
        let directory = Arc::clone(&self.directory);
        Running(NODE.run(move || {
            if self.without_nf_tables {
                kernel::hide_nf_tables();
            }
            Process::start("dnslet", command, directory)
        }))
    }

    /// Starts the agent and waits until it answers a pod at every address, then forgets the flows of waiting.
    #[track_caller]
    pub fn start(self) -> Running {
        let begun = time::now();
        let mut agent = self.launch();
        agent.wait_until_intercepting(&listening());
        println!("intercepting {:?} after the start", begun.elapsed());
        kernel::forget_flows();
        agent
    }
}

impl Running {
    /// Waits until the agent is who answers a pod at these addresses.
    #[track_caller]
    pub fn wait_until_intercepting(&mut self, addresses: &[SocketAddr]) {
        for address in addresses {
            time::until(&format!("the agent to answer at {address}"), || {
                self.check_alive();
                (who_answers_within(POD1, *address, AT_ONCE) == Some(Who::Agent)).then_some(())
            });
        }
    }

    pub fn keeper(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.0.pid()).expect("a process id"))
    }

    /// The server's process: the keeper's child.
    #[track_caller]
    pub fn server(&self) -> Pid {
        time::until("the keeper to have a child", || child_of(self.keeper()))
    }

    /// Kills or stops the keeper or the server alone.
    #[track_caller]
    pub fn strike(&self, process: Pid, signal: Signal) {
        kill(process, signal).expect("the process is alive");
    }

    /// Replaces a part of the Corefile.
    pub fn edit(&self, from: &str, to: &str) {
        let path = format!("/proc/{}/cwd/Corefile", self.keeper());
        let text = std::fs::read_to_string(&path).expect("the Corefile is in the agent's directory");
        assert!(text.contains(from), "{from:?} in\n{text}");
        std::fs::write(&path, text.replace(from, to)).expect("the file was there");
    }

    /// The sum of all series of the metric that carry these labels.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let metrics = NODE.run(|| http_get(([127, 0, 0, 1], 9253).into(), "/metrics"));
        sum(&metrics.expect("the metrics endpoint is up").1, name, labels)
    }

    /// Whether there is any series of the metric.
    pub fn has_metric(&self, name: &str) -> bool {
        let metrics = NODE.run(|| http_get(([127, 0, 0, 1], 9253).into(), "/metrics"));
        metrics.expect("the metrics endpoint is up").1.lines().any(|line| line.starts_with(name))
    }
}

impl Deref for Running {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.0
    }
}

impl DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.0
    }
}

/// Asks once over UDP, from a port of its own, and says who answered; `None` when nobody does.
pub fn who_answers(from: Host, server: SocketAddr) -> Option<Who> {
    who_answers_within(from, server, Duration::from_secs(2))
}

/// The same for a client that waits this long.
pub fn who_answers_within(from: Host, server: SocketAddr, patience: Duration) -> Option<Who> {
    let query = Query::new(super::NAME, wire::A);
    let reply = from.run(|| {
        let client = Udp::to(server);
        client.send(&query.bytes());
        client.receive(patience)
    })?;
    Who::wrote(&reply)
}

/// The same over a TCP connection of its own; `None` when there is no connection or no answer.
pub fn who_answers_tcp(from: Host, server: SocketAddr) -> Option<Who> {
    let query = Query::new(super::NAME, wire::A);
    let reply = from.run(|| {
        let stream = TcpStream::connect_timeout(&server, time::PATIENCE).ok()?;
        stream.set_read_timeout(Some(time::PATIENCE)).expect("a positive time");
        let mut client = Tcp(stream);
        client.try_send(&query.bytes()).then(|| client.receive())?
    })?;
    Who::wrote(&reply)
}

/// A process that lives and has this parent.
pub fn child_of(parent: Pid) -> Option<Pid> {
    let processes = std::fs::read_dir("/proc").expect("a mounted /proc").flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()).find_map(|process| {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The name in brackets may hold anything; state and parent follow it.
        let mut rest = stat.rsplit_once(')')?.1.split_whitespace();
        let (state, above) = (rest.next()?, rest.next()?);
        (above == parent.to_string() && state != "Z").then_some(Pid::from_raw(process))
    })
}
