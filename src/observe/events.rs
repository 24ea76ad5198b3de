//! What a worker counts beside its queries: work refused and why, and levels that go up and down. One writer per
//! worker, as in the slabs.

use super::counters::{self, Metric};
use super::exposition::Exposition;
use super::histogram::Cell;

/// One worker's own numbers, written by that worker alone.
#[derive(Debug)]
#[repr(align(128))]
pub struct Worker {
    events: [Cell; EVENTS.len()],
    levels: [Cell; LEVELS.len()],
}

macro_rules! events {
    ($($(#[$doc:meta])* $event:ident = $metric:ident $($label:literal)?,)*) => {
        /// Something that happened on a worker. Each adds to one series of the table of metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Event {
            $($(#[$doc])* $event,)*
        }

        const EVENTS: &[(&Metric, &[&str])] = &[$((&counters::$metric, &[$($label)?])),*];
    };
}

events! {
    /// A datagram was read.
    DatagramReceived = DATAGRAMS_RECEIVED,
    /// A system call read one or more datagrams.
    ReceiveCall = RECEIVE_CALLS,
    /// A system call that should have read datagrams failed.
    ReceiveError = RECEIVE_ERRORS,
    /// A datagram shorter than a header.
    DroppedShort = DATAGRAMS_DROPPED "short",
    /// A message with QR set: answering it could start a loop.
    DroppedResponse = DATAGRAMS_DROPPED "response",
    /// From port 0 or from an address that nobody can have.
    DroppedSource = DATAGRAMS_DROPPED "source",
    /// No room in the queue of the listening socket.
    DroppedQueue = DATAGRAMS_DROPPED "queue",
    /// The send buffer stayed full.
    DroppedBuffer = DATAGRAMS_DROPPED "buffer",
    /// A firewall forbids the reply.
    DroppedFirewall = DATAGRAMS_DROPPED "firewall",
    /// No way back to the client.
    DroppedUnreachable = DATAGRAMS_DROPPED "unreachable",
    /// The kernel did not take the reply for another reason.
    DroppedSend = DATAGRAMS_DROPPED "send",
    /// Answered with FORMERR.
    RejectedFormat = QUERIES_REJECTED "format",
    /// Answered with NOTIMP.
    RejectedOpcode = QUERIES_REJECTED "opcode",
    /// A class that is not served.
    RejectedClass = QUERIES_REJECTED "class",
    /// A type that is not served: a transfer, a meta type.
    RejectedType = QUERIES_REJECTED "type",
    /// An EDNS version that is not spoken.
    RejectedVersion = QUERIES_REJECTED "version",
    /// A client whose network is not served.
    RejectedClient = QUERIES_REJECTED "client",
    /// A name in no zone.
    RejectedZone = QUERIES_REJECTED "zone",
    /// A later name of the search list exists: the reply leads there.
    WalkFound = AUTOPATH_WALKS "found",
    /// The name that was asked for exists itself.
    WalkFirst = AUTOPATH_WALKS "first",
    /// A name exists and has nothing of the type.
    WalkNoData = AUTOPATH_WALKS "nodata",
    /// No name of the search list exists.
    WalkMissing = AUTOPATH_WALKS "missing",
    /// A name could not be resolved, and whether it exists is not known.
    WalkFailed = AUTOPATH_WALKS "failed",
    /// The namespace in the question does not exist, or nobody knows: it is no search list of a pod.
    PlainNamespace = AUTOPATH_PLAIN "namespace",
    /// The client walks its list itself, and this is a later name of it.
    PlainContinued = AUTOPATH_PLAIN "continued",
    /// `except` names it.
    PlainExcept = AUTOPATH_PLAIN "except",
    /// The list is longer than `max_depth`.
    PlainDepth = AUTOPATH_PLAIN "depth",
    /// The aliases that were found lead back to the name asked for.
    PlainLoop = AUTOPATH_PLAIN "loop",
    /// What was found is half an answer.
    PlainTruncated = AUTOPATH_PLAIN "truncated",
    /// The upstreams were too slow, all together.
    PlainLate = AUTOPATH_PLAIN "late",
    /// The cache had the name, or its denial.
    StepKnown = AUTOPATH_STEPS "cache",
    /// An upstream was asked for the name.
    StepAsked = AUTOPATH_STEPS "upstream",
    /// An upstream was asked for the name just below the suffix, which does not exist either.
    StepTop = AUTOPATH_STEPS "above",
    /// The name would be too long.
    StepTooLong = AUTOPATH_STEPS "too_long",
    /// A client did not have to send a query.
    WalkSaved = AUTOPATH_SAVED,
    /// The denial of a name above was used.
    DenialCut = DENIAL_CUTS,
    /// The denial of a name above was not used.
    DenialCutRefused = DENIAL_CUTS_REFUSED,
    /// A AAAA question was answered with no data.
    AaaaOff = AAAA_OFF,
    /// The query joined a miss that was already being resolved.
    FlightJoined = FLIGHTS_JOINED,
    /// Too many misses are being resolved.
    ShedFlights = MISSES_SHED "flights",
    /// The client has its share of misses, or of queries that wait.
    ShedClient = MISSES_SHED "client",
    /// Too many names of the zone are being asked for.
    ShedZone = MISSES_SHED "zone",
    /// Too many queries wait.
    ShedWaiting = MISSES_SHED "waiting",
    /// `max_concurrent` queries are under way.
    ShedUpstream = MISSES_SHED "max_concurrent",
    /// The question had failed just before.
    FailedAgain = FAILURES_REPEATED,
    /// As many packets a second as may be go to upstreams.
    ShedPaced = MISSES_SHED "pps",
    /// No upstream answered in time.
    FailedTimeout = FAILURES "timeout",
    /// The network refused: unreachable, reset, closed, refused.
    FailedNetwork = FAILURES "network",
    /// This host is short of descriptors, memory or places on a connection.
    FailedLocal = FAILURES "local",
    /// TLS did not come about.
    FailedTls = FAILURES "tls",
    /// Every upstream is marked down.
    FailedUnhealthy = FAILURES "unhealthy",
    /// The upstream's answer could not be used.
    FailedAnswer = FAILURES "answer",
    /// The query would come back to us.
    FailedLoop = FAILURES "loop",
    /// Nothing in the block answers such a query.
    FailedUnanswered = FAILURES "unanswered",
    /// A panic, caught.
    FailedPanic = FAILURES "panic",
    /// A reply was cut and marked with TC.
    Truncated = REPLIES_TRUNCATED,
    /// A connection was accepted.
    TcpAccepted = TCP_ACCEPTED,
    /// Too many connections in all.
    TcpRefusedTotal = TCP_REFUSED "total",
    /// Too many connections from one source.
    TcpRefusedSource = TCP_REFUSED "source",
    /// No descriptor or no memory for one more.
    TcpRefusedResources = TCP_REFUSED "resources",
    /// Something went wrong before the connection was taken.
    TcpRefusedError = TCP_REFUSED "error",
    /// The client ended the connection.
    TcpClosedByClient = TCP_CLOSED "client",
    /// Nothing was asked for too long.
    TcpClosedIdle = TCP_CLOSED "idle",
    /// A message took too long to arrive.
    TcpClosedSlow = TCP_CLOSED "slow",
    /// The client did not read its replies.
    TcpClosedUnread = TCP_CLOSED "unread",
    /// A message that cannot be one of DNS.
    TcpClosedMalformed = TCP_CLOSED "malformed",
    /// The network reported an error.
    TcpClosedError = TCP_CLOSED "error",
    /// So many queries as the Corefile allows on one connection.
    TcpClosedQueries = TCP_CLOSED "queries",
    /// Ended to make room for others.
    TcpClosedPressure = TCP_CLOSED "pressure",
    /// It stood still with much unread, and all connections held too much.
    TcpClosedMemory = TCP_CLOSED "memory",
    /// The agent is stopping.
    TcpClosedShutdown = TCP_CLOSED "shutdown",
}

/// A number of a worker that goes up and down; a scrape shows the sum over the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Connections from clients that are open.
    TcpConnections,
    /// Octets that connections hold beyond what costs nothing.
    TcpHeld,
    /// Queries that wait for an upstream.
    MissesInFlight,
}

const LEVELS: &[&Metric] = &[&counters::TCP_CONNECTIONS, &counters::TCP_HELD, &counters::MISSES_IN_FLIGHT];

impl Default for Worker {
    fn default() -> Worker {
        Worker { events: std::array::from_fn(|_| Cell::default()), levels: std::array::from_fn(|_| Cell::default()) }
    }
}

impl Worker {
    /// Counts one event.
    #[inline]
    pub fn count(&self, event: Event) {
        self.count_n(event, 1);
    }

    /// Counts several events of a kind.
    #[inline]
    pub fn count_n(&self, event: Event, amount: u64) {
        self.events[event as usize].add(amount);
    }

    /// Says how high a level is on this worker.
    #[inline]
    pub fn set(&self, level: Level, value: usize) {
        self.levels[level as usize].set(value as u64);
    }

    /// How often an event was counted on this worker.
    pub fn total(&self, event: Event) -> u64 {
        self.events[event as usize].get()
    }

    /// Adds this worker's numbers to a scrape.
    pub(super) fn expose(&self, into: &mut Exposition) {
        for ((metric, labels), cell) in EVENTS.iter().zip(&self.events) {
            into.used(metric, labels, cell.get());
        }
        for (metric, cell) in LEVELS.iter().zip(&self.levels) {
            into.gauge(metric, &[], cell.get() as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_adds_to_its_own_series() {
        let worker = Worker::default();
        worker.count(Event::DroppedShort);
        worker.count_n(Event::TcpClosedShutdown, 3);
        worker.set(Level::MissesInFlight, 7);
        let mut scrape = Exposition::default();
        worker.expose(&mut scrape);
        let text = scrape.render();
        assert!(text.contains("dnslet_datagrams_dropped_total{reason=\"short\"} 1\n"), "{text}");
        assert!(text.contains("dnslet_tcp_connections_closed_total{reason=\"shutdown\"} 3\n"), "{text}");
        assert!(text.contains("dnslet_misses_in_flight 7\n"), "{text}");
        assert!(!text.contains("\"idle\""), "an event that never happened has no series: {text}");
    }
}
