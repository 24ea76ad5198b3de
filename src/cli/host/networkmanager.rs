//! NetworkManager in charge: told to leave `/etc/resolv.conf` alone, which then names dnslet first. It goes on writing the
//! servers of the network to a file of its own, and dnslet follows that.

use std::net::IpAddr;

use super::files::Root;
use super::manager::RESOLV_CONF;
use super::{Done, plain, services, text};
use crate::life::resolvconf::NETWORK_MANAGER;

/// What NetworkManager is told.
pub(super) const DROP_IN: &str = "/etc/NetworkManager/conf.d/dnslet.conf";
const TELLS: &str = "# Written by dnslet host enable: it writes /etc/resolv.conf, and asks the servers that NetworkManager\n\
                     # keeps in /run/NetworkManager/resolv.conf.\n[main]\nrc-manager=unmanaged\n";
const UNIT: &str = "NetworkManager.service";

pub(super) fn enable(root: &Root, address: IpAddr) -> Done {
    let before = today(root);
    // First what a mount or an immutable file would refuse.
    let mut lines = plain::keep(root)?;
    if root.text(DROP_IN).as_deref() != Some(TELLS) {
        root.put(DROP_IN, TELLS)?;
        lines.push(format!("{DROP_IN} tells NetworkManager to leave {RESOLV_CONF} alone"));
        lines.extend(services::reload(UNIT)?);
    }
    lines.extend(plain::put(root, address, &before, Some(NETWORK_MANAGER))?);
    if lines.is_empty() {
        lines.push(format!("{RESOLV_CONF} names {address} first already, and NetworkManager leaves it alone"));
    }
    Ok(lines)
}

/// The servers of the network, as NetworkManager has them.
fn today(root: &Root) -> String {
    root.text(NETWORK_MANAGER).or_else(|| root.text(RESOLV_CONF)).unwrap_or_default()
}

/// Whether the servers of today stand behind dnslet.
pub(super) fn is_fresh(root: &Root, address: IpAddr) -> bool {
    let written = root.text(RESOLV_CONF).unwrap_or_default();
    text::others(&written, address) == text::others(&today(root), address)
}

/// Lets it write the file again, which it does at once, with the servers of today.
pub(super) fn release(root: &Root) -> Done {
    if !root.exists(DROP_IN) {
        return Ok(Vec::new());
    }
    root.remove(DROP_IN)?;
    let mut lines = vec![format!("removed {DROP_IN}: NetworkManager writes {RESOLV_CONF} again")];
    lines.extend(services::reload(UNIT)?);
    Ok(lines)
}
