//! What the memory limit of the control group is spent on, and how much of everything there may be because of it.

use std::fmt;

use crate::resolve::Bounds;
use crate::serve::Limits;

use super::options::{Options, TcpLimits};

/// Used for the cache where the control group sets no limit.
const UNLIMITED_CACHE: usize = 64 << 20;
/// More than this by default helps no node; `-cache-memory` may ask for it.
const LARGEST_DEFAULT_CACHE: usize = 1 << 30;

/// Both processes at rest, pages of the program included, measured.
const AT_REST: usize = 14 << 20;
/// One more worker: its stack, its buffers, its part of the allocator.
const PER_WORKER: usize = 1 << 20;
/// Octets of cache for which the allocator loses one, measured under a flood that replaces all of them.
const LOSS: usize = 8;
/// The memory of failed questions is this part of the cache's, beside it.
const FAILURES: usize = 16;
/// A flight with its sockets, of which it has the more the longer upstreams are silent.
const FLIGHT: usize = 16 << 10;
/// Sockets of a flight, at most: one for each packet.
const SOCKETS: u64 = 6;
/// Descriptors for anything but clients and flights: listening sockets, files, connections to upstreams.
const OTHERS: u64 = 64;
/// A query that waits for one.
const WAITING: usize = 2 << 10;
/// A connection of a client with its socket, 5 KiB as measured, and what it may hold without being asked.
const CONNECTION: usize = 9 << 10;
/// What the connections of a worker hold beyond that has at least so many octets: a few of the longest replies.
const FEWEST_OCTETS: usize = 256 << 10;
/// So many octets are taken for two of those: the socket of a connection that is not read takes in more unseen.
const UNSEEN: usize = 3;
/// So many listening addresses have full queues at once: a link-local one and that of the cluster's service, in both
/// families.
const BUSY_ADDRESSES: usize = 4;
/// Octets of receive buffer per listening UDP socket: a burst waits here while its worker is busy.
const RECEIVE_BUFFER: usize = 1 << 20;
/// A smaller one would lose the bursts of ordinary clients: this one takes some 500 queries.
const SMALLEST_RECEIVE_BUFFER: usize = 256 << 10;
/// However little memory there is, so many flights and connections are taken on, and twice as many queries may wait.
const FEWEST: usize = 64;
/// There is one worker for so much of the limit, where nobody asks for more.
const MEMORY_OF_WORKER: u64 = 16 << 20;

/// How much of everything there may be.
///
/// Both processes together stay inside the limit with everything full at once. Where there is none, the defaults hold. The
/// parts, and what they come to for 64 MiB and two workers:
///
/// | part | octets | MiB |
/// |---|---|---|
/// | both processes at rest | 14 MiB, and 1 MiB per worker | 16 |
/// | cache entries | `-cache-memory`; a third where it is not given | 21.3 |
/// | what the allocator loses on them | an eighth of that | 2.7 |
/// | failed questions | a sixteenth of it | 1.3 |
/// | flights | four fifths of half of what receive buffers leave, 16 KiB for each | 6.8 |
/// | queries that wait | the last fifth of that half, 2 KiB for each | 1.7 |
/// | TCP connections of clients | three quarters of the other half, 9 KiB for each | 6.4 |
/// | what some of them hold beyond that | the last quarter of it, two for three | 2.1 |
/// | receive buffers of listening UDP sockets | a quarter of the rest, four addresses full at once | 5.7 |
///
/// What the kernel has not let go of yet comes on top: closed sockets of flights, up to 18 MiB at 23,000 misses a second.
/// It fits as long as such a flood does not take the places for TCP as well.
///
/// A flight has up to six sockets while upstreams are silent, most have one. Half of the descriptors are for connections,
/// and of the other half all but 64 for flights.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    /// The bounds of queries that wait and of connections.
    pub(super) limits: Limits,
    /// Those of flights.
    pub(super) flights: Bounds,
    /// Octets for the memory of failed questions.
    pub(super) failures: usize,
    /// Octets of receive buffer asked for, for each listening UDP socket.
    pub(super) receive_buffer: usize,
    workers: usize,
    /// What there is less of than a server needs: sentences for the operator.
    pub(super) warnings: Vec<String>,
}

/// What the parts depend on.
#[derive(Clone, Copy)]
struct Given {
    memory_limit: Option<u64>,
    workers: usize,
    cache: usize,
    tcp: TcpLimits,
}

impl Budget {
    /// What `options` and the machine allow. `descriptors`: how many this process may open.
    pub(super) fn of(options: &Options, descriptors: Option<u64>) -> Budget {
        Given::from(options).budget(descriptors)
    }

    /// The limits in force, by the names they have as metrics.
    pub(super) fn limits(&self) -> [(&'static str, usize); 10] {
        let Budget { limits, flights, .. } = self;
        [
            ("flights", flights.flights),
            ("flights_per_client", flights.flights_per_client),
            ("flights_per_zone", flights.flights_per_zone),
            ("waiting", limits.inflight),
            ("waiting_per_client", flights.waiting_per_client),
            ("tcp_connections", limits.connections),
            ("tcp_connections_per_client", limits.per_source),
            ("tcp_queries_per_connection", limits.per_connection),
            ("tcp_held_bytes", limits.octets * self.workers),
            ("receive_buffer_bytes", self.receive_buffer),
        ]
    }
}

/// The same in a sentence.
impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Budget { limits, flights, workers, .. } = self;
        write!(f, "Limits: {workers} workers, {} names asked for at once", flights.flights)?;
        write!(f, " ({} for one client, {} of one domain), ", flights.flights_per_client, flights.flights_per_zone)?;
        write!(f, "{} queries waiting ({} of one client), ", limits.inflight, flights.waiting_per_client)?;
        write!(f, "{} TCP connections ({} of one client), ", limits.connections, limits.per_source)?;
        write!(f, "receive buffers of {} KiB", self.receive_buffer >> 10)
    }
}

impl Given {
    fn budget(self, descriptors: Option<u64>) -> Budget {
        let mut limits = Limits {
            connections: self.tcp.connections,
            per_source: self.tcp.per_client,
            per_connection: self.tcp.in_flight,
            ..Limits::default()
        };
        limits.inflight *= self.workers;
        let mut flights = limits.inflight;
        let mut warnings = Vec::new();
        if let Some(rest) = self.rest() {
            let half = rest.saturating_sub(self.queues()) / 2;
            let room = half / 5 * 4 / FLIGHT;
            if room < FEWEST {
                warnings.push(self.short_of_memory());
            }
            flights = flights.min(room.max(FEWEST));
            limits.inflight = limits.inflight.min((half / 5 / WAITING).max(2 * FEWEST));
            let octets = (half / 4).max(self.workers * FEWEST_OCTETS * UNSEEN / 2);
            limits.octets = limits.octets.min(octets * 2 / UNSEEN / self.workers);
            limits.connections = limits.connections.min((half.saturating_sub(octets) / CONNECTION).max(FEWEST));
        }
        if let Some(descriptors) = descriptors {
            limits = limits.within(descriptors);
            let room = usize::try_from((descriptors / 2).saturating_sub(OTHERS) / SOCKETS).unwrap_or(usize::MAX);
            if room < FEWEST {
                warnings
                    .push(format!("no more than {descriptors} open files are allowed, which is too few in an outage"));
            }
            flights = flights.min(room.max(FEWEST));
        }
        // Whatever made places few: no client takes more than half of them.
        limits.per_source = limits.per_source.min(limits.connections / 2).max(1);
        Budget {
            flights: Bounds::sharing(flights, limits.inflight),
            failures: self.cache / FAILURES,
            receive_buffer: self.receive_buffer(),
            workers: self.workers,
            limits,
            warnings,
        }
    }

    fn short_of_memory(self) -> String {
        let Given { memory_limit, workers, cache, .. } = self;
        format!(
            "the memory limit of {} MiB leaves too little for work in progress beside {} MiB of cache and {workers} \
             workers: the server may be ended for it; lower -cache-memory or -workers, or raise the limit",
            memory_limit.unwrap_or_default() >> 20,
            cache >> 20
        )
    }

    fn receive_buffer(self) -> usize {
        self.rest().map_or(RECEIVE_BUFFER, |rest| {
            (rest / 4 / (2 * BUSY_ADDRESSES * self.workers)).clamp(SMALLEST_RECEIVE_BUFFER, RECEIVE_BUFFER)
        })
    }

    /// What the kernel grants to the receive buffers of all sockets that may be full at once.
    fn queues(self) -> usize {
        self.receive_buffer() * 2 * BUSY_ADDRESSES * self.workers
    }

    /// What is left of the limit for work in progress; `None` where there is no limit.
    fn rest(self) -> Option<usize> {
        let limit = usize::try_from(self.memory_limit?).unwrap_or(usize::MAX);
        let cache = self.cache + self.cache / LOSS + self.cache / FAILURES;
        Some(limit.saturating_sub(AT_REST + self.workers * PER_WORKER + cache))
    }
}

impl From<&Options> for Given {
    fn from(options: &Options) -> Given {
        let Options { memory_limit, workers, cache_memory, tcp, .. } = options;
        Given { memory_limit: *memory_limit, workers: *workers, cache: *cache_memory, tcp: *tcp }
    }
}

/// A third of what the group may use.
pub(crate) fn default_cache(memory_limit: Option<u64>) -> usize {
    match memory_limit {
        None => UNLIMITED_CACHE,
        Some(limit) => usize::try_from(limit / 3).unwrap_or(usize::MAX).clamp(1 << 20, LARGEST_DEFAULT_CACHE),
    }
}

/// One worker for each processor, as far as memory allows.
pub(crate) fn default_workers(processors: usize, memory_limit: Option<u64>) -> usize {
    let most = memory_limit.map(|limit| usize::try_from(limit / MEMORY_OF_WORKER).unwrap_or(usize::MAX).max(1));
    processors.min(most.unwrap_or(usize::MAX))
}

/// What there is too little of for `options`: sentences for the operator.
pub(crate) fn warnings(options: &Options, descriptors: Option<u64>) -> Vec<String> {
    Budget::of(options, descriptors).warnings
}

/// Octets of receive buffer to ask for per listening UDP socket. The kernel grants twice as much and counts all of it.
pub(super) fn receive_buffer(options: &Options) -> usize {
    Given::from(options).receive_buffer()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn given(memory_limit: Option<usize>, workers: usize) -> Given {
        let memory_limit = memory_limit.map(|limit| limit as u64);
        let Limits { connections, per_source, per_connection, .. } = Limits::default();
        let tcp = TcpLimits { connections, per_client: per_source, in_flight: per_connection };
        Given { memory_limit, workers, cache: default_cache(memory_limit), tcp }
    }

    /// Everything full at once.
    fn most(given: Given) -> usize {
        let budget = given.budget(None);
        let cache = given.cache + given.cache / LOSS + budget.failures;
        AT_REST
            + given.workers * PER_WORKER
            + cache
            + budget.flights.flights * FLIGHT
            + budget.limits.inflight * WAITING
            + budget.limits.connections * CONNECTION
            + given.workers * budget.limits.octets * UNSEEN / 2
            + given.queues()
    }

    #[test]
    fn everything_full_at_once_stays_inside_the_limit() {
        for (mib, workers) in [(48, 1), (64, 1), (64, 2), (64, 4), (128, 2), (128, 16), (170, 8), (512, 64), (4096, 64)]
        {
            let most = most(given(Some(mib * MIB), workers));
            assert!(most <= mib * MIB, "{mib} MiB, {workers} workers: {most}");
        }
    }

    #[test]
    fn sixty_four_mebibytes_are_enough_for_work() {
        let given = given(Some(64 * MIB), 2);
        let budget = given.budget(Some(20_000));
        assert_eq!(given.cache, 64 * MIB / 3);
        assert!(budget.flights.flights >= 430 && budget.limits.connections >= 500, "{budget:?}");
        assert!(given.receive_buffer() >= 320 << 10, "{}", given.receive_buffer());
        assert!(budget.limits.per_source <= budget.limits.connections / 2);
        assert!(budget.limits.octets >= 640 << 10, "ten of the longest replies wait in each worker");
        assert!(budget.limits.inflight >= budget.flights.flights, "{budget:?}");
        assert!(budget.warnings.is_empty(), "{budget:?}");
    }

    #[test]
    fn a_client_has_enough_for_ordinary_work_on_any_machine() {
        for (mib, processors) in [(64, 1), (64, 2), (64, 64), (128, 128), (170, 64), (512, 64), (4096, 256)] {
            let workers = default_workers(processors, Some((mib * MIB) as u64));
            for cache in [default_cache(Some((mib * MIB) as u64)), 16 * MIB] {
                let given = Given { cache, ..given(Some(mib * MIB), workers) };
                let Budget { flights, limits, warnings, .. } = given.budget(Some(1 << 16));
                assert!(flights.flights_per_client >= 100, "{mib} MiB, {processors} processors: {flights:?}");
                assert!(flights.flights_per_zone >= 100, "{mib} MiB, {processors} processors: {flights:?}");
                assert!(flights.waiting_per_client >= 300, "{mib} MiB, {processors} processors: {flights:?}");
                assert!(limits.inflight >= flights.flights && warnings.is_empty(), "{limits:?} {warnings:?}");
            }
        }
    }

    #[test]
    fn there_is_a_worker_for_each_processor_while_memory_lasts() {
        let mib = |mib: u64| Some(mib << 20);
        assert_eq!([default_workers(64, None), default_workers(64, mib(2048))], [64, 64]);
        assert_eq!([mib(170), mib(64), mib(16), mib(8)].map(|limit| default_workers(64, limit)), [10, 4, 1, 1]);
        assert_eq!(default_workers(2, mib(64)), 2);
    }

    #[test]
    fn a_larger_cache_leaves_less_for_work() {
        let usual = given(Some(64 * MIB), 2);
        let larger = Given { cache: 32 * MIB, ..usual };
        assert!(larger.budget(None).flights.flights < usual.budget(None).flights.flights);
        assert!(most(larger) <= 64 * MIB);
        let absurd = Given { cache: 64 * MIB, ..usual }.budget(None);
        assert_eq!((absurd.flights.flights, absurd.limits.connections), (FEWEST, FEWEST));
        assert_eq!((absurd.flights.flights_per_client, absurd.flights.waiting_per_client), (FEWEST / 2, FEWEST));
        assert!(absurd.warnings.concat().contains("64 MiB leaves too little"), "{:?}", absurd.warnings);
        let crowded = Given { workers: 64, ..usual }.budget(None);
        assert!(crowded.warnings.concat().contains("64 workers"), "{:?}", crowded.warnings);
    }

    #[test]
    fn without_a_limit_the_defaults_hold() {
        let given = given(None, 3);
        let (budget, limits) = (given.budget(Some(1 << 20)), Limits::default());
        assert_eq!((given.cache, given.receive_buffer()), (64 * MIB, MIB));
        assert_eq!((budget.flights.flights, budget.limits.inflight), (3 * limits.inflight, 3 * limits.inflight));
        assert_eq!((budget.limits.connections, budget.limits.per_source), (limits.connections, limits.per_source));
    }

    #[test]
    fn descriptors_bound_flights_and_connections() {
        let budget = given(None, 2).budget(Some(1024));
        assert_eq!((budget.flights.flights, budget.limits.connections), (74, 512));
        assert_eq!(budget.flights.flights_per_client, 37);
        let sockets = budget.flights.flights as u64 * SOCKETS + budget.limits.connections as u64;
        assert!(sockets + OTHERS <= 1024, "{sockets}");
        assert!(budget.warnings.is_empty());
        let few = given(None, 2).budget(Some(256));
        assert_eq!(few.flights.flights, FEWEST);
        assert!(few.warnings.concat().contains("256 open files"), "{:?}", few.warnings);
    }

    #[test]
    fn one_client_has_half_of_the_places_at_most_whatever_makes_them_few() {
        for (mib, descriptors) in [(None, Some(1024)), (Some(64), None), (Some(64), Some(1024)), (None, Some(20_000))] {
            let Limits { connections, per_source, .. } = given(mib.map(|mib| mib * MIB), 2).budget(descriptors).limits;
            assert!(
                (1..=connections / 2).contains(&per_source),
                "{mib:?}, {descriptors:?}: {per_source} of {connections}"
            );
        }
        assert_eq!(given(None, 2).budget(Some(2)).limits.per_source, 1, "with one place in all");
    }

    #[test]
    fn a_burst_of_ordinary_clients_fits_into_every_receive_buffer() {
        for (mib, workers) in [(48, 1), (64, 4), (128, 8), (512, 32)] {
            let given = given(Some(mib * MIB), workers);
            assert!(given.receive_buffer() >= 256 << 10, "{mib} MiB, {workers} workers: {}", given.receive_buffer());
            assert!(most(given) <= mib * MIB, "{mib} MiB, {workers} workers: {}", most(given));
        }
        let crowded = given(Some(64 * MIB), 16).receive_buffer();
        assert!(crowded >= 256 << 10, "with more workers than memory: {crowded}");
    }

    #[test]
    fn a_cache_takes_a_third_of_what_there_is() {
        assert_eq!(default_cache(None), 64 * MIB);
        assert_eq!(default_cache(Some(192 << 20)), 64 * MIB);
        assert_eq!((default_cache(Some(0)), default_cache(Some(1 << 40))), (MIB, 1 << 30));
    }
}
