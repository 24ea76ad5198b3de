//! The addresses that another instance serves too are left to it, before our sockets there close: what the kernel gave to a
//! socket that closes would be lost, be it a datagram or a connection that is just being made.
//!
//! Datagrams: our sockets are connected, so that the kernel chooses among the others. Connections: those to come are led to
//! a listener that is seen not to be ours, and ours ignores any that comes all the same, which costs its client a second.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::time::timeout;

use crate::node::firewall::PROBE_MARK;
use crate::observe::probe::reachable;
use crate::sys::process::{PortOf, sharers_of};
use crate::sys::{leave, sockopt};

/// What is on its way to our sockets arrives in that time, and connections that are being made are made.
const ARRIVAL: Duration = Duration::from_millis(100);
/// A connection to a socket of this machine is made, or ignored, within the call, if the machine is not very busy.
const CONNECTION: Duration = Duration::from_millis(250);
/// Between two looks whether it is ignored.
const LOOK: Duration = Duration::from_millis(1);

/// Leaves the UDP sockets of an address to those of other processes on it. False if there are none; then nothing is changed.
/// The error is that of the first that could not be left; the others are.
pub(super) fn datagrams(address: SocketAddr, sockets: &[UdpSocket]) -> io::Result<bool> {
    if sockets.is_empty() || sharers_of(address, PortOf::Udp) == 0 {
        return Ok(false);
    }
    let faults: Vec<io::Error> = sockets.iter().filter_map(|socket| leave::quiet(socket).err()).collect();
    faults.into_iter().next().map_or(Ok(true), Err)
}

/// The same for connections to come. Where they cannot be led to another listener, ours ignores them all the same.
pub(super) async fn connections(address: SocketAddr, listener: &TcpListener) -> io::Result<bool> {
    let others = sharers_of(address, PortOf::Tcp);
    if others == 0 {
        return Ok(false);
    }
    let led = lead_away(listener, address, others).await;
    // Those that were given to ours before arrive first.
    settle();
    leave::ignore_new(listener)?;
    led.map(|()| true)
}

/// Waits until the sockets that were left have all that was on its way to them.
pub(super) async fn arrive() {
    settle();
    tokio::time::sleep(ARRIVAL).await;
}

/// Where the kernel cannot wait for that, the pause at the end has to do.
fn settle() {
    let _ = leave::settle();
}

/// Leads connections to come to one of the `others`. Which number is ours, nobody tells; the last is tried first, since most
/// often the oldest leaves. It is also the one that is void once we are gone, so that nothing is left behind.
async fn lead_away(tcp: &TcpListener, address: SocketAddr, others: usize) -> io::Result<()> {
    let last = u32::try_from(others).unwrap_or_default();
    for index in (0..=last).rev() {
        if is_another(tcp, reachable(address), index).await? {
            return leave::lead_to(tcp, index);
        }
    }
    tracing::warn!("no other listener is seen to take connections at {address}: some clients may have to try twice");
    leave::lead_nowhere(tcp)
}

/// Whether the listener of this number is not ours, which ignores the connection that is made to see it. No other connection
/// is touched.
async fn is_another(tcp: &TcpListener, target: SocketAddr, index: u32) -> io::Result<bool> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    sockopt::mark(socket.as_fd(), Some(PROBE_MARK));
    sockopt::reset_on_close(socket.as_fd())?;
    socket.bind((target.ip(), 0).into())?;
    let client = socket.local_addr()?;
    leave::lead_one_to(tcp, client, index)?;
    leave::ignore_one(tcp, client)?;
    let ignored = || sockopt::queues(tcp.as_fd()).map_or(0, |queues| queues.dropped);
    let before = ignored();
    let is_ignored = async {
        while ignored() == before {
            tokio::time::sleep(LOOK).await;
        }
    };
    Ok(tokio::select! {
        biased;
        made = timeout(CONNECTION, socket.connect(target)) => made.is_ok_and(|made| made.is_ok()),
        () = is_ignored => false,
    })
}
