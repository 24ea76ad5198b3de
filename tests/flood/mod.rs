//! Floods: made-up names and greedy clients, inside a memory limit. Hot names, quiet clients and the process itself have
//! to come through.
//!
//! In the ordinary run the agent is a debug build, which a flood of the full size would only starve, so rates and time are
//! parts of it. `DNSLET_FLOOD_BINARY=target/release/dnslet cargo test --test tests flood -- --nocapture` is the whole.

mod load;
mod streams;

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::support::cgroup::Cgroup;
use crate::support::wire::{NOERROR, NXDOMAIN, SERVFAIL};
use crate::support::{Agent, time};

use load::{Fast, Quiet, Running, Sent, flood, quiet};

/// What the two processes may use.
const MEMORY: u64 = 64 << 20;
/// Numbers of entries that only octets can bound.
const LARGE: &str = " success 1000000\n denial 1000000\n";
/// How many names are hot.
const HOT: u64 = 500;

/// How long, and how much.
struct Size {
    binary: Option<PathBuf>,
    duration: Duration,
    /// What part of the full rates is sent.
    part: u64,
}

impl Size {
    fn chosen() -> Size {
        match std::env::var_os("DNSLET_FLOOD_BINARY") {
            Some(binary) => {
                let binary = fs::canonicalize(binary).expect("DNSLET_FLOOD_BINARY names a build of the agent");
                Size { binary: Some(binary), duration: Duration::from_secs(60), part: 1 }
            }
            None => Size { binary: None, duration: Duration::from_secs(8), part: 10 },
        }
    }
}

/// Addresses of clients, apart from those of agents and upstreams.
fn clients(group: u8, count: u8) -> Vec<IpAddr> {
    (1..=count).map(|last| Ipv4Addr::new(127, 40 + group, rand::random(), last).into()).collect()
}

/// An agent inside the limit, its group, and both of its processes.
struct Lab {
    agent: Agent,
    upstream: Fast,
    processes: [u32; 2],
    size: Size,
    group: Cgroup,
}

impl Lab {
    fn start() -> Lab {
        let (size, group, upstream) = (Size::chosen(), Cgroup::limited(MEMORY), Fast::start());
        let plan = Agent::plan_inside(&group, size.binary.as_deref());
        let agent = plan
            .root(&format!("cache {{\n{LARGE} serve_stale 1h verify\n }}\n forward . {}", upstream.address()))
            .start();
        let processes = [agent.pid(), agent.server()];
        let lab = Lab { agent, upstream, processes, size, group };
        // Asked twice, so that each name has been of use.
        for _ in 0..2 {
            for name in 0..HOT {
                assert_eq!(lab.agent.ask_a(&format!("h{name:03}.hot.test.")).rcode, NOERROR);
            }
        }
        lab
    }

    /// Lets time pass and returns the most octets that were resident: as the kernel reports it for each process, and of
    /// that what is not a file's.
    fn watch(&self) -> [u64; 2] {
        let end = time::now() + self.size.duration;
        let mut most = [0, 0];
        while time::now() < end {
            time::pass(Duration::from_millis(100));
            for (most, field) in most.iter_mut().zip(["VmRSS:", "RssAnon:"]) {
                *most = self.processes.iter().map(|process| resident(*process, field)).sum::<u64>().max(*most);
            }
        }
        most
    }

    /// Nothing was killed, and nothing took more than it may.
    fn has_stayed_inside(&self, [all, anonymous]: [u64; 2]) {
        let mib = |octets: u64| octets as f64 / f64::from(1 << 20);
        let peak = self.group.peak();
        println!(
            "memory: {:.1} MiB resident, {:.1} MiB of it no file's; the group's peak {:.1} MiB of {:.0}",
            mib(all),
            mib(anonymous),
            mib(peak),
            mib(MEMORY)
        );
        assert_eq!(self.group.kills(), 0, "nothing is killed");
        assert_eq!([self.agent.pid(), self.agent.server()], self.processes, "the server is the one that was started");
        assert!(peak < MEMORY, "{peak} octets: the limit was reached");
        // The code of a debug build is far larger than what is shipped.
        let counted = if self.size.binary.is_some() { all } else { anonymous };
        assert!(counted < MEMORY, "{counted} octets resident");
    }

    fn shed(&self, reason: &str) -> f64 {
        self.agent.metric("dnslet_misses_shed_total", &[("reason", reason)])
    }
}

/// A field of `/proc/PID/status`, in octets.
fn resident(process: u32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/status")).expect("the process is alive");
    let line = text.lines().find_map(|line| line.strip_prefix(field)).expect("a kernel that tells");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

fn nothing_is_lost(quiet: Running<Quiet>) {
    let quiet = quiet.stop();
    println!("quiet clients: {quiet:?}");
    assert!(quiet.asked > 100, "{quiet:?}");
    assert_eq!((quiet.lost, quiet.refused), (0, 0), "of {} queries of quiet clients", quiet.asked);
}

fn report(what: &str, running: Running<Sent>) -> Sent {
    let sent = running.stop();
    let [answered, failed, denied] = [NOERROR, SERVFAIL, NXDOMAIN].map(|rcode| sent.replies[usize::from(rcode)]);
    println!(
        "{what}: {:.0} queries/s over {:.0} s; replies: NOERROR {answered}, NXDOMAIN {denied}, SERVFAIL {failed}",
        sent.rate(),
        sent.seconds
    );
    sent
}

#[test]
fn made_up_names_and_a_greedy_client_cost_others_nothing() {
    let lab = Lab::start();
    let (server, part) = (lab.agent.dns(), lab.size.part);
    let before = lab.upstream.hot.load(Relaxed);
    let quiet = quiet(&clients(1, 20), server, Duration::from_millis(100), true);
    let hot = flood(&clients(2, 4), server, 2000 / part, "h###.hot.test.", HOT);
    let made_up = flood(&clients(3, 50), server, 5000 / part, "r########.flood.test.", u64::MAX);
    let greedy = flood(&clients(4, 1), server, 20_000 / part, "n########.z########.test.", u64::MAX);
    let resident = lab.watch();
    let asked_upstream = lab.upstream.hot.load(Relaxed) - before;
    for (what, running) in [("made-up names", made_up), ("greedy client", greedy)] {
        assert!(report(what, running).sent > 1000, "a flood");
    }
    let hot = report("hot names", hot);
    let rate = 1.0 - asked_upstream as f64 / hot.sent as f64;
    println!("hit rate of hot names: {:.4} %; upstream: {} questions", rate * 100.0, lab.upstream.all.load(Relaxed));
    println!("shed: {:?}", ["flights", "client", "zone", "waiting"].map(|reason| (reason, lab.shed(reason))));
    nothing_is_lost(quiet);
    assert!(rate >= 0.999, "{asked_upstream} of {} hot queries reached the upstream", hot.sent);
    lab.has_stayed_inside(resident);
}

#[test]
fn a_slow_zone_and_a_greedy_client_take_their_share_only() {
    let lab = Lab::start();
    let (server, part) = (lab.agent.dns(), lab.size.part);
    let quiet = quiet(&clients(5, 20), server, Duration::from_millis(100), true);
    let zone = flood(&clients(6, 50), server, 5000 / part, "r########.late.test.", u64::MAX);
    let greedy = flood(&clients(7, 1), server, 20_000 / part, "n########.late.z########.", u64::MAX);
    let resident = lab.watch();
    for (what, running) in [("one zone", zone), ("greedy client", greedy)] {
        assert!(report(what, running).sent > 1000, "a flood");
    }
    nothing_is_lost(quiet);
    assert!(lab.shed("zone") > 0.0 && lab.shed("client") > 0.0, "both met their bounds");
    assert_eq!((lab.shed("flights"), lab.shed("waiting")), (0.0, 0.0), "there was room for others");
    lab.has_stayed_inside(resident);
}

#[test]
fn a_full_house_stays_inside_the_limit_and_answers_what_it_knows() {
    let lab = Lab::start();
    let (server, part) = (lab.agent.dns(), lab.size.part);
    let quiet = quiet(&clients(8, 20), server, Duration::from_millis(100), false);
    let flood = flood(&clients(9, 100), server, 20_000 / part, "r########.late.z########.", u64::MAX);
    let resident = lab.watch();
    let flood = report("many clients and zones", flood);
    assert!(flood.replies[usize::from(SERVFAIL)] > 0, "{flood:?}");
    nothing_is_lost(quiet);
    assert!(lab.shed("flights") + lab.shed("waiting") > 0.0, "there was no room left");
    lab.has_stayed_inside(resident);
}
