//! The addresses that another instance serves too are left to it, before our sockets there close: what the kernel gave to a
//! socket that closes would be lost, be it a datagram or a connection that is just being made.
//!
//! Datagrams: our sockets are connected, so that the kernel chooses among the others. Connections: those to come are led to
//! a listener that is seen not to be ours, and ours ignores any that comes all the same, which costs its client a second.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::pin::pin;
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::time::timeout;

use crate::node::firewall::PROBE_MARK;
use crate::observe::probe::reachable;
use crate::sys::process::{PortOf, sharers_of};
use crate::sys::{leave, sockopt};

/// What is on its way to our sockets arrives in that time, and connections that are being made are made.
const ARRIVAL: Duration = Duration::from_millis(100);
/// How long a connection to a socket of this machine takes at most; the kernel makes it within the call.
const CONNECTION: Duration = Duration::from_millis(20);

/// Leaves the sockets of one address to those of other processes on it. False if there are none for one of the
/// transports: then nothing is changed there.
pub(super) async fn leave(udp: &[UdpSocket], tcp: &TcpListener) -> io::Result<bool> {
    let address = tcp.local_addr()?;
    let leaves_datagrams = !udp.is_empty() && sharers_of(address, PortOf::Udp) > 0;
    if leaves_datagrams {
        udp.iter().try_for_each(leave::quiet)?;
    }
    let others = sharers_of(address, PortOf::Tcp);
    if others > 0 {
        lead_away(tcp, address, others).await?;
    }
    Ok(leaves_datagrams || others > 0)
}

/// Waits until the sockets that were left have all that was on its way to them.
pub(super) async fn arrive() {
    // Where the kernel cannot tell, the pause has to do.
    let _ = leave::settle();
    tokio::time::sleep(ARRIVAL).await;
}

/// Leads connections to come to one of the `others`. Which number is ours, nobody tells; the last is tried first, since most
/// often the oldest leaves. It is also the one that is void once we are gone, so that nothing is left behind.
async fn lead_away(tcp: &TcpListener, address: SocketAddr, others: usize) -> io::Result<()> {
    let last = u32::try_from(others).unwrap_or_default();
    leave::lead_to(tcp, last)?;
    leave::ignore_new(tcp)?;
    for index in (0..=last).rev() {
        leave::lead_to(tcp, index)?;
        if is_led_away(tcp, address).await {
            return Ok(());
        }
    }
    // It cannot be seen, so each gets its share, and ours is ignored.
    leave::lead_nowhere(tcp)
}

/// Whether a connection is made, which ours would ignore.
async fn is_led_away(tcp: &TcpListener, address: SocketAddr) -> bool {
    let target = reachable(address);
    let ignored = || sockopt::queues(tcp.as_fd()).map_or(0, |queues| queues.dropped);
    let Ok(socket) = (if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }) else { return false };
    sockopt::mark(socket.as_fd(), Some(PROBE_MARK));
    if sockopt::reset_on_close(socket.as_fd()).is_err() || socket.bind((target.ip(), 0).into()).is_err() {
        return false;
    }
    let before = ignored();
    let mut connection = pin!(socket.connect(target));
    tokio::select! {
        biased;
        made = &mut connection => return made.is_ok(),
        () = std::future::ready(()) => {}
    }
    ignored() == before && timeout(CONNECTION, connection).await.is_ok_and(|made| made.is_ok())
}
