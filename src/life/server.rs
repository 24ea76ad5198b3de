//! The listening sockets and the workers that serve them.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Instant;

use crate::serve::{Listener, Setup, Worker};

use super::channel::{Granted, Keeper};
use super::machine;

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
    /// Has the keeper hand the sockets of this address over: for UDP one per worker, or those that the service manager opened,
    /// which the first workers read; and one for TCP, of which each worker
    /// gets a duplicate here, so that handing over needs no more descriptors. The error is a sentence for the operator.
    pub(super) fn claim(keeper: &Keeper, address: SocketAddr, workers: usize) -> Result<Bound, String> {
        let Granted { udp, tcp, absent, sharer } = keeper.dns(address, workers)?;
        if let Some(sharer) = sharer {
            tracing::warn!("{address} is served by {sharer} too: the kernel splits queries between the two");
        }
        let tcp = (0..workers).map(|_| tcp.try_clone()).collect::<io::Result<_>>();
        let tcp = tcp.map_err(|error| format!("cannot duplicate the socket of {address}: {error}"))?;
        Ok(Bound { address, udp, tcp, absent })
    }

    /// True if no interface has the address yet.
    pub(super) fn is_absent(&self) -> bool {
        self.absent
    }
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
            let mut udp = udp.into_iter();
            for (share, tcp) in shares.iter_mut().zip(tcp) {
                share.push(Listener { listen, local: address, udp: udp.next(), tcp: Some(tcp) });
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
