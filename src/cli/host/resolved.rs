//! systemd-resolved in charge: told by a file of its own to ask dnslet for every name that no link claims for itself, and
//! the servers of today where dnslet is away. Programs that ask it without resolv.conf (nss-resolve) come along.

use std::net::IpAddr;

use super::files::Root;
use super::{Done, services, text};
use crate::life::resolvconf::{LENDS, RESOLVED};

/// What it is told.
pub(super) use crate::life::resolvconf::DROP_IN;
const HEAD: &str = "# Written by dnslet host enable, removed by dnslet host disable.\n";
const UNIT: &str = "systemd-resolved.service";

pub(super) fn enable(root: &Root, address: IpAddr) -> Done {
    if !services::is_active(UNIT) {
        return Err(format!(
            "nothing was changed: /etc/resolv.conf leads to systemd-resolved, which does not run: systemctl start {UNIT}"
        ));
    }
    let global = global()?;
    if global.contains("+DNSOverTLS") {
        return Err("systemd-resolved asks over TLS only, and dnslet is asked without: set DNSOverTLS=no in \
                    /etc/systemd/resolved.conf, and let dnslet ask over TLS (forward . tls://...)"
            .to_owned());
    }
    let servers = Servers::of_today(root)?;
    let new = servers.written(address);
    match standing(root, address)? {
        Standing::First => return Ok(vec![format!("systemd-resolved asks {address} first already")]),
        // It keeps to a server that answers; reading its list again, it begins with the first.
        Standing::Left(server) if root.text(DROP_IN).as_ref() == Some(&new) => {
            let reloaded = services::reload(UNIT)?;
            return Ok(reloaded.into_iter().chain([format!("it asks {address} first again, not {server}")]).collect());
        }
        _ => root.put(DROP_IN, &new)?,
    }
    let told = services::reload(UNIT).and_then(|reloaded| match standing(root, address)? {
        Standing::Not(why) => Err(format!("systemd-resolved does not do as it was told: {why}")),
        _ => Ok(reloaded),
    });
    let line = format!("{DROP_IN} names {address} first, and behind it {}", servers.shown());
    match told {
        Ok(reloaded) => Ok([line].into_iter().chain(reloaded).collect()),
        Err(why) => Err(match release(root) {
            Ok(_) => format!("taken back: {why}"),
            Err(also) => format!("{why}; and it could not be taken back: {also}"),
        }),
    }
}

/// Whom it asks without us.
struct Servers {
    /// Of its own configuration.
    own: Vec<String>,
    links: Vec<String>,
}

impl Servers {
    /// The links' as it has them; its own are in our file since that replaces them.
    fn of_today(root: &Root) -> Result<Servers, String> {
        let told = root.text(DROP_IN);
        let said = services::output("resolvectl", &["dns", "--no-pager"])?;
        let (global, links): (Vec<&str>, Vec<&str>) = said.lines().partition(|line| line.starts_with("Global:"));
        let own = match &told {
            Some(told) => first_line(told).skip(1).map(str::to_owned).collect(),
            None => words(&global),
        };
        let mut links = words(&links);
        if links.is_empty() {
            // As at a boot: those of another day are better than none.
            links = told.as_deref().map(lent).unwrap_or_default();
        }
        links.retain(|server| !own.contains(server));
        Ok(Servers { own, links })
    }

    fn shown(&self) -> String {
        let all: Vec<&str> = self.own.iter().chain(&self.links).map(String::as_str).collect();
        if all.is_empty() { "nobody".to_owned() } else { all.join(" ") }
    }

    fn written(&self, address: IpAddr) -> String {
        let own: String = self.own.iter().map(|server| format!(" {server}")).collect();
        let links = match self.links.as_slice() {
            // An empty list would take back what was said before it.
            [] => String::new(),
            links => format!("{LENDS}{}\n", links.join(" ")),
        };
        format!("{HEAD}[Resolve]\nDNS=\nDNS={address}{own}\n{links}Domains=~.\n")
    }
}

/// dnslet's address, as our file has it.
pub(super) fn told(root: &Root) -> Option<IpAddr> {
    first_line(&root.text(DROP_IN)?).next()?.parse().ok()
}

/// dnslet, and the servers of its own configuration.
fn first_line(told: &str) -> impl Iterator<Item = &str> {
    let mut lists = told.lines().filter_map(|line| line.strip_prefix("DNS=")).filter(|list| !list.is_empty());
    lists.next().unwrap_or_default().split_whitespace()
}

/// The servers of the links, as our file has them.
fn lent(told: &str) -> Vec<String> {
    let after = told.split_once(LENDS).map_or("", |(_, after)| after);
    after.lines().next().unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// The servers in lines like `Link 2 (eth0): 192.0.2.1 192.0.2.2`, each once.
fn words(lines: &[&str]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for server in lines.iter().filter_map(|line| line.split_once(": ")).flat_map(|(_, list)| list.split_whitespace()) {
        if !found.iter().any(|other| other == server) {
            found.push(server.to_owned());
        }
    }
    found
}

/// Has it ask its own servers again.
pub(super) fn release(root: &Root) -> Done {
    services::without(root, DROP_IN, UNIT, "systemd-resolved asks its own servers")
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
    let fresh = told == Servers::of_today(root)?.written(address);
    Ok(if fresh { Standing::First } else { Standing::Stale })
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

    #[test]
    fn what_is_told_names_its_own_servers_and_lends_those_of_the_links() {
        let of = |own: &[&str], links: &[&str]| Servers { own: words(own), links: words(links) };
        let servers =
            of(&["Global: 9.9.9.9"], &["Link 2 (eth0): 192.0.2.1 192.0.2.2", "Link 3 (wg0):", "Link 4 (b): 192.0.2.1"]);
        let text = servers.written(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
        assert!(
            text.contains(&format!("DNS=\nDNS=127.0.0.1 9.9.9.9\n{LENDS}192.0.2.1 192.0.2.2\nDomains=~.\n")),
            "{text}"
        );
        assert_eq!(first_line(&text).collect::<Vec<_>>(), ["127.0.0.1", "9.9.9.9"]);
        assert_eq!(lent(&text), ["192.0.2.1", "192.0.2.2"]);
        let alone = of(&[], &[]).written(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
        assert!(alone.ends_with("DNS=\nDNS=127.0.0.1\nDomains=~.\n"), "{alone}");
    }
}
