//! The listening sockets and the workers that serve them.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Instant;

use crate::serve::{Listener, Setup, Worker};
use crate::sys::process::{PortOf, other_holder_of};
use crate::sys::sockopt;

use super::{machine, refusal};

/// Octets of receive buffer per UDP socket: a burst waits here while its worker is busy.
const RECEIVE_BUFFER: usize = 1 << 20;

/// The sockets of one listen address, for all workers.
#[derive(Debug)]
pub(super) struct Bound {
    address: SocketAddr,
    udp: Vec<UdpSocket>,
    /// Duplicates of one listening socket.
    tcp: Vec<TcpListener>,
    /// No interface has the address yet.
    absent: bool,
}

/// The workers and the addresses they serve.
pub(super) struct Server {
    workers: Vec<Worker>,
    /// Each with whether it was absent when it was bound.
    served: BTreeMap<SocketAddr, bool>,
}

impl Bound {
    /// Binds UDP once per worker and TCP once, and makes a duplicate of that for each worker: handing over needs no more
    /// descriptors. The error is a sentence for the operator.
    pub(super) fn bind(address: SocketAddr, workers: usize) -> Result<Bound, String> {
        Bound::bind_all(address, workers).map_err(|(transport, error)| refusal::explain(&error, transport))
    }

    fn bind_all(address: SocketAddr, workers: usize) -> Result<Bound, (PortOf, sockopt::Error)> {
        let at = machine::bindable(address);
        let options = sockopt::Options {
            freebind: true,
            dual_stack: true,
            receive_buffer: Some(RECEIVE_BUFFER),
            ..sockopt::Options::default()
        };
        let mut absent = false;
        let mut udp = Vec::with_capacity(workers);
        for _ in 0..workers {
            let bound = sockopt::udp(at, &options).map_err(|error| (PortOf::Udp, error))?;
            absent = bound.absent;
            udp.push(bound.socket);
        }
        let listener = sockopt::tcp(at, &options).map_err(|error| (PortOf::Tcp, error))?.socket;
        let failed = |cause| (PortOf::Tcp, sockopt::Error { step: sockopt::Step::Create, address: at, cause });
        let tcp = (0..workers).map(|_| listener.try_clone()).collect::<io::Result<_>>().map_err(failed)?;
        Ok(Bound { address, udp, tcp, absent })
    }

    /// True if no interface has the address yet.
    pub(super) fn is_absent(&self) -> bool {
        self.absent
    }
}

/// Which other process answers at this address already, sharing it by SO_REUSEPORT.
pub(super) fn sharer(address: SocketAddr) -> Option<String> {
    other_holder_of(address, PortOf::Udp).or_else(|| other_holder_of(address, PortOf::Tcp))
}

impl Server {
    /// Starts `count` workers without sockets.
    pub(super) fn start(setup: &Setup, count: usize) -> io::Result<Server> {
        let workers = (0..count).map(|index| Worker::start(index, setup)).collect::<io::Result<_>>()?;
        Ok(Server { workers, served: BTreeMap::new() })
    }

    /// Hands new sockets to the workers. The snapshot that knows their addresses is in force already: queries that came
    /// since they were bound wait in their queues. `index` is an address's place in that snapshot's list of listeners.
    /// After an error none of them is served.
    pub(super) async fn add(&mut self, bound: Vec<Bound>, index: impl Fn(SocketAddr) -> u16) -> io::Result<()> {
        let mut shares: Vec<Vec<Listener>> = self.workers.iter().map(|_| Vec::new()).collect();
        let mut added = Vec::new();
        for Bound { address, udp, tcp, absent } in bound {
            let listen = index(address);
            for (share, (udp, tcp)) in shares.iter_mut().zip(udp.into_iter().zip(tcp)) {
                share.push(Listener { listen, local: address, udp: Some(udp), tcp: Some(tcp) });
            }
            added.push((address, absent));
        }
        for (worker, share) in self.workers.iter().zip(shares) {
            if let Err(error) = worker.add(share).await {
                let addresses: Vec<SocketAddr> = added.iter().map(|(address, _)| *address).collect();
                self.remove(&addresses);
                return Err(error);
            }
        }
        self.served.extend(added);
        Ok(())
    }

    /// A new snapshot is in force: idle workers let go of the one before.
    pub(super) fn renew(&self) {
        self.workers.iter().for_each(Worker::renew);
    }

    /// Ceases to serve these addresses; what their queues hold is answered.
    pub(super) fn remove(&mut self, addresses: &[SocketAddr]) {
        self.served.retain(|address, _| !addresses.contains(address));
        for worker in &self.workers {
            worker.remove(addresses.to_vec());
        }
    }

    /// The addresses served now.
    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.served.keys().copied()
    }

    /// The addresses that can be expected to answer when asked from here: not those that no interface has yet.
    pub(super) fn present(&self) -> Vec<SocketAddr> {
        let interfaces = machine::interfaces();
        let exists = |address: &SocketAddr| interfaces.iter().any(|one| one.addresses.contains(&address.ip()));
        let present = self.served.iter().filter(|(address, absent)| !**absent || exists(address));
        present.map(|(address, _)| *address).collect()
    }

    /// Waits until a worker ends, which none does unasked unless it panicked.
    pub(super) async fn broken(&self) {
        let ends = self.workers.iter().map(|worker| Box::pin(worker.ended()));
        let mut ends: Vec<_> = ends.collect();
        std::future::poll_fn(|cx| {
            let any = ends.iter_mut().any(|end| end.as_mut().poll(cx).is_ready());
            if any { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }

    /// Answers what was received and ends by `deadline`. Safe to cancel, and to call again.
    pub(super) async fn drain(&self, deadline: Instant) {
        for worker in &self.workers {
            worker.drain(deadline);
        }
        for worker in &self.workers {
            worker.ended().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free_address() -> SocketAddr {
        UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    #[test]
    fn each_worker_gets_its_own_socket_on_the_same_address() {
        let address = free_address();
        let bound = Bound::bind(address, 3).unwrap();
        assert_eq!((bound.address, bound.udp.len(), bound.tcp.len(), bound.is_absent()), (address, 3, 3, false));
        assert!(bound.udp.iter().all(|socket| socket.local_addr().unwrap() == address));
        let everywhere = SocketAddr::from(([0, 0, 0, 0], address.port()));
        assert_eq!((sharer(address), sharer(everywhere)), (None, None), "we share it with nobody else");
    }

    #[test]
    fn a_foreign_holder_is_named_and_an_absent_address_is_bound() {
        let holder = UdpSocket::bind("127.0.0.1:0").unwrap();
        let error = Bound::bind(holder.local_addr().unwrap(), 1).unwrap_err();
        assert!(error.contains("in use by") && error.contains(&format!("pid {}", std::process::id())), "{error}");
        assert!(Bound::bind("192.0.2.77:5399".parse().unwrap(), 1).unwrap().is_absent());
    }
}
