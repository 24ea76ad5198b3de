//! The receive path over recvmmsg and sendmmsg: one system call per batch in each direction.

use crate::observe::Event;
use crate::serve::batch;
use crate::serve::listeners::Listening;
use crate::serve::local::Local;
use crate::sys::clock;
use crate::sys::mmsg::{BATCH, Batch};
use crate::sys::readable::{Readable, Ready};
use crate::sys::sockaddr::{self, ReturnPath};
use crate::sys::sockopt;
use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Sleep;

/// What one look at the socket gave.
enum Turn {
    /// A full batch: there may be more.
    Full,
    /// A partial batch of some size: while it was answered, more may have come.
    Busy,
    /// Next to nothing: the queue was empty afterwards.
    Emptied,
    /// An error, possibly of a reply sent earlier. The queue may still hold something.
    Failed,
    /// The listener is to close.
    Closing,
}

/// Answers what arrives at `socket` until the listener closes. Then its queue is emptied, and what arrives while earlier
/// questions are in flight is answered too: the kernel goes on delivering to a socket for as long as it is open.
pub(crate) async fn run(local: Rc<Local>, listening: Rc<Listening>, socket: Rc<Readable>) {
    let mut failures = 0;
    let mut losses = Losses::default();
    losses.count(&local, &socket);
    loop {
        let turn = poll_fn(|cx| {
            if listening.udp_bell.poll(cx) {
                return Poll::Ready(Turn::Closing);
            }
            loop {
                let Ok(ready) = std::task::ready!(socket.poll_ready(cx)) else {
                    return Poll::Ready(Turn::Failed);
                };
                match receive_while_busy(&local, &listening, &socket, &mut losses) {
                    Turn::Emptied => ready.emptied(),
                    turn => {
                        ready.keep();
                        return Poll::Ready(turn);
                    }
                }
                failures = 0;
            }
        })
        .await;
        match turn {
            // The other sockets and tasks of this worker come first.
            Turn::Full => {
                failures = 0;
                tokio::task::yield_now().await;
            }
            Turn::Busy | Turn::Emptied => {}
            Turn::Failed => {
                failures += 1;
                back_off(failures).await;
            }
            Turn::Closing => break,
        }
    }
    failures = 0;
    let until = listening.until();
    let mut end = pin!(tokio::time::sleep_until(until.into()));
    loop {
        match receive(&local, &listening, &socket) {
            Turn::Full if clock::now() < until => tokio::task::yield_now().await,
            Turn::Failed if failures < SHRUGS => failures += 1,
            _ if local.rests() || clock::now() >= until => return,
            _ => poll_fn(|cx| next_event(cx, &local, &socket, end.as_mut())).await,
        }
    }
}

/// Waits for something to read, for the last question in flight, or for the end.
fn next_event(cx: &mut Context<'_>, local: &Local, socket: &Readable, end: Pin<&mut Sleep>) -> Poll<()> {
    if local.poll_rests(cx) || end.poll(cx).is_ready() {
        return Poll::Ready(());
    }
    // Marked as emptied before it is read: what arrives in between is reported anew.
    socket.poll_ready(cx).map(|ready| ready.map_or((), Ready::emptied))
}

/// Sends `reply` by `path`. A full send buffer is waited for a little while; then the reply is dropped and counted.
pub(crate) async fn deliver(local: &Local, socket: &Readable, reply: &[u8], path: &ReturnPath) {
    let mut tried = false;
    let mut pause = Duration::from_millis(1);
    loop {
        match sockaddr::send(socket.as_fd(), reply, path) {
            Ok(()) => return,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if is_full(&e) && pause <= LONGEST_PAUSE => {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            // An error may belong to an earlier reply, so the first one says nothing about this one.
            Err(e) if !tried && !is_full(&e) => tried = true,
            Err(e) => return local.count(reason(&e)),
        }
    }
}

/// A full send buffer is tried again after 1, 2, 4, 8 and 16 ms: longer than a network card needs to send what fits
/// into the buffer.
const LONGEST_PAUSE: Duration = Duration::from_millis(16);

/// Errors in a row that are taken for reports of ICMP messages.
const SHRUGS: u32 = 8;

/// Receives batches for as long as they are of some size, without asking the runtime in between whether there is more:
/// on a busy socket there is, and the question costs as much as the answer. In a flood the queue is so emptied before the
/// misses in it are worked on: what overflows is lost for everybody, what is read can be shed by who sent it.
fn receive_while_busy(
    local: &Rc<Local>,
    listening: &Rc<Listening>,
    socket: &Rc<Readable>,
    losses: &mut Losses,
) -> Turn {
    let (mut last, mut was_full) = (Turn::Full, false);
    for _ in 0..IN_A_ROW {
        match receive(local, listening, socket) {
            Turn::Busy => {}
            // A queue that overflowed holds more than a batch.
            Turn::Full => was_full = true,
            turn => {
                last = turn;
                break;
            }
        }
    }
    if was_full {
        losses.count(local, socket);
    }
    last
}

/// Datagrams that found no room in the queue of a socket.
#[derive(Default)]
struct Losses {
    /// As the kernel counts them since the socket was made, when last looked at. A socket outlives the process that reads
    /// it; what it lost before is counted again by the next one, so that the sum goes on where it was.
    seen: u32,
}

impl Losses {
    fn count(&mut self, local: &Local, socket: &Readable) {
        // A kernel that does not tell leaves them unknown.
        if let Ok(queues) = sockopt::queues(socket.as_fd()) {
            local.counts().count_n(Event::DroppedQueue, u64::from(queues.dropped.wrapping_sub(self.seen)));
            self.seen = queues.dropped;
        }
    }
}

/// From so many datagrams on a batch is of some size.
const BUSY: usize = 3;

/// So many batches, and the other sockets and tasks have their turn.
const IN_A_ROW: usize = 32;

/// Receives one batch, answers it and sends the replies.
fn receive(local: &Rc<Local>, listening: &Rc<Listening>, socket: &Rc<Readable>) -> Turn {
    let mut batch = local.batch.borrow_mut();
    match batch.receive(socket.as_fd(), listening.is_wildcard()) {
        Ok(n) => {
            local.count(Event::ReceiveCall);
            batch::answer(local, listening, socket, &mut batch, n);
            send(local, socket, &mut batch);
            match n {
                BATCH => Turn::Full,
                BUSY.. => Turn::Busy,
                _ => Turn::Emptied,
            }
        }
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Turn::Emptied,
        Err(_) => {
            local.count(Event::ReceiveError);
            Turn::Failed
        }
    }
}

/// Sends the queued replies. None is lost silently.
fn send(local: &Rc<Local>, socket: &Rc<Readable>, batch: &mut Batch) {
    let mut tried = false;
    while batch.unsent() > 0 {
        match batch.send(socket.as_fd()) {
            Ok(_) => tried = false,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if is_full(&e) => return send_later(local, socket, batch),
            Err(_) if !tried => tried = true,
            Err(e) => {
                batch.take_unsent();
                local.count(reason(&e));
                tried = false;
            }
        }
    }
}

/// Hands the replies that did not fit into the send buffer to tasks, so that the batch can be used again.
fn send_later(local: &Rc<Local>, socket: &Rc<Readable>, batch: &mut Batch) {
    while let Some((reply, path)) = batch.take_unsent() {
        let Some(ticket) = local.admit_any() else {
            local.count(Event::DroppedBuffer);
            continue;
        };
        let (local, socket, reply) = (local.clone(), socket.clone(), Box::<[u8]>::from(reply));
        tokio::task::spawn_local(async move {
            deliver(&local, &socket, &reply, &path).await;
            drop(ticket);
        });
    }
}

/// The first errors in a row are shrugged off: each is the report of one ICMP message. Then pauses, up to 100 ms.
async fn back_off(failures: u32) {
    if failures <= SHRUGS {
        tokio::task::yield_now().await;
    } else {
        tokio::time::sleep(Duration::from_millis(u64::from(failures - SHRUGS)).min(Duration::from_millis(100))).await;
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM))
}

fn reason(error: &io::Error) -> Event {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => Event::DroppedBuffer,
        Some(libc::EPERM | libc::EACCES) => Event::DroppedFirewall,
        Some(
            libc::ENETUNREACH
            | libc::EHOSTUNREACH
            | libc::ENETDOWN
            | libc::ECONNREFUSED
            | libc::EADDRNOTAVAIL
            | libc::EINVAL,
        ) => Event::DroppedUnreachable,
        _ => Event::DroppedSend,
    }
}
