//! The agent under test: the built binary with a Corefile of the test's own, on an address of its own.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use super::address::{Address, DNS};
use super::cgroup::Cgroup;
use super::client::{Tcp, Udp};
use super::message::{Message, Query};
use super::process::{Directory, Process};
use super::time;
use super::upstream::Upstream;
use super::wire::A;

/// The port the agent's metrics are at.
const METRICS: u16 = 9253;

/// A running agent; it ends with this value. Log, signals and waiting are those of `Process`.
pub struct Agent {
    process: Process,
    address: Address,
    pub directory: Arc<Directory>,
}

/// An agent about to be started.
pub struct Plan {
    address: Address,
    directory: Arc<Directory>,
    corefile: String,
    command: Command,
}

impl Agent {
    /// Starts an agent whose one server block, the root, holds these lines besides bind and prometheus.
    #[track_caller]
    pub fn root(lines: &str) -> Agent {
        Agent::plan().root(lines).start()
    }

    /// The same beside a scripted upstream, whose address stands for `{up}`. `{once}` is the same with a limit of one
    /// attempt: an answer that is late because the machine is busy is not asked for again, and counts stay what they are.
    #[track_caller]
    pub fn beside_upstream(lines: &str) -> (Agent, Upstream) {
        let upstream = Upstream::start();
        let address = upstream.address().to_string();
        let once = format!("{address} {{\n max_connect_attempts 1\n }}");
        let agent = Agent::root(&lines.replace("{up}", &address).replace("{once}", &once));
        (agent, upstream)
    }

    pub fn plan() -> Plan {
        Plan::of(Command::new(env!("CARGO_BIN_EXE_dnslet")))
    }

    /// The same in a control group, of another build where one is given.
    pub fn plan_inside(group: &Cgroup, build: Option<&Path>) -> Plan {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]);
        command.arg(group.path()).arg(build.unwrap_or(Path::new(env!("CARGO_BIN_EXE_dnslet"))));
        Plan::of(command)
    }

    pub fn ip(&self) -> IpAddr {
        self.address.ip()
    }

    /// The process id of the server, the keeper's only child.
    #[track_caller]
    pub fn server(&self) -> u32 {
        let keeper = self.pid();
        let children = format!("/proc/{keeper}/task/{keeper}/children");
        time::until("a server", || std::fs::read_to_string(&children).ok()?.trim().parse().ok())
    }

    pub fn dns(&self) -> SocketAddr {
        self.address.dns()
    }

    pub fn udp(&self) -> Udp {
        Udp::to(self.dns())
    }

    pub fn tcp(&self) -> Tcp {
        Tcp::to(self.dns())
    }

    /// Asks over UDP and checks what holds for every reply.
    #[track_caller]
    pub fn ask(&self, query: &Query) -> Message {
        self.udp().ask(query)
    }

    /// Asks for an A record over UDP.
    #[track_caller]
    pub fn ask_a(&self, name: &str) -> Message {
        self.ask(&Query::new(name, A))
    }

    /// Asks over a TCP connection of its own.
    #[track_caller]
    pub fn ask_tcp(&self, query: &Query) -> Message {
        self.tcp().ask(query)
    }

    /// Asks for an A record until its TTL is no longer the one given, so at least part of a second has passed.
    #[track_caller]
    pub fn ask_until_older(&self, name: &str, ttl: u32) -> Message {
        time::until("a TTL that has counted down", || {
            let reply = self.ask_a(name);
            reply.ttls().iter().all(|left| *left < ttl).then_some(reply)
        })
    }

    /// Sends bytes over UDP and returns the reply, or `None` when a question sent after them is answered first.
    #[track_caller]
    pub fn reply_to(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let client = self.udp();
        client.send(bytes);
        client.send(&sentinel());
        let first = client.receive(time::PATIENCE).expect("the sentinel is always answered");
        (first[..2] != sentinel()[..2]).then_some(first)
    }

    /// The metrics text as scraped now.
    pub fn metrics(&self) -> String {
        http_get(self.metrics_address(), "/metrics").expect("the metrics endpoint is up").1
    }

    /// Where its metrics are.
    pub fn metrics_address(&self) -> SocketAddr {
        self.address.port(METRICS)
    }

    /// The sum of all series of the metric that carry these labels; 0 when there is none.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        sum(&self.metrics(), name, labels)
    }
}

impl Deref for Agent {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Agent {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

impl Plan {
    fn of(mut command: Command) -> Plan {
        let (address, directory) = (Address::fresh(), Directory::new());
        command.current_dir(directory.path()).env_remove("KUBERNETES_SERVICE_HOST");
        Plan { address, directory, corefile: String::new(), command }
    }

    pub fn ip(&self) -> IpAddr {
        self.address.ip()
    }

    /// The directory the agent will run in; it holds the Corefile.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    pub fn environment(mut self, key: &str, value: &str) -> Plan {
        self.command.env(key, value);
        self
    }

    /// A root block with these lines besides bind and prometheus.
    pub fn root(self, lines: &str) -> Plan {
        let text = self.block(".", lines);
        self.corefile(&text)
    }

    /// The text of a server block on the agent's address.
    pub fn block(&self, zone: &str, lines: &str) -> String {
        let ip = self.address.ip();
        format!("{zone}:{DNS} {{\n    bind {ip}\n    prometheus {ip}:{METRICS}\n    {lines}\n}}\n")
    }

    /// The whole Corefile.
    pub fn corefile(mut self, text: &str) -> Plan {
        text.clone_into(&mut self.corefile);
        self
    }

    pub fn arguments(mut self, arguments: &[&str]) -> Plan {
        self.command.args(arguments);
        self
    }

    /// Starts the agent and waits until it answers over UDP and TCP and its metrics can be read.
    #[track_caller]
    pub fn start(self) -> Agent {
        let mut agent = self.launch();
        let (dns, metrics) = (agent.dns(), agent.address.port(METRICS));
        agent.process.wait_until_serving(dns);
        time::until("the metrics endpoint", || http_get(metrics, "/metrics"));
        agent
    }

    /// Starts the agent with its Corefile on standard input, and waits for nothing.
    pub fn launch_with_stdin(mut self, file: &Path) -> Agent {
        self.command.args(["-conf", "stdin"]);
        let input = std::fs::File::open(file).expect("a file that was just written");
        let process = Process::start_with("dnslet", self.command, Arc::clone(&self.directory), input.into());
        Agent { process, address: self.address, directory: self.directory }
    }

    /// Starts the agent and waits for nothing: for a test that expects it to fail.
    pub fn launch(mut self) -> Agent {
        let corefile = self.directory.write("Corefile", &self.corefile);
        self.command.arg("-conf").arg(corefile);
        let process = Process::start("dnslet", self.command, Arc::clone(&self.directory));
        Agent { process, address: self.address, directory: self.directory }
    }
}

impl Process {
    /// Waits until something answers at the address over UDP and TCP.
    #[track_caller]
    pub fn wait_until_serving(&mut self, server: SocketAddr) {
        time::until("an answer over UDP", || {
            self.check_alive();
            let client = Udp::to(server);
            client.send(&sentinel());
            client.receive(Duration::from_millis(250))
        });
        time::until("a TCP connection", || TcpStream::connect(server).ok());
    }
}

/// A question every server answers without asking anyone: a header with an opcode nobody has assigned.
fn sentinel() -> Vec<u8> {
    let mut bytes = Query::new(".", A).opcode(15).questions(0).with_id(0xfeed).bytes();
    bytes.truncate(12);
    bytes
}

/// The sum of all series of a metric that carry these labels, in a metrics text; 0 when there is none.
pub fn sum(text: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let series = text.lines().filter(|line| {
        let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']));
        rest.is_some_and(|rest| labels.iter().all(|(key, value)| rest.contains(&format!("{key}=\"{value}\""))))
    });
    series.map(|line| line.rsplit(' ').next().expect("a value").parse::<f64>().expect("a number")).sum()
}

/// Status code and body; `None` when nobody listens.
pub fn http_get(server: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(server).ok()?;
    stream.set_read_timeout(Some(time::PATIENCE)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}
