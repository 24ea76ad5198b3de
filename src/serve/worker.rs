//! One worker: a thread with a runtime of its own, told what to do through a channel.

use super::io::mmsg;
use super::limits::{Limits, Places};
use super::listeners::{self, Listener, Listening};
use super::local::Local;
use crate::observe::Registry;
use crate::resolve;
use crate::sys::clock;
use crate::sys::readable::Readable;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, LocalRuntime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

/// What all workers share.
#[derive(Clone)]
pub struct Setup {
    /// The configuration in force.
    pub resolver: Arc<resolve::Shared>,
    /// The bounds of each worker.
    pub limits: Limits,
    /// The places for connections, of all workers.
    pub places: Arc<Places>,
    /// Where is counted, with room for every worker.
    pub registry: Arc<Registry>,
}

/// A running worker, seen from the thread that commands it. Dropping it stops the worker at once, unless it drains.
pub struct Worker {
    // Only whoever holds the worker sends, a few orders in a lifetime: nothing here needs a bound.
    orders: UnboundedSender<Order>,
    thread: thread::JoinHandle<()>,
}

/// How long the datagrams of an address that was removed are answered at most. Every question in flight has its reply
/// by then.
const PARTING: Duration = Duration::from_secs(5);

enum Order {
    Add(Vec<Listener>, oneshot::Sender<io::Result<()>>),
    Remove(Vec<SocketAddr>),
    Renew,
    Drain(Instant),
    Stop,
}

impl Worker {
    /// Starts worker `index` without any listener. Errors: no thread or no event queue to be had.
    pub fn start(index: usize, setup: &Setup) -> io::Result<Self> {
        let (orders, received) = unbounded_channel();
        let (started, outcome) = std::sync::mpsc::sync_channel(1);
        let setup = setup.clone();
        let thread = thread::Builder::new().name(format!("dnslet-w{index}")).spawn(move || {
            match Builder::new_current_thread().enable_all().build_local(Default::default()) {
                Ok(runtime) => {
                    let _ = started.send(Ok(()));
                    run(&runtime, index, &setup, received);
                    // Everything left is dropped, sockets first of all; nothing that blocks is waited for.
                    runtime.shutdown_background();
                }
                Err(e) => drop(started.send(Err(e))),
            }
        })?;
        outcome.recv().unwrap_or_else(|_| Err(io::Error::other("the worker ended before it began")))?;
        Ok(Self { orders, thread })
    }

    /// Begins to serve `listeners`. Errors: the first socket that could not be watched; the others are served.
    pub async fn add(&self, listeners: Vec<Listener>) -> io::Result<()> {
        let (done, outcome) = oneshot::channel();
        // A worker that has ended drops the order, and with it the other end of `outcome`.
        let _ = self.orders.send(Order::Add(listeners, done));
        outcome.await.unwrap_or_else(|_| Err(io::Error::other("the worker has ended")))
    }

    /// Has every socket look at the snapshot in force. A busy one does so with its next batch; an idle one would keep the
    /// last one that it used, and what belongs to it, alive.
    pub fn renew(&self) {
        let _ = self.orders.send(Order::Renew);
    }

    /// Ceases to serve these addresses, as in [`Listener::local`]: no connection is accepted any more, and open ones end
    /// when what was asked is answered. Datagrams are answered until no question is in flight, so that none is left in
    /// a queue that nobody reads; after five seconds the socket closes in any case. Other addresses notice nothing.
    pub fn remove(&self, addresses: Vec<SocketAddr>) {
        let _ = self.orders.send(Order::Remove(addresses));
    }

    /// Ceases to serve all addresses in the same way, and ends when that is done, at `deadline` at the latest.
    pub fn drain(&self, deadline: Instant) {
        let _ = self.orders.send(Order::Drain(deadline));
    }

    /// Ends at once.
    pub fn stop(&self) {
        let _ = self.orders.send(Order::Stop);
    }

    /// Waits until the worker has ended, for whatever reason.
    pub async fn ended(&self) {
        self.orders.closed().await;
    }

    /// Waits for the thread. Errors: its panic.
    pub fn join(self) -> thread::Result<()> {
        drop(self.orders);
        self.thread.join()
    }
}

fn run(runtime: &LocalRuntime, index: usize, setup: &Setup, mut orders: UnboundedReceiver<Order>) {
    let local = Local::new(index, setup);
    runtime.block_on(async {
        let mut addresses: Vec<Rc<Listening>> = Vec::new();
        loop {
            match orders.recv().await {
                None | Some(Order::Stop) => return,
                Some(Order::Add(listeners, done)) => {
                    let mut outcome = Ok(());
                    for listener in listeners {
                        outcome = outcome.and(listen(&local, listener, &mut addresses));
                    }
                    // Nobody needs to wait for the outcome.
                    let _ = done.send(outcome);
                }
                Some(Order::Remove(gone)) => {
                    let until = clock::now() + PARTING;
                    close(&local, &mut addresses, until, |listening| gone.contains(&listening.address));
                }
                Some(Order::Renew) => addresses.iter().for_each(|listening| listening.renew()),
                Some(Order::Drain(deadline)) => {
                    local.draining.set(true);
                    close(&local, &mut addresses, deadline, |_| true);
                    return tokio::select! {
                        () = local.quiet() => {}
                        () = tokio::time::sleep_until(deadline.into()) => {}
                        () = told_to_stop(&mut orders) => {}
                    };
                }
            }
        }
    });
}

/// Starts the tasks of one address.
fn listen(local: &Rc<Local>, listener: Listener, addresses: &mut Vec<Rc<Listening>>) -> io::Result<()> {
    let udp = listener.udp.map(Readable::new).transpose()?;
    let tcp = listener
        .tcp
        .map(|socket| socket.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(socket)))
        .transpose()?;
    let listening = Listening::new(local, listener.local, listener.listen);
    if let Some(socket) = udp {
        let (local, listening, busy) = (local.clone(), listening.clone(), local.busy());
        tokio::task::spawn_local(async move {
            mmsg::run(local, listening, Rc::new(socket)).await;
            drop(busy);
        });
    }
    if let Some(socket) = tcp {
        let (local, listening, busy) = (local.clone(), listening.clone(), local.busy());
        tokio::task::spawn_local(async move {
            listeners::accept(local, listening, socket).await;
            drop(busy);
        });
    }
    addresses.push(listening);
    Ok(())
}

/// Tells the tasks of the addresses that are `gone` to finish.
fn close(local: &Local, addresses: &mut Vec<Rc<Listening>>, until: Instant, gone: impl Fn(&Listening) -> bool) {
    addresses.retain(|listening| {
        let gone = gone(listening);
        if gone {
            listening.close(until);
        }
        !gone
    });
    for tether in local.streams.borrow().values() {
        tether.finish(local.draining.get());
    }
}

/// Waits for the order to stop. One who drains and lets go of the worker means to let it finish.
async fn told_to_stop(orders: &mut UnboundedReceiver<Order>) {
    while let Some(order) = orders.recv().await {
        if matches!(order, Order::Stop) {
            return;
        }
    }
    std::future::pending().await
}
