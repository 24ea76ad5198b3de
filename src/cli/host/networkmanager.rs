//! NetworkManager in charge: told to leave `/etc/resolv.conf` alone, which then names dnslet first. It goes on writing the
//! servers of the network to a file of its own, and dnslet follows that.

use std::net::IpAddr;

use super::files::Root;
use super::manager::RESOLV_CONF;
use super::{Done, plain, services, text};
use crate::life::resolvconf::{NETWORK_MANAGER, NO_STUB};

/// What NetworkManager is told.
pub(super) const DROP_IN: &str = "/etc/NetworkManager/conf.d/dnslet.conf";
const TELLS: &str = "# Written by dnslet host enable: it writes /etc/resolv.conf, and asks the servers that NetworkManager\n\
                     # keeps below /run/NetworkManager.\n[main]\nrc-manager=unmanaged\n";
const UNIT: &str = "NetworkManager.service";

/// Whether dnslet can be first. NetworkManager's own dnsmasq wants the same address, and asks the same servers.
pub(super) fn check() -> Result<(), String> {
    let bus = "org.freedesktop.NetworkManager";
    let manager = "/org/freedesktop/NetworkManager/DnsManager";
    let mode = services::output("busctl", &["get-property", bus, manager, &format!("{bus}.DnsManager"), "Mode"]);
    match mode {
        Ok(mode) if mode.trim() == "s \"dnsmasq\"" => Err("NetworkManager runs a dnsmasq at 127.0.0.1 (dns=dnsmasq), which \
            is such a cache itself: set dns=default in /etc/NetworkManager/NetworkManager.conf or its conf.d, then systemctl \
            restart NetworkManager"
            .to_owned()),
        // What does not run has no mode, and no dnsmasq.
        _ => Ok(()),
    }
}

pub(super) fn enable(root: &Root, address: IpAddr) -> Done {
    let before = today(root);
    // First what a mount or an immutable file would refuse.
    let mut lines = plain::keep(root)?;
    if root.text(DROP_IN).as_deref() != Some(TELLS) {
        root.put(DROP_IN, TELLS)?;
        lines.push(format!("{DROP_IN} tells NetworkManager to leave {RESOLV_CONF} alone"));
        lines.extend(services::reload(UNIT)?);
    }
    lines.extend(plain::put(root, address, &before, Some(file(root)))?);
    if lines.is_empty() {
        lines.push(format!("{RESOLV_CONF} names {address} first already, and NetworkManager leaves it alone"));
    }
    Ok(lines)
}

/// Where it keeps them: the first where its other file may name a DNS server on this machine.
fn file(root: &Root) -> &'static str {
    if root.exists(NO_STUB) { NO_STUB } else { NETWORK_MANAGER }
}

/// The servers of the network, as NetworkManager has them.
fn today(root: &Root) -> String {
    root.text(file(root)).or_else(|| root.text(RESOLV_CONF)).unwrap_or_default()
}

/// Whether the servers of today stand behind dnslet.
pub(super) fn is_fresh(root: &Root, address: IpAddr) -> bool {
    let written = root.text(RESOLV_CONF).unwrap_or_default();
    text::others(&written, address) == text::others(&today(root), address)
}

/// Lets it write the file again, which it does at once, with the servers of today.
pub(super) fn release(root: &Root) -> Done {
    services::without(root, DROP_IN, UNIT, &format!("NetworkManager writes {RESOLV_CONF} again"))
}
