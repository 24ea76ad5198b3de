//! Waits for changes of our tables by others.

use std::future;
use std::io;

use netlink_packet_core::{NetlinkBuffer, NlasIterator};
use netlink_packet_netfilter::NetfilterSubsystem;
use netlink_packet_netfilter::nftables::NfTablesMessageType;
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

use crate::node::netfilter;

/// The group of all events of nf_tables (NFNLGRP_NFTABLES).
const GROUP: u32 = 7;

/// Room for one datagram; the kernel fills at most a few pages.
const LARGEST_DATAGRAM: usize = 64 << 10;

/// Octets of a netfilter message before its attributes.
const HEADER: usize = 4;

/// The attribute that names the table, in messages about tables, chains, rules and sets alike.
const TABLE_NAME: u16 = 1;

/// A socket that hears of changes.
pub(super) struct Watch {
    socket: TokioSocket,
    datagram: Vec<u8>,
    broken: bool,
}

impl Watch {
    /// Listens from here on. Must be called inside a runtime that does I/O. Errors: the kernel's.
    pub(super) fn start() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
        socket.socket_mut().add_membership(GROUP)?;
        Ok(Self { socket, datagram: Vec::with_capacity(LARGEST_DATAGRAM), broken: false })
    }

    /// Waits for a change of a table of one of these names, made from another socket than these, or for the kernel to say
    /// that there were more changes than it could tell, or none from here on. Cancel-safe.
    pub(super) async fn changed(&mut self, tables: &[&str], own_ports: &[Option<u32>]) {
        if self.broken {
            return future::pending().await;
        }
        loop {
            self.datagram.clear();
            if let Err(error) = self.socket.recv(&mut self.datagram).await {
                // ENOBUFS: events were lost, and others will come.
                self.broken = error.raw_os_error() != Some(libc::ENOBUFS);
                return;
            }
            let others =
                netfilter::split(&self.datagram).filter(|event| !own_ports.contains(&Some(event.port_number())));
            let mut names = others.filter_map(|event| table_of(&event));
            if names.any(|name| tables.contains(&name.as_str())) {
                return;
            }
        }
    }

    /// Listens again where no more events would come. Errors: the kernel's; there are still none then.
    pub(super) fn renew(&mut self) -> io::Result<()> {
        if self.broken {
            *self = Self::start()?;
        }
        Ok(())
    }
}

#[cfg(test)]
impl Watch {
    /// As after an error that lasts.
    pub(super) fn end(&mut self) {
        self.broken = true;
    }

    /// Leaves room for hardly any event.
    pub(super) fn shrink(&self) {
        self.socket.socket_ref().set_rx_buf_sz(1_i32).expect("any size is allowed");
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

/// The table that an event is about. The end of a transaction is about none.
fn table_of(event: &NetlinkBuffer<&[u8]>) -> Option<String> {
    let [kind, subsystem] = event.message_type().to_le_bytes();
    let about_all = [NfTablesMessageType::NewGen, NfTablesMessageType::Trace];
    if NetfilterSubsystem::from(subsystem) != NetfilterSubsystem::NfTables || about_all.contains(&kind.into()) {
        return None;
    }
    let attributes = NlasIterator::new(event.payload().get(HEADER..)?);
    let name = attributes.flatten().find(|attribute| attribute.kind() == TABLE_NAME)?;
    Some(String::from_utf8_lossy(name.value()).trim_end_matches('\0').to_owned())
}
