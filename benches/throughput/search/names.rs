//! Queries per external name: what the client sends and what the agent asks its upstream, name by name, one at a time.

use std::fmt::Write as _;
use std::io;
use std::net::UdpSocket;
use std::path::Path;
use std::time::Duration;

use dnslet::sys::clock;

use super::{Findings, MODES, SHIPPED, start};
use crate::report::Target;
use crate::servers::Server;
use crate::stub::{Lookup, Name, Next, Search};
use crate::sys;

/// How many queries a name may cost the client, and the upstream.
const ALLOWED: u64 = 2;
/// Names of a row that has many.
const MANY: usize = 50;
/// An answer that has not come by then is lost.
const PATIENCE: Duration = Duration::from_secs(2);
/// When no query has reached the upstream for so long, none follows from the lookup before.
const QUIET: Duration = Duration::from_millis(5);
/// Longer than what the cluster says may be kept.
const EXPIRY: Duration = Duration::from_millis(5500);

/// What one lookup cost.
#[derive(Clone, Copy)]
struct Cost {
    client: u64,
    upstream: u64,
}

/// A line of the table: the costs without and with autopath, name by name.
struct Row {
    what: &'static str,
    costs: [Vec<Cost>; 2],
    /// Whether each name must keep to what is allowed, or the names together.
    goal: Option<Goal>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Goal {
    Each,
    Together,
}

pub(super) fn measure(directory: &Path, quick: bool) -> io::Result<Findings> {
    let agents = start(&SHIPPED, directory)?;
    let pods = [Pod::new(&agents[0])?, Pod::new(&agents[1])?];
    let ask = |what, goal, names: &[Name]| {
        Ok::<_, io::Error>(Row { what, goal, costs: [pods[0].costs(names)?, pods[1].costs(names)?] })
    };
    let many = |prefix: &str| (0..MANY).map(|i| external(&format!("{prefix}site-{i}.com"))).collect::<Vec<_>>();
    let (cold, short) = (many("www."), many(""));
    let tops = |host: &str| {
        ["net", "org", "io", "dev", "eu", "app", "cloud", "info"].map(|top| external(&format!("{host}.{top}")))
    };
    let mut rows = vec![
        ask("first name in a fresh agent", None, &[external("www.one.com")])?,
        ask("first name under another top-level domain", None, &tops("www.one"))?,
        ask("second name there", None, &tops("www.two"))?,
        ask("third name there", None, &tops("www.three"))?,
    ];
    // What was learnt of a domain is kept for five seconds: learnt anew, it lasts for what follows.
    if !quick {
        wait(EXPIRY);
    }
    ask("", None, &["www.two.com", "www.three.com", "www.four.com"].map(external))?;
    rows.push(ask("cold: a further name there", Some(Goal::Each), &cold)?);
    rows.push(ask("cold, of two labels (site.com)", Some(Goal::Each), &short)?);
    rows.push(ask("warm: asked again", Some(Goal::Each), &cold)?);
    if !quick {
        wait(EXPIRY);
        rows.push(ask("warm, the denials expired", Some(Goal::Together), &cold)?);
    }
    Ok(Findings {
        table: table(&rows),
        targets: rows.iter().filter_map(Row::target).collect(),
        json: rows.iter().map(Row::json).collect(),
    })
}

fn external(text: &str) -> Name {
    Name::new(text, [true, true])
}

fn table(rows: &[Row]) -> String {
    let mut out = String::from(
        "\nqueries per external name (ndots:5, A and AAAA, three suffixes): mean, and most for one name\n",
    );
    let line = |out: &mut String, what: &str, cells: [String; 4]| {
        let _ = write!(out, "  {what:<52}");
        for cell in cells {
            let _ = write!(out, "{cell:>16}");
        }
        out.push('\n');
    };
    let [off, on] = MODES;
    let heads = [off, off, on, on].map(|mode| format!("autopath {mode}"));
    line(&mut out, "", heads);
    line(&mut out, "", ["client", "upstream", "client", "upstream"].map(str::to_owned));
    for row in rows {
        let cell = |mode: usize, of: fn(&Cost) -> u64| format!("{:.2} ({})", row.mean(mode, of), row.most(mode, of));
        let [client, upstream]: [fn(&Cost) -> u64; 2] = [|cost| cost.client, |cost| cost.upstream];
        line(&mut out, row.what, [cell(0, client), cell(0, upstream), cell(1, client), cell(1, upstream)]);
    }
    out
}

impl Row {
    fn mean(&self, mode: usize, of: fn(&Cost) -> u64) -> f64 {
        self.costs[mode].iter().map(of).sum::<u64>() as f64 / self.costs[mode].len() as f64
    }

    fn most(&self, mode: usize, of: fn(&Cost) -> u64) -> u64 {
        self.costs[mode].iter().map(of).max().unwrap_or_default()
    }

    fn target(&self) -> Option<Target> {
        let goal = self.goal?;
        let is = |of| match goal {
            Goal::Each => self.most(1, of) as f64,
            Goal::Together => self.mean(1, of),
        };
        let (client, upstream) = (is(|cost| cost.client), is(|cost| cost.upstream));
        let scope = if goal == Goal::Each { "each name" } else { "a name on average" };
        Some(Target {
            text: format!(
                "search-names, {}: at most {ALLOWED} client and {ALLOWED} upstream queries for {scope}, are {client:.2} and \
                 {upstream:.2}",
                self.what
            ),
            met: Some(client.max(upstream) <= ALLOWED as f64),
        })
    }

    fn json(&self) -> serde_json::Value {
        let pairs = |mode: usize| self.costs[mode].iter().map(|cost| (cost.client, cost.upstream)).collect::<Vec<_>>();
        serde_json::json!({ "names": self.what, MODES[0]: pairs(0), MODES[1]: pairs(1) })
    }
}

/// A client that waits for each answer.
struct Pod<'a> {
    agent: &'a Server,
    socket: UdpSocket,
    search: Search,
}

impl<'a> Pod<'a> {
    fn new(agent: &'a Server) -> io::Result<Self> {
        let socket = UdpSocket::bind(sys::client_address(0))?;
        socket.connect(agent.address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { agent, socket, search: Search::of(0) })
    }

    fn costs(&self, names: &[Name]) -> io::Result<Vec<Cost>> {
        names.iter().map(|name| self.cost(name)).collect()
    }

    fn cost(&self, name: &Name) -> io::Result<Cost> {
        let before = self.agent.upstream_queries();
        let client = self.look_up(name)?;
        Ok(Cost { client, upstream: self.settled() - before })
    }

    /// Queries it sent until the lookup was over.
    fn look_up(&self, name: &Name) -> io::Result<u64> {
        let mut lookup = Lookup::new(name, &self.search);
        let mut sent = 0;
        loop {
            let first = sent as u16;
            for family in 0..2 {
                let mut query = vec![0; lookup.query_length()];
                lookup.write_query(family, first + family as u16, &mut query);
                self.socket.send(&query)?;
                sent += 1;
            }
            match self.hear(&mut lookup, first)? {
                Next::Done { right: true } => return Ok(sent),
                Next::Done { right: false } => return Err(io::Error::other("a lookup ended with another result")),
                Next::Ask | Next::Wait => {}
            }
        }
    }

    /// Takes the answers to both families.
    fn hear(&self, lookup: &mut Lookup<'_>, first: u16) -> io::Result<Next> {
        let mut message = [0; sys::SIZE];
        loop {
            let length = self.socket.recv(&mut message)?;
            let family = u16::from_be_bytes([message[0], message[1]]).wrapping_sub(first);
            if family < 2 {
                match lookup.hear(family.into(), &message[..length]) {
                    Next::Wait => {}
                    next => return Ok(next),
                }
            }
        }
    }

    /// How many queries the upstream has seen, once no more come.
    fn settled(&self) -> u64 {
        let mut seen = self.agent.upstream_queries();
        loop {
            wait(QUIET);
            let now = self.agent.upstream_queries();
            if now == seen {
                return seen;
            }
            seen = now;
        }
    }
}

/// Lets time pass, and others use the core.
fn wait(time: Duration) {
    let start = clock::now();
    while clock::now() - start < time {
        sys::yield_core();
    }
}
