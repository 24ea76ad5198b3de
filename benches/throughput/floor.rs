//! The floor: what the kernel alone asks for a datagram in and a datagram out. One blocking thread, one socket,
//! recvmmsg, turn the QR bit, sendmmsg. It runs as a process of its own (this binary started again).

use std::net::{SocketAddr, UdpSocket};

use crate::sys::Batch;

/// The argument that makes this binary the floor; `HOST:PORT`, then every how manieth query to drop, follow it.
pub(crate) const ARGUMENT: &str = "--floor";

/// Echoes until killed. Of `drop_every` queries one is lost on purpose; 0 loses none.
pub(crate) fn serve(address: SocketAddr, drop_every: u64) -> std::io::Result<()> {
    let socket = UdpSocket::bind(address)?;
    let mut batch = Batch::unconnected();
    let mut seen = 0_u64;
    loop {
        let count = batch.receive(&socket, true)?;
        let mut ready = 0;
        for i in 0..count {
            seen += 1;
            if drop_every != 0 && seen.is_multiple_of(drop_every) {
                continue;
            }
            let message = batch.received_mut(i);
            let length = message.len();
            if length > 2 {
                message[2] |= 0x80;
                batch.echo(i, ready, length);
                ready += 1;
            }
        }
        batch.send(&socket, ready)?;
    }
}
