//! What one client, one zone and the host itself may have of a small memory: as much as ordinary ones ask for, and who is
//! refused learns by which limit.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::Duration;

use crate::support::cgroup::Cgroup;
use crate::support::client::Udp;
use crate::support::time::{self, PATIENCE};
use crate::support::wire::{A, NOERROR, SERVFAIL};
use crate::support::{Agent, Message, Query, Upstream};

/// What the two processes may use.
const MEMORY: u64 = 64 << 20;
/// Where programs of this host ask from.
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const SHED: &str = "dnslet_misses_shed_total";

/// An agent with as many workers as there are on a machine with 64 processors, and an upstream that answers when it is
/// told to.
struct Lab {
    agent: Agent,
    upstream: Upstream,
    _group: Cgroup,
}

impl Lab {
    fn start() -> Lab {
        let (group, upstream) = (Cgroup::limited(MEMORY), Upstream::start());
        let plan = Agent::plan_inside(&group, None).arguments(&["-workers", "4"]);
        let forward = format!("forward . {} {{\n max_connect_attempts 1\n max_fails 0\n }}", upstream.address());
        let (root, zone) = (plan.block(".", &forward), plan.block("cluster.local", &forward));
        let agent = plan.corefile(&(root + &zone)).start();
        Lab { agent, upstream, _group: group }
    }

    fn client(&self, ip: IpAddr) -> Udp {
        Udp::between((ip, 0).into(), self.agent.dns())
    }

    fn await_waiting(&self, count: usize) {
        let now = || self.agent.metric("dnslet_misses_in_flight", &[]);
        time::until("queries that wait", || (now() as usize == count).then_some(()));
    }

    /// Asks for these names from the address, all at once, and expects an answer to each.
    fn all_are_answered(&self, ip: IpAddr, count: usize, name: impl Fn(usize) -> String) {
        // Several sockets, so that the replies fit into the buffers that they have.
        let clients: Vec<(usize, Udp)> = (0..count).step_by(50).map(|first| (first, self.client(ip))).collect();
        for (first, client) in &clients {
            send(client, *first, &name);
        }
        self.await_waiting(count);
        self.upstream.release();
        for (_, client) in &clients {
            for _ in 0..50 {
                assert_eq!(receive(client).rcode, NOERROR);
            }
        }
        assert_eq!(self.agent.metric(SHED, &[]), 0.0);
    }

    /// Asks for these names from the address until one is refused, and gives what the refusal says.
    fn refused(&self, ip: IpAddr, reason: &str, name: impl Fn(usize) -> String) -> String {
        let client = self.client(ip);
        for first in (0..1000).step_by(50) {
            send(&client, first, &name);
            if let Some(raw) = client.receive(Duration::from_millis(10)) {
                let reply = Message::parse(&raw).expect("a well-formed reply");
                assert_eq!((reply.rcode, reply.errors()), (SERVFAIL, vec![0]), "after {first} queries");
                assert!(self.agent.metric(SHED, &[("reason", reason)]) > 0.0, "{}", self.agent.metrics());
                return reply.error_texts().concat();
            }
        }
        panic!("nothing was refused");
    }
}

/// Sends queries for fifty names.
fn send(client: &Udp, first: usize, name: impl Fn(usize) -> String) {
    for number in first..first + 50 {
        client.send(&Query::new(&name(number), A).edns(1232).bytes());
    }
}

fn receive(client: &Udp) -> Message {
    Message::parse(&client.receive(PATIENCE).expect("a reply")).expect("a well-formed reply")
}

/// An address like that of a pod.
fn pod() -> IpAddr {
    Ipv4Addr::new(127, 50, rand::random(), rand::random_range(1..=254)).into()
}

/// A name in a zone of its own.
fn apart(number: usize) -> String {
    format!("hold.z{number}.test.")
}

#[test]
fn three_hundred_equal_queries_of_one_client_are_answered() {
    let lab = Lab::start();
    lab.all_are_answered(pod(), 300, |_| "hold.equal.test.".to_owned());
    assert_eq!(lab.upstream.count("hold.equal.test."), 1);
}

#[test]
fn a_hundred_misses_of_one_client_are_answered() {
    Lab::start().all_are_answered(pod(), 100, apart);
}

#[test]
fn the_host_itself_is_not_one_client() {
    let lab = Lab::start();
    lab.all_are_answered(HOST, 250, apart);
    let lab = Lab::start();
    lab.all_are_answered(lab.agent.ip(), 250, apart);
}

#[test]
fn who_is_refused_learns_by_which_limit() {
    let lab = Lab::start();
    let text = lab.refused(pod(), "client", apart);
    assert!(text.contains("this client"), "{text}");
    let lab = Lab::start();
    let text = lab.refused(HOST, "zone", |number| format!("hold.n{number}.one.test."));
    assert!(text.contains("this domain"), "{text}");
    let lab = Lab::start();
    let text = lab.refused(HOST, "flights", apart);
    assert!(text.contains("too many names"), "{text}");
    let lab = Lab::start();
    let text = lab.refused(HOST, "waiting", |_| "hold.equal.test.".to_owned());
    assert!(text.contains("too many queries"), "{text}");
}

#[test]
fn a_namespace_of_a_cluster_is_a_zone_of_its_own() {
    let lab = Lab::start();
    lab.refused(HOST, "zone", |number| format!("hold.n{number}.one.svc.cluster.local."));
    let other = lab.client(HOST);
    other.send(&Query::new("hold.n0.two.svc.cluster.local.", A).bytes());
    lab.upstream.release();
    assert_eq!(receive(&other).rcode, NOERROR);
}

#[test]
fn the_limits_in_force_are_shown() {
    let mut lab = Lab::start();
    lab.agent.wait_for_log("[INFO] Limits: 4 workers, ");
    let limit = |of| lab.agent.metric("dnslet_limit", &[("of", of)]);
    let (flights, waiting) = (limit("flights"), limit("waiting"));
    assert!(flights >= 300.0 && waiting >= 600.0, "{flights} {waiting}");
    assert!(limit("flights_per_client") >= 100.0 && limit("waiting_per_client") >= 300.0);
    assert!(limit("flights_per_zone") >= 100.0 && limit("tcp_connections") >= 500.0);
    assert!(limit("tcp_connections_per_client") >= 250.0 && limit("receive_buffer_bytes") >= f64::from(256 << 10));
}

#[test]
fn too_little_memory_is_said_at_start_and_by_check() {
    let group = Cgroup::limited(MEMORY);
    let plan = Agent::plan_inside(&group, None).arguments(&["-cache-memory", "48Mi"]).root("whoami");
    let mut agent = plan.start();
    let said = "the memory limit of 64 MiB leaves too little";
    agent.wait_for_log(said);
    let check = Command::new("sh")
        .args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""])
        .arg(group.path())
        .args([env!("CARGO_BIN_EXE_dnslet"), "check", "-cache-memory=48Mi"])
        .output()
        .expect("sh");
    let printed = String::from_utf8_lossy(&check.stderr);
    assert!(check.status.success() && printed.contains(said), "{printed}");
}
