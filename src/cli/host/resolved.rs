//! systemd-resolved in charge: told by a file of its own to ask dnslet for every name that no link claims for itself, and
//! the servers of today where dnslet is away. Programs that ask it without resolv.conf (nss-resolve) come along.

use std::net::IpAddr;

use super::files::Root;
use super::{Done, services, text};
use crate::life::resolvconf::RESOLVED;

/// What it is told.
pub(super) const DROP_IN: &str = "/etc/systemd/resolved.conf.d/dnslet.conf";
const UNIT: &str = "systemd-resolved.service";

pub(super) fn enable(root: &Root, address: IpAddr) -> Done {
    if !services::is_active(UNIT) {
        return Err(format!(
            "nothing was changed: /etc/resolv.conf leads to systemd-resolved, which does not run: systemctl start {UNIT}"
        ));
    }
    match standing(root, address)? {
        Standing::First => return Ok(vec![format!("systemd-resolved asks {address} first already")]),
        // It keeps to a server that answers; reading its list again, it begins with the first.
        Standing::Left(server) => {
            let reloaded = services::reload(UNIT)?;
            return Ok(reloaded.into_iter().chain([format!("it asks {address} first again, not {server}")]).collect());
        }
        Standing::Stale | Standing::Not(_) => {}
    }
    // The servers of today are those that it asks without us.
    let mut lines = release(root)?;
    if global()?.contains("+DNSOverTLS") {
        return Err("systemd-resolved asks over TLS only, and dnslet is asked without: set DNSOverTLS=no in \
                    /etc/systemd/resolved.conf, and let dnslet ask over TLS (forward . tls://...)"
            .to_owned());
    }
    let before = root.text(RESOLVED).unwrap_or_default();
    let others = text::others(&before, address).join(" ");
    root.put(DROP_IN, &written(address, &others))?;
    let behind = if others.is_empty() { "nobody" } else { &others };
    lines.push(format!("{DROP_IN} names {address} first, and behind it {behind}"));
    let told = services::reload(UNIT).and_then(|reloaded| match standing(root, address)? {
        Standing::Not(why) => Err(format!("systemd-resolved does not do as it was told: {why}")),
        _ => Ok(reloaded),
    });
    match told {
        Ok(reloaded) => Ok(lines.into_iter().chain(reloaded).collect()),
        Err(why) => Err(match release(root) {
            Ok(_) => format!("taken back: {why}"),
            Err(also) => format!("{why}; and it could not be taken back: {also}"),
        }),
    }
}

/// Has it ask its own servers again.
pub(super) fn release(root: &Root) -> Done {
    if !root.exists(DROP_IN) {
        return Ok(Vec::new());
    }
    root.remove(DROP_IN)?;
    let mut lines = vec![format!("removed {DROP_IN}: systemd-resolved asks its own servers")];
    lines.extend(services::reload(UNIT)?);
    Ok(lines)
}

/// Whom it asks.
pub(super) enum Standing {
    /// dnslet, and behind it the servers of today.
    First,
    /// The same, but behind it are servers of another day.
    Stale,
    /// Another server, since dnslet was away.
    Left(String),
    /// It was not told, or does not listen, for this reason.
    Not(String),
}

pub(super) fn standing(root: &Root, address: IpAddr) -> Result<Standing, String> {
    let Some(told) = root.text(DROP_IN) else { return Ok(Standing::Not(format!("{DROP_IN} is not there"))) };
    let asked = root.text(RESOLVED).unwrap_or_default();
    if !text::is_first(&asked, address) {
        return Ok(Standing::Not(format!("{RESOLVED} does not name {address} first")));
    }
    let global = global()?;
    if let Some(other) = current(&global).filter(|server| server.parse() != Ok(address)) {
        return Ok(Standing::Left(other.to_owned()));
    }
    let fresh = told == written(address, &text::others(&asked, address).join(" "));
    Ok(if fresh { Standing::First } else { Standing::Stale })
}

fn written(address: IpAddr, others: &str) -> String {
    format!(
        "# Written by dnslet host enable, removed by dnslet host disable.\n[Resolve]\nDNS=\nDNS={}\nDomains=~.\n",
        format!("{address} {others}").trim_end()
    )
}

/// What it says of the servers that belong to no link.
fn global() -> Result<String, String> {
    let status = services::output("resolvectl", &["status", "--no-pager"])?;
    Ok(status.split("\n\n").next().unwrap_or_default().to_owned())
}

/// The server that it asks at present; none before the first question.
fn current(global: &str) -> Option<&str> {
    global.lines().find_map(|line| line.trim().strip_prefix("Current DNS Server: ")).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_server_is_read_from_the_global_part() {
        let global = "Global\n         Protocols: +LLMNR -DNSOverTLS\nCurrent DNS Server: 198.18.0.1\n       DNS Servers: 127.0.0.1 198.18.0.1";
        assert_eq!(current(global), Some("198.18.0.1"));
        assert_eq!(current("Global\n  Protocols: -LLMNR"), None);
    }
}
