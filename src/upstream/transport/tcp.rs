//! Questions over TCP and TLS: the few shared connections to one upstream, and how one is opened.
//!
//! Connections belong to the upstream, not to a worker: whoever needs one first dials it, and its task runs on that
//! worker's runtime; everybody else reaches it through a queue. If that runtime ends, the queue is closed and the
//! next question dials again.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rand::RngExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::Event;
use super::connection::{Connection, Lifetime};
use super::tls;
use crate::sys::clock;
use crate::upstream::failure::{Failure, Leg, Stage};
use crate::upstream::server::Upstream;
use crate::upstream::tally::Tally;

/// The most connections to one upstream (RFC 7766 section 6.2.2).
const MAX_CONNECTIONS: usize = 2;
/// The most questions in flight on one connection.
const MAX_IN_FLIGHT: usize = 8192;
/// A second connection is opened when the first has more questions in flight than this.
const SPREAD: usize = 64;
/// The most connections to one upstream that are open at a time: those, and the ones that are not used any more but may
/// still bring an answer.
const MAX_OPEN: usize = 3 * MAX_CONNECTIONS;
/// How long the handshakes, of TCP and of TLS, may take together: two dials fit into a client's patience.
const DIAL_LIMIT: Duration = Duration::from_millis(1500);

/// How the connections of a pool live.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keeping {
    /// Closed after this long without traffic.
    pub(crate) expire: Duration,
    /// Not used for new questions after this long.
    pub(crate) max_age: Option<Duration>,
    /// The most connections, within [`MAX_CONNECTIONS`].
    pub(crate) connections: usize,
}

impl Keeping {
    /// How long a connection lives that is opened at `now`.
    fn lifetime(&self, now: Instant) -> Lifetime {
        // Connections that were opened together, after a restart of the upstream say, do not end together.
        let spread = rand::rng().random_range(0.9..1.0);
        Lifetime { idle: self.expire, until: self.max_age.map(|age| now + age.mul_f64(spread)) }
    }
}

/// A question on its way to a connection's task.
pub(crate) struct Request {
    /// The query without length; its ID is replaced.
    pub(crate) query: Vec<u8>,
    /// Where the answer goes.
    pub(crate) reply: oneshot::Sender<Result<Vec<u8>, Failure>>,
    /// Whether it may be sent once more if its connection ends before it is answered.
    pub(crate) again: bool,
    keeping: Keeping,
}

/// A question that waits for its answer on a shared connection.
pub(crate) struct Question {
    answer: oneshot::Receiver<Result<Vec<u8>, Failure>>,
    load: Arc<Load>,
    /// What the connection had answered when this question was put to it.
    answered: u64,
    leg: Leg,
}

/// The connections to one upstream.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    open: Mutex<Vec<Handle>>,
    /// One clone for each task of a connection, whether that is in use or not.
    tasks: Arc<()>,
}

#[derive(Debug)]
struct Handle {
    queue: mpsc::UnboundedSender<Request>,
    load: Arc<Load>,
}

/// What is known of a connection from outside its task.
#[derive(Debug, Default)]
pub(crate) struct Load {
    in_flight: AtomicUsize,
    answered: AtomicU64,
    established: AtomicBool,
    local: OnceLock<SocketAddr>,
}

impl Load {
    /// A question was answered.
    pub(crate) fn answered(&self) {
        self.answered.fetch_add(1, Relaxed);
        self.leave();
    }

    /// A question is given up.
    pub(crate) fn leave(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }
}

impl Question {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        Pin::new(&mut self.answer).poll(cx).map(|result| match result {
            Ok(Ok(answer)) => Event::Answer(answer),
            Ok(Err(failure)) => Event::Failed(failure),
            // The connection's task went away with its runtime.
            Err(_) => Event::Failed(Failure::Closed(self.leg(), None)),
        })
    }

    pub(super) fn leg(&self) -> Leg {
        let stage = if self.load.established.load(Relaxed) { Stage::Read } else { Stage::Dial };
        Leg { stage, local: self.load.local.get().copied(), ..self.leg }
    }
}

impl Streams {
    /// Puts `query` to a connection of `upstream`, opening one where there is none or all are busy. With `again` it is
    /// sent once more if that connection ends before it is answered. Must be called on a tokio runtime.
    pub(crate) fn ask(
        &self,
        upstream: &Arc<Upstream>,
        query: &[u8],
        keeping: Keeping,
        again: bool,
    ) -> Result<Question, Failure> {
        let (reply, answer) = oneshot::channel();
        let request = Request { query: query.to_vec(), reply, again, keeping };
        let leg = upstream.stream_leg();
        let load = self.submit(upstream, vec![request], false).ok_or(Failure::Busy(leg))?;
        let answered = load.answered.load(Relaxed);
        Ok(Question { answer, load, answered, leg })
    }

    /// Takes the connection of an earlier question out of use if nothing at all has come from it since. It ends when
    /// nobody waits for it any more; as long as too many such ones are left, it stays in use.
    pub(crate) fn distrust(&self, earlier: &Question) {
        let load = &earlier.load;
        let silent = load.established.load(Relaxed) && load.answered.load(Relaxed) == earlier.answered;
        if silent && self.tasks() < MAX_OPEN {
            self.lock().retain(|handle| !Arc::ptr_eq(&handle.load, load));
        }
    }

    /// Whether a connection is there to be used at once.
    pub(crate) fn is_warm(&self) -> bool {
        self.lock().iter().any(|handle| handle.load.established.load(Relaxed) && !handle.queue.is_closed())
    }

    /// How many connections take questions now.
    pub(crate) fn count(&self) -> usize {
        self.lock().iter().filter(|handle| !handle.queue.is_closed()).count()
    }

    fn tasks(&self) -> usize {
        Arc::strong_count(&self.tasks) - 1
    }

    /// Hands requests to one connection; with `fresh` to the youngest, after opening one where that is allowed.
    /// `None` where every connection is full; the requests are then dropped, which tells whoever waits for them.
    fn submit(&self, upstream: &Arc<Upstream>, mut requests: Vec<Request>, fresh: bool) -> Option<Arc<Load>> {
        let keeping = requests.first()?.keeping;
        let limit = keeping.connections.clamp(1, MAX_CONNECTIONS);
        let mut open = self.lock();
        loop {
            open.retain(|handle| !handle.queue.is_closed());
            let chosen = if fresh { open.last() } else { open.iter().min_by_key(|handle| handle.cost()) };
            let may_dial = open.len() < limit && self.tasks() < MAX_OPEN;
            let dial = may_dial && (fresh || chosen.is_none_or(|handle| handle.cost() >= SPREAD));
            let handle = match chosen {
                Some(handle) if !dial => handle,
                None if !dial => return None,
                _ => {
                    open.push(dial_on_this_runtime(upstream, keeping, self.tasks.clone()));
                    &open[open.len() - 1]
                }
            };
            if !dial {
                upstream.tally().connection(upstream.stream_network(), true);
            }
            if handle.load.in_flight.load(Relaxed) + requests.len() > MAX_IN_FLIGHT {
                return None;
            }
            handle.load.in_flight.fetch_add(requests.len(), Relaxed);
            let load = handle.load.clone();
            let queue = handle.queue.clone();
            // A connection may close its queue at any moment; what it did not take goes to another one.
            requests =
                requests.into_iter().filter_map(|request| queue.send(request).err()).map(|error| error.0).collect();
            if requests.is_empty() {
                return Some(load);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Handle>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handle {
    /// What it costs to wait here: a handshake counts as much as the load at which another connection is opened.
    fn cost(&self) -> usize {
        let handshake = if self.load.established.load(Relaxed) { 0 } else { SPREAD / 2 };
        self.load.in_flight.load(Relaxed) + handshake
    }
}

/// Starts the task of a new connection.
fn dial_on_this_runtime(upstream: &Arc<Upstream>, keeping: Keeping, task: Arc<()>) -> Handle {
    let (queue, requests) = mpsc::unbounded_channel();
    let load = Arc::new(Load::default());
    upstream.tally().connection(upstream.stream_network(), false);
    let dial = Dial {
        target: upstream.target(),
        source: upstream.source(),
        tls: upstream.tls().cloned(),
        leg: upstream.stream_leg(),
        load: load.clone(),
        tally: upstream.tally().clone(),
        keeping,
        owner: Arc::downgrade(upstream),
    };
    tokio::spawn(async move {
        let _task = task;
        dial.run(requests).await;
    });
    Handle { queue, load }
}

/// Everything a connection's task needs, without keeping the upstream alive.
struct Dial {
    target: io::Result<SocketAddr>,
    source: Option<IpAddr>,
    tls: Option<tls::Client>,
    leg: Leg,
    load: Arc<Load>,
    tally: Arc<Tally>,
    keeping: Keeping,
    owner: Weak<Upstream>,
}

/// An open connection.
enum Stream {
    Plain(TcpStream),
    Tls(Box<tls::Stream>),
}

impl Dial {
    async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        let (end, mut left) = match self.open().await {
            Ok(Stream::Plain(stream)) => self.connection(stream, requests).serve().await,
            Ok(Stream::Tls(stream)) => self.connection(*stream, requests).serve().await,
            Err(failure) => {
                requests.close();
                while let Some(request) = requests.recv().await {
                    let _ = request.reply.send(Err(failure.clone()));
                }
                return;
            }
        };
        left.close();
        let mut unanswered = end.unanswered;
        while let Some(request) = left.recv().await {
            unanswered.push(request);
        }
        self.resend(unanswered, &end.failure);
    }

    async fn open(&mut self) -> Result<Stream, Failure> {
        match timeout(DIAL_LIMIT, self.shake_hands()).await {
            Ok(Ok(stream)) => {
                self.load.established.store(true, Relaxed);
                Ok(stream)
            }
            Ok(Err(error)) => Err(Failure::from_io(&error, self.leg)),
            Err(_) => Err(Failure::Timeout(self.leg)),
        }
    }

    async fn shake_hands(&mut self) -> io::Result<Stream> {
        let stream = self.connect().await?;
        match &self.tls {
            None => Ok(Stream::Plain(stream)),
            Some(client) => Ok(Stream::Tls(Box::new(client.handshake(stream).await?))),
        }
    }

    async fn connect(&mut self) -> io::Result<TcpStream> {
        let target = std::mem::replace(&mut self.target, Err(io::ErrorKind::NotConnected.into()))?;
        let socket = if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        if let Some(source) = self.source.filter(|source| source.is_ipv4() == target.is_ipv4()) {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        socket.set_nodelay(true)?;
        let stream = socket.connect(target).await?;
        if let Ok(local) = stream.local_addr() {
            self.leg.local = Some(local);
            let _ = self.load.local.set(local);
        }
        Ok(stream)
    }

    fn connection<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        requests: mpsc::UnboundedReceiver<Request>,
    ) -> Connection<S> {
        let lifetime = self.keeping.lifetime(clock::now());
        Connection::new(stream, requests, self.load.clone(), self.tally.clone(), self.leg, lifetime)
    }

    /// Puts what the connection left unanswered to a fresh one, each question once (RFC 7766 section 6.2.4).
    fn resend(&self, unanswered: Vec<Request>, failure: &Failure) {
        let owner = self.owner.upgrade();
        // One that does not answer its checks either gets nothing but probes.
        let answering = owner.as_ref().filter(|upstream| upstream.health().fails() == 0);
        let now = clock::now();
        let permitted = |upstream: &Arc<Upstream>| {
            let permitted = upstream.budget().packet(false, now);
            if !permitted {
                upstream.budget().pace();
            }
            permitted
        };
        let (mut again, lost): (Vec<_>, Vec<_>) = unanswered
            .into_iter()
            .filter(|request| !request.reply.is_closed())
            .partition(|request| request.again && answering.is_some_and(permitted));
        for request in lost {
            let _ = request.reply.send(Err(failure.clone()));
        }
        again.iter_mut().for_each(|request| request.again = false);
        if let Some(upstream) = owner {
            again.iter().for_each(|_| self.tally.retry());
            upstream.streams().submit(&upstream, again, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_that_were_opened_together_do_not_end_together() {
        let now = clock::now();
        let keeping =
            Keeping { expire: Duration::from_secs(10), max_age: Some(Duration::from_secs(60)), connections: 2 };
        let mut ends: Vec<Instant> = (0..100).filter_map(|_| keeping.lifetime(now).until).collect();
        ends.sort();
        assert!(ends[0] >= now + Duration::from_secs(54) && ends[99] <= now + Duration::from_secs(60));
        assert!(ends[99] - ends[0] > Duration::from_secs(3), "{:?}", ends[99] - ends[0]);
    }
}
