//! One batch of datagrams: each is answered at once from memory, or becomes a task, or is met with silence.

use super::io::mmsg::deliver;
use super::listeners::Listening;
use super::local::Local;
use crate::dns::{Protocol, header};
use crate::observe::Event;
use crate::resolve::Client;
use crate::sys::clock;
use crate::sys::mmsg::Batch;
use crate::sys::readable::Readable;
use std::net::SocketAddr;
use std::rc::Rc;

/// Answers the `n` datagrams of `batch` and queues the replies that are ready. Time and configuration are looked at
/// once, so the whole batch is answered from one state of the world. Allocates for misses only.
pub(crate) fn answer(local: &Rc<Local>, listening: &Rc<Listening>, socket: &Rc<Readable>, batch: &mut Batch, n: usize) {
    let now = clock::now();
    let mut snapshot = listening.snapshot.borrow_mut();
    let (resolver, listen) = snapshot.load(listening.address);
    local.counts().count_n(Event::DatagramReceived, n as u64);
    for i in 0..n {
        let (datagram, out) = batch.slot(i);
        if !has_way_back(datagram.peer) {
            local.count(Event::DroppedSource);
            continue;
        }
        let mut message = datagram.bytes;
        if datagram.cut {
            // What is left must not pass for a shorter query: a header that promises a question is malformed.
            message = &message[..header::LENGTH];
        }
        let address = match datagram.local {
            Some(ip) => SocketAddr::new(ip, listening.address.port()),
            None => listening.address,
        };
        let client = Client { peer: datagram.peer, protocol: Protocol::Udp, listen, local: address };
        let mut awaited = match local.take(local.answer(resolver, now, message, &client, out)) {
            Ok(0) => continue,
            Ok(length) => {
                batch.queue(i, length);
                continue;
            }
            Err(awaited) => awaited,
        };
        match local.admit(&mut awaited) {
            Some(ticket) => {
                let question = Local::question(message);
                let path = batch.return_path(i);
                let (local, socket) = (local.clone(), socket.clone());
                tokio::task::spawn_local(async move {
                    let reply = local.resolve(awaited, &question).await;
                    if !reply.is_empty() {
                        deliver(&local, &socket, &reply, &path).await;
                    }
                    drop(ticket);
                });
            }
            None => {
                let length = Local::shed(awaited, out);
                batch.queue(i, length);
            }
        }
    }
}

/// Whether a reply could arrive there. The kernel lets some senders through that nobody can be.
fn has_way_back(peer: SocketAddr) -> bool {
    peer.port() != 0 && !peer.ip().is_unspecified() && !peer.ip().is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_senders_can_be_nobody() {
        for peer in ["10.0.0.1:0", "0.0.0.0:53", "224.0.0.251:5353", "[::]:53", "[ff02::fb]:5353", "[::1]:0"] {
            assert!(!has_way_back(peer.parse().unwrap()), "{peer}");
        }
        for peer in ["10.0.0.1:1", "127.0.0.1:53", "[fe80::1]:5353"] {
            assert!(has_way_back(peer.parse().unwrap()), "{peer}");
        }
    }
}
