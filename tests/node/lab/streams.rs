//! Clients over TCP that ask again and again on a connection of their own, and on another one when it ends.

use std::fmt;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{Host, NAME, Who};
use crate::support::client::Tcp;
use crate::support::wire::A;
use crate::support::{Query, time};

/// Between an answer and the next query of a connection.
const PAUSE: Duration = Duration::from_millis(10);
/// How long a reply is waited for.
const LATE: Duration = Duration::from_secs(5);

/// Such clients, each with one server.
pub struct Streams {
    pub from: Host,
    pub servers: Vec<SocketAddr>,
    pub connections: usize,
    /// Queries after which a client goes on with another connection.
    pub each: usize,
}

/// Clients that are asking.
pub struct Asking {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Answers>>,
}

/// What became of their queries.
#[derive(Debug, Default)]
pub struct Answers {
    /// Queries that were answered, on whichever connection.
    pub answered: usize,
    /// Connections that were made.
    pub connections: usize,
    /// Queries whose connection ended before a reply, and which were asked again on another one.
    pub again: usize,
    /// Connections that could not be made, queries without a reply, and those whose second connection ended before one too.
    pub lost: Vec<String>,
    /// The longest that an answer took, another connection included.
    pub slowest: Duration,
}

impl Streams {
    pub fn start(self) -> Asking {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..self.connections).map(|number| {
            let (from, each, stop) = (self.from, self.each, Arc::clone(&stop));
            let server = self.servers[number % self.servers.len()];
            thread::spawn(move || {
                from.enter();
                ask_until(&stop, server, each)
            })
        });
        Asking { clients: clients.collect(), stop }
    }
}

impl Asking {
    /// Stops asking and adds up.
    pub fn stop(self) -> Answers {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Answers::default();
        for client in self.clients {
            let one = client.join().expect("a client does not panic");
            all.answered += one.answered;
            all.connections += one.connections;
            all.again += one.again;
            all.lost.extend(one.lost);
            all.slowest = all.slowest.max(one.slowest);
        }
        all
    }
}

impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Answers { answered, connections, again, lost, slowest } = self;
        write!(
            f,
            "TCP: {answered} answered on {connections} connections, {again} asked again, lost {lost:?}, slowest answer \
             {slowest:?}"
        )
    }
}

fn ask_until(stop: &AtomicBool, server: SocketAddr, each: usize) -> Answers {
    let (mut answers, mut connection) = (Answers::default(), None);
    while !stop.load(Ordering::Relaxed) {
        let begun = time::now();
        match answers.ask(&mut connection, server) {
            Ok(()) => answers.answered += 1,
            Err(how) => answers.lost.push(format!("{server}: {how}")),
        }
        answers.slowest = answers.slowest.max(begun.elapsed());
        if answers.answered.is_multiple_of(each) {
            connection = None;
        }
        time::pass(PAUSE);
    }
    answers
}

impl Answers {
    /// Asks one query, on a second connection if the first one ends.
    fn ask(&mut self, connection: &mut Option<Tcp>, server: SocketAddr) -> Result<(), String> {
        let was_open = connection.is_some();
        if self.try_to_ask(connection, server)? {
            return Ok(());
        }
        if was_open {
            self.again += 1;
            if self.try_to_ask(connection, server)? {
                return Ok(());
            }
        }
        Err("a new connection ended before a reply".to_owned())
    }

    /// False if the connection ended before a reply.
    fn try_to_ask(&mut self, connection: &mut Option<Tcp>, server: SocketAddr) -> Result<bool, String> {
        let mut client = match connection.take() {
            Some(client) => client,
            None => self.connect(server)?,
        };
        let sent = time::now();
        let reply = client.try_send(&Query::new(NAME, A).bytes()).then(|| client.receive()).flatten();
        match reply.map(|reply| Who::wrote(&reply)) {
            Some(Some(Who::Agent)) => {
                *connection = Some(client);
                Ok(true)
            }
            Some(other) => Err(format!("answered by {other:?}")),
            None if sent.elapsed() >= LATE => Err("no reply".to_owned()),
            None => Ok(false),
        }
    }

    fn connect(&mut self, server: SocketAddr) -> Result<Tcp, String> {
        let stream = TcpStream::connect(server).map_err(|error| format!("no connection: {error}"))?;
        stream.set_read_timeout(Some(LATE)).expect("a positive time");
        stream.set_nodelay(true).expect("a TCP socket");
        self.connections += 1;
        Ok(Tcp(stream))
    }
}
