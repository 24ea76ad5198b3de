//! The servers under test: how each is configured and started, all with one worker, one upstream on loopback, no
//! logging of queries, and caches larger than the workloads. docs/benchmarks.md says why each option is there.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use dnslet::sys::clock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::answerer::{Answerer, Cluster};
use crate::cores;
use crate::floor;
use crate::usage;
use crate::workload::Workload;

/// How long a server may take until it answers its first query.
const START: Duration = Duration::from_secs(10);
/// How often one that starts is asked.
const KNOCK: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Floor,
    Dnslet,
    /// Another build of dnslet, where one was named.
    Against,
    Unbound,
    Dnsdist,
    Dnsmasq,
}

/// The program of [`Kind::Against`].
static AGAINST: OnceLock<PathBuf> = OnceLock::new();

/// Lets another build of dnslet take part.
pub(crate) fn compare_against(program: &Path) {
    // Options are read once; a second value cannot come.
    let _ = AGAINST.set(program.to_owned());
}

impl Kind {
    pub(crate) const ALL: [Self; 6] =
        [Self::Floor, Self::Dnslet, Self::Against, Self::Unbound, Self::Dnsdist, Self::Dnsmasq];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Dnslet => "dnslet",
            Self::Against => "against",
            Self::Unbound => "unbound",
            Self::Dnsdist => "dnsdist",
            Self::Dnsmasq => "dnsmasq",
        }
    }

    /// One line naming the program and its version; none if it is not installed.
    pub(crate) fn version(self) -> Option<String> {
        let argument = match self {
            Self::Floor => return Some("recvmmsg/sendmmsg echo in this binary".into()),
            Self::Dnslet | Self::Against => "-version",
            Self::Unbound => "-V",
            Self::Dnsdist | Self::Dnsmasq => "--version",
        };
        let output = self.program().ok()?.arg(argument).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Some(text.lines().next().unwrap_or_default().trim().to_owned())
    }

    fn program(self) -> io::Result<Command> {
        let mut command = match self {
            Self::Floor => Command::new(std::env::current_exe()?),
            Self::Dnslet => Command::new(env!("CARGO_BIN_EXE_dnslet")),
            Self::Against => Command::new(AGAINST.get().ok_or(io::ErrorKind::NotFound)?),
            Self::Unbound | Self::Dnsdist | Self::Dnsmasq => Command::new(self.name()),
        };
        // System daemons live where an ordinary PATH does not look.
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin:/sbin:/usr/local/sbin"));
        Ok(command)
    }
}

/// What dnslet is told beyond what every setup has, and what its upstream says. The others ignore the lines.
#[derive(Clone, Copy)]
pub(crate) struct Setup {
    /// Tells agents apart that run at the same time.
    pub(crate) name: &'static str,
    /// Lines of the block `cluster.local`.
    pub(crate) cluster: &'static str,
    /// Lines of the block `.`.
    pub(crate) root: &'static str,
    pub(crate) lifetimes: Cluster,
}

impl Setup {
    /// Caches larger than every workload, and lifetimes longer than any run.
    pub(crate) const LASTING: Self = Self {
        name: "",
        cluster: "cache {\n success 100000 3600\n denial 100000 1800\n }",
        root: "cache {\n success 100000 3600\n denial 100000 1800\n }",
        lifetimes: Cluster::Lasting,
    };
}

/// A server that is running and has answered a query. Dropping it ends it.
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    /// Where dnslet shows its counters.
    metrics: SocketAddr,
    /// Absent for the floor.
    pub(crate) answerer: Option<Answerer>,
    pub(crate) processes: Vec<u32>,
    /// From its start as a program to its first answer.
    pub(crate) first_answer: Duration,
    child: Child,
}

impl Server {
    /// Starts `kind` on the server core with its files in `directory`. The floor drops one query of every
    /// `drop_every`, if that is not 0.
    pub(crate) fn start(kind: Kind, directory: &Path, drop_every: u64) -> io::Result<Self> {
        Self::start_as(kind, &Setup::LASTING, directory, drop_every)
    }

    /// Starts dnslet set up like this.
    pub(crate) fn dnslet(setup: &Setup, directory: &Path) -> io::Result<Self> {
        Self::start_as(Kind::Dnslet, setup, directory, 0)
    }

    fn start_as(kind: Kind, setup: &Setup, directory: &Path, drop_every: u64) -> io::Result<Self> {
        let directory = directory.join(kind.name().to_owned() + setup.name);
        fs::create_dir_all(&directory)?;
        let (address, metrics) = (free_port()?, free_port()?);
        let answerer = match kind {
            Kind::Floor => None,
            _ => Some(Answerer::start(setup.lifetimes)?),
        };
        let upstream = answerer.as_ref().map_or(address, |answerer| answerer.address);
        let places = Places { directory: &directory, listen: address, upstream, metrics };
        let mut command = command(kind, setup, &places, drop_every)?;
        let log = fs::File::create(directory.join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let begun = clock::now();
        let child = cores::on_server_core(|| command.spawn())?;
        let (processes, first_answer) = (vec![child.id()], Duration::ZERO);
        let mut server = Self { kind, address, metrics, answerer, processes, first_answer, child };
        server.wait_until_it_answers(&directory)?;
        server.first_answer = clock::now().saturating_duration_since(begun);
        server.processes = usage::family(server.child.id())?;
        Ok(server)
    }

    /// Queries its upstream has seen.
    pub(crate) fn upstream_queries(&self) -> u64 {
        self.answerer.as_ref().map_or(0, Answerer::asked)
    }

    /// The CPU time its upstream has used; none for the floor.
    pub(crate) fn upstream_cpu_time(&self) -> io::Result<Duration> {
        self.answerer.as_ref().map_or(Ok(Duration::ZERO), Answerer::cpu_time)
    }

    /// The values of dnslet's counters whose names start so, with what follows that in their names.
    pub(crate) fn counters(&self, prefix: &str) -> io::Result<Vec<(String, u64)>> {
        let mut stream = TcpStream::connect(self.metrics)?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.metrics)?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let series = text.lines().filter_map(|line| line.strip_prefix(prefix)?.rsplit_once(' '));
        Ok(series.filter_map(|(series, value)| Some((series.to_owned(), value.parse().ok()?))).collect())
    }

    fn wait_until_it_answers(&mut self, directory: &Path) -> io::Result<()> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_read_timeout(Some(KNOCK))?;
        let query = Workload::unique("ready", 1);
        let deadline = clock::now() + START;
        while clock::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
                return Err(io::Error::other(format!("{} ended at start ({status}):\n{log}", self.kind.name())));
            }
            socket.send_to(&query.questions[0].wire, self.address)?;
            let mut answer = [0; 512];
            if socket.recv_from(&mut answer).is_ok() && answer[3] & 0x0f == 0 {
                return Ok(());
            }
        }
        let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
        Err(io::Error::other(format!("{} gave no answer in {} s:\n{log}", self.kind.name(), START.as_secs())))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its own children first, so that none is left without a parent; a process that is gone already is fine.
        for &process in self.processes.iter().rev() {
            let _ = kill(Pid::from_raw(process as i32), Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

/// A loopback port that is free for UDP and TCP now.
fn free_port() -> io::Result<SocketAddr> {
    loop {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = udp.local_addr()?;
        match TcpListener::bind(address) {
            Ok(_) => return Ok(address),
            // Something has the number for TCP; the next one is another.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    }
}

/// Where a server has its files and whom it talks to.
struct Places<'a> {
    directory: &'a Path,
    listen: SocketAddr,
    upstream: SocketAddr,
    metrics: SocketAddr,
}

fn command(kind: Kind, setup: &Setup, places: &Places<'_>, drop_every: u64) -> io::Result<Command> {
    let &Places { directory, listen, upstream, .. } = places;
    let file = directory.join("conf");
    let mut command = kind.program()?;
    let text = match kind {
        Kind::Floor => {
            command.arg(floor::ARGUMENT).arg(listen.to_string()).arg(drop_every.to_string());
            return Ok(command);
        }
        Kind::Dnslet | Kind::Against => {
            command.args(["-workers", "1", "-setupinterface=false", "-setupiptables=false", "-conf"]).arg(&file);
            corefile(setup, places)
        }
        Kind::Unbound => {
            command.args(["-d", "-c"]).arg(&file);
            unbound_conf(listen, upstream)
        }
        Kind::Dnsdist => {
            command.args(["--supervised", "--disable-syslog", "-C"]).arg(&file);
            dnsdist_conf(listen, upstream)
        }
        Kind::Dnsmasq => {
            command.arg("-k").arg("-C").arg(&file);
            dnsmasq_conf(listen, upstream)
        }
    };
    fs::write(&file, text)?;
    command.current_dir(directory);
    Ok(command)
}

fn corefile(setup: &Setup, places: &Places<'_>) -> String {
    let &Places { listen, upstream, metrics, .. } = places;
    let (address, port) = (listen.ip(), listen.port());
    let block = |zone: &str, lines: &str| {
        format!(
            "{zone}:{port} {{\n errors\n bind {address}\n {lines}\n forward . {upstream}\n prometheus {metrics}\n}}\n"
        )
    };
    block("cluster.local", setup.cluster) + &block(".", setup.root)
}

fn unbound_conf(listen: SocketAddr, upstream: SocketAddr) -> String {
    let (address, port) = (listen.ip(), listen.port());
    let forward = format!("{}@{}", upstream.ip(), upstream.port());
    format!(
        "server:\n  interface: {address}@{port}\n  num-threads: 1\n  so-reuseport: no\n  chroot: \"\"\n  \
         username: \"\"\n  directory: \".\"\n  pidfile: \"\"\n  use-syslog: no\n  logfile: \"\"\n  verbosity: 0\n  \
         module-config: \"iterator\"\n  do-not-query-localhost: no\n  qname-minimisation: no\n  aggressive-nsec: no\n  \
         prefetch: no\n  msg-cache-size: 32m\n  rrset-cache-size: 64m\n  msg-cache-slabs: 1\n  rrset-cache-slabs: 1\n  \
         infra-cache-slabs: 1\n  key-cache-slabs: 1\n  outgoing-range: 4096\n  num-queries-per-thread: 2048\n\
         remote-control:\n  control-enable: no\n\
         forward-zone:\n  name: \"cluster.local\"\n  forward-addr: {forward}\n\
         forward-zone:\n  name: \".\"\n  forward-addr: {forward}\n"
    )
}

fn dnsdist_conf(listen: SocketAddr, upstream: SocketAddr) -> String {
    format!(
        "setSecurityPollSuffix(\"\")\nsetLocal(\"{listen}\", {{reusePort=false}})\n\
         setUDPMultipleMessagesVectorSize(64)\nsetMaxUDPOutstanding(65535)\n\
         newServer({{address=\"{upstream}\", healthCheckMode=\"up\"}})\n\
         getPool(\"\"):setCache(newPacketCache(100000, {{maxTTL=86400, maxNegativeTTL=3600, numberOfShards=1}}))\n"
    )
}

fn dnsmasq_conf(listen: SocketAddr, upstream: SocketAddr) -> String {
    let (address, port) = (listen.ip(), listen.port());
    let forward = format!("{}#{}", upstream.ip(), upstream.port());
    format!(
        "port={port}\nlisten-address={address}\nbind-interfaces\nuser=root\npid-file=\nno-resolv\nno-hosts\nno-poll\n\
         cache-size=10000\ndns-forward-max=1000\nserver=/cluster.local/{forward}\nserver={forward}\n"
    )
}
