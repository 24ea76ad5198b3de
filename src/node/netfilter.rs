//! Requests to the kernel's packet filter and connection tracking over a netlink socket (nfnetlink).
//!
//! The kernel works on a request while it is sent, so nothing here waits for anybody but the kernel, and for it at most
//! [`PATIENCE`].

use std::io;
use std::num::NonZero;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily, NetfilterSubsystem,
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use socket2::SockRef;

/// How long to wait for an answer that the kernel owes.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often a list is asked for again because it changed while it was read.
const MOST_READINGS: usize = 8;

/// Larger than any datagram that the kernel makes for a list.
const LARGEST_DATAGRAM: usize = 64 << 10;

/// Set in a message of a list that changed while it was read (NLM_F_DUMP_INTR).
const INTERRUPTED: u16 = 0x10;

/// A socket for requests. What belongs to it in the kernel ends when it is dropped.
#[derive(Debug)]
pub(super) struct Netfilter {
    socket: Socket,
    port: u32,
    sequence: u32,
}

#[cfg(test)]
impl Netfilter {
    /// Has the socket talk to another one instead of the kernel: whoever has this port, or nobody.
    pub(super) fn lead_to(&mut self, port: u32) {
        self.socket.connect(&SocketAddr::new(port, 0)).expect("root may choose");
    }
}

/// One message of a transaction.
#[derive(Clone, Debug)]
pub(super) struct Change {
    /// Flags beside NLM_F_REQUEST, as in NLM_F_CREATE.
    pub(super) flags: u16,
    /// The message.
    pub(super) message: NetfilterMessageInner,
}

impl Netfilter {
    /// Opens a socket. Errors: the kernel has no netfilter, or the process has no descriptor left.
    pub(super) fn connect() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        let port = socket.bind_auto()?.port_number();
        socket.connect(&SocketAddr::new(0, 0))?;
        SockRef::from(&socket).set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, port, sequence: 0 })
    }

    /// The number by which the kernel knows this socket.
    pub(super) fn port(&self) -> u32 {
        self.port
    }

    /// Asks for one thing. Errors: the kernel's, as in ENOENT.
    pub(super) fn get(
        &mut self,
        family: NetfilterProtoFamily,
        message: impl Into<NetfilterMessageInner>,
    ) -> io::Result<NetfilterMessageInner> {
        let sequence = self.send(family, message.into(), NLM_F_ACK)?;
        let (answers, _) = self.answers(sequence)?;
        answers.into_iter().next().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    /// Asks for a list, and again if it changed while it was read. Errors: the kernel's.
    pub(super) fn list(
        &mut self,
        family: NetfilterProtoFamily,
        message: impl Into<NetfilterMessageInner>,
    ) -> io::Result<Vec<NetfilterMessageInner>> {
        let message = message.into();
        for _ in 0..MOST_READINGS {
            let sequence = self.send(family, message.clone(), NLM_F_DUMP)?;
            let (answers, interrupted) = self.answers(sequence)?;
            if !interrupted {
                return Ok(answers);
            }
        }
        Err(io::Error::from(io::ErrorKind::Interrupted))
    }

    /// Makes all changes or none. Errors: the kernel's for the first change that it refused.
    pub(super) fn transact(&mut self, changes: Vec<Change>) -> io::Result<()> {
        self.batch(NetfilterProtoFamily::Inet, changes, true)
    }

    /// As [`Netfilter::transact`], for tables of another family than `inet`.
    pub(super) fn transact_in(&mut self, family: NetfilterProtoFamily, changes: Vec<Change>) -> io::Result<()> {
        self.batch(family, changes, true)
    }

    /// Asks whether the kernel would make these changes; it makes none. Errors: as in [`Netfilter::transact`].
    pub(super) fn rehearse(&mut self, changes: Vec<Change>) -> io::Result<()> {
        // A batch that does not say where it ends is looked at and dropped.
        self.batch(NetfilterProtoFamily::Inet, changes, false)
    }

    fn batch(&mut self, family: NetfilterProtoFamily, changes: Vec<Change>, commit: bool) -> io::Result<()> {
        let subsystem = u16::from(u8::from(NetfilterSubsystem::NfTables));
        let bounds = || NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, subsystem);
        let of_family = |message| NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message);
        let first = self.next_sequence();
        let mut bytes = encode(NetfilterMessage::new(bounds(), ControlMessage::BatchBegin), NLM_F_REQUEST, first);
        let last = changes.len();
        for (at, change) in changes.into_iter().enumerate() {
            let acknowledge = if at + 1 == last { NLM_F_ACK } else { 0 };
            let sequence = self.next_sequence();
            bytes.extend(encode(of_family(change.message), NLM_F_REQUEST | change.flags | acknowledge, sequence));
        }
        let final_change = self.sequence;
        if commit {
            let end = NetfilterMessage::new(bounds(), ControlMessage::BatchEnd);
            bytes.extend(encode(end, NLM_F_REQUEST, self.next_sequence()));
        }
        self.socket.send(&bytes, 0)?;
        self.outcome(first, final_change)
    }

    /// The first refusal of a batch, which ends with the acknowledgement of its last change. A batch that fails as a
    /// whole is refused at its first message, and each change may be refused too.
    fn outcome(&mut self, first: u32, last: u32) -> io::Result<()> {
        let mut refusal = None;
        let mut flags = 0;
        loop {
            let datagram = match self.receive(flags) {
                Err(error) if flags != 0 && error.kind() == io::ErrorKind::WouldBlock => break,
                received => received?,
            };
            flags = libc::MSG_DONTWAIT;
            for message in messages(&datagram) {
                let message = message?;
                let ours = (first..=last).contains(&message.header.sequence_number);
                if let NetlinkPayload::Error(error) = message.payload
                    && let (true, Some(code)) = (ours, error.code)
                {
                    refusal.get_or_insert(io::Error::from_raw_os_error(code.get().abs()));
                }
            }
        }
        refusal.map_or(Ok(()), Err)
    }

    fn send(&mut self, family: NetfilterProtoFamily, message: NetfilterMessageInner, flags: u16) -> io::Result<u32> {
        let sequence = self.next_sequence();
        let message = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message);
        self.socket.send(&encode(message, NLM_F_REQUEST | flags, sequence), 0)?;
        Ok(sequence)
    }

    /// All messages that answer the request, and whether they fail to fit each other.
    fn answers(&mut self, sequence: u32) -> io::Result<(Vec<NetfilterMessageInner>, bool)> {
        let mut answers = Vec::new();
        let mut interrupted = false;
        loop {
            let datagram = self.receive(0)?;
            for message in messages(&datagram) {
                let message = message?;
                if message.header.sequence_number != sequence {
                    continue;
                }
                interrupted |= message.header.flags & INTERRUPTED != 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(message) => answers.push(message.inner),
                    // A list that the kernel could not go on with ends like any other, but for its code.
                    NetlinkPayload::Done(end) => return ended(end.code, answers, interrupted),
                    NetlinkPayload::Error(error) => {
                        return ended(error.code.map_or(0, NonZero::get), answers, interrupted);
                    }
                    _ => {}
                }
            }
        }
    }

    fn receive(&self, flags: libc::c_int) -> io::Result<Vec<u8>> {
        let mut datagram = Vec::with_capacity(LARGEST_DATAGRAM);
        self.socket.recv(&mut datagram, flags)?;
        Ok(datagram)
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }
}

fn ended<T>(code: i32, answers: T, interrupted: bool) -> io::Result<(T, bool)> {
    match code {
        0 => Ok((answers, interrupted)),
        code => Err(io::Error::from_raw_os_error(code.abs())),
    }
}

/// The messages of a datagram as they lie there; each starts at a multiple of four octets.
pub(super) fn split(mut datagram: &[u8]) -> impl Iterator<Item = NetlinkBuffer<&[u8]>> {
    std::iter::from_fn(move || {
        // Checked: the length covers a header and lies within the datagram.
        let length = usize::try_from(NetlinkBuffer::new_checked(datagram).ok()?.length()).ok()?;
        let (message, _) = datagram.split_at_checked(length)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        NetlinkBuffer::new_checked(message).ok()
    })
}

fn messages(datagram: &[u8]) -> impl Iterator<Item = io::Result<NetlinkMessage<NetfilterMessage>>> {
    let unreadable = |error| io::Error::new(io::ErrorKind::InvalidData, format!("{error}"));
    split(datagram).map(move |message| NetlinkMessage::deserialize(message.into_inner()).map_err(unreadable))
}

fn encode(message: NetfilterMessage, flags: u16, sequence: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len().next_multiple_of(4)];
    message.serialize(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::namespace::private;
    use netlink_packet_core::{NLM_F_MULTIPART, NLMSG_DONE};
    use netlink_packet_netfilter::nftables::{NfTablesMessage, TableMessage};

    #[test]
    fn a_list_that_ends_with_an_error_is_an_error() {
        private(|| {
            let mut stand_in = Socket::new(NETLINK_NETFILTER).expect("a socket");
            let port = stand_in.bind_auto().expect("a port").port_number();
            let mut kernel = Netfilter::connect().expect("a socket");
            kernel.lead_to(port);
            for (code, outcome) in [(0, None), (-libc::ENOMEM, Some(libc::ENOMEM))] {
                let next = kernel.sequence + 1;
                let mut end = Vec::new();
                end.extend(20_u32.to_ne_bytes());
                end.extend(NLMSG_DONE.to_ne_bytes());
                end.extend(NLM_F_MULTIPART.to_ne_bytes());
                end.extend(next.to_ne_bytes());
                end.extend(0_u32.to_ne_bytes());
                end.extend(code.to_ne_bytes());
                // The answer may lie there before the question.
                stand_in.send_to(&end, &SocketAddr::new(kernel.port(), 0), 0).expect("root may send");
                let asked = NfTablesMessage::GetTable(TableMessage { attributes: Vec::new() });
                let listed = kernel.list(NetfilterProtoFamily::Inet, asked);
                assert_eq!(listed.err().and_then(|error| error.raw_os_error()), outcome);
            }
        });
    }
}
