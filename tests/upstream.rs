//! What clients see, when, and what it costs, whatever an upstream does: `table` says it for each behaviour of the
//! scripted upstream over UDP, TCP and TLS, `alone` for an upstream that stays in trouble, `beside` for one in trouble
//! beside another.

#[path = "upstream/alone.rs"]
mod alone;
#[path = "upstream/beside.rs"]
mod beside;
#[path = "upstream/table.rs"]
mod table;

use std::path::PathBuf;
use std::time::Duration;
use std::{fs, thread};

use crate::support::upstream::Seen;
use crate::support::wire::A;
use crate::support::{Agent, Message, Query, Upstream, time};

/// When clients have their reply at the latest, however late the upstream is.
const BUDGET: Duration = Duration::from_millis(4500);
/// What a busy machine may add to it.
const MARGIN: Duration = Duration::from_millis(500);

/// Over what the agent asks its upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Via {
    Udp,
    Tcp,
    Tls,
}

impl Via {
    const ALL: [Via; 3] = [Via::Udp, Via::Tcp, Via::Tls];

    /// Whether a query may have come like that; what is asked over UDP may go on over TCP.
    fn carries(self, seen: &Seen) -> bool {
        match self {
            Via::Udp => !seen.tls,
            Via::Tcp => seen.tcp && !seen.tls,
            Via::Tls => seen.tls,
        }
    }

    /// An upstream that can be asked like this.
    fn upstream(self) -> Upstream {
        if self == Via::Tls { Upstream::with_tls() } else { Upstream::start() }
    }

    /// A `forward` line with these options, to be read from top to bottom and asked like this.
    fn forward(self, upstreams: &[&Upstream], options: &str) -> String {
        let addresses: Vec<String> = upstreams.iter().map(|upstream| self.address(upstream)).collect();
        let own = match self {
            Via::Udp => String::new(),
            Via::Tcp => "force_tcp".to_owned(),
            Via::Tls => format!("tls {}", authorities(upstreams).display()),
        };
        format!("forward . {} {{\n policy sequential\n {own}\n {options}\n }}", addresses.join(" "))
    }

    fn address(self, upstream: &Upstream) -> String {
        match self {
            Via::Udp | Via::Tcp => upstream.address().to_string(),
            Via::Tls => format!("tls://{}", upstream.tls_address()),
        }
    }

    /// An agent with a cache and these upstreams.
    fn agent(self, upstreams: &[&Upstream], options: &str) -> Agent {
        Agent::root(&format!("cache\n {}", self.forward(upstreams, options)))
    }
}

/// A file with the authorities of all of them.
fn authorities(upstreams: &[&Upstream]) -> PathBuf {
    let read = |upstream: &&Upstream| fs::read_to_string(upstream.authority()).expect("a file of this test");
    let all = upstreams[0].authority().with_file_name("all.pem");
    fs::write(&all, upstreams.iter().map(read).collect::<String>()).expect("a writable directory");
    all
}

/// Does the same over UDP, TCP and TLS at a time.
#[track_caller]
fn over_each(test: impl Fn(Via) + Sync) {
    thread::scope(|scope| {
        let running = Via::ALL.map(|via| {
            let test = &test;
            (via, scope.spawn(move || test(via)))
        });
        let failed = running.into_iter().filter_map(|(via, thread)| thread.join().is_err().then_some(via));
        let failed: Vec<Via> = failed.collect();
        assert!(failed.is_empty(), "failed over {failed:?}, see above");
    });
}

/// Asks for an A record with EDNS, so that reasons can be told; says how long the reply took.
#[track_caller]
fn ask(agent: &Agent, name: &str) -> (Message, Duration) {
    let started = time::now();
    let reply = agent.ask(&Query::new(name, A).edns(1232));
    (reply, started.elapsed())
}
