//! The text of resolv.conf: what is read from one, and what is written.

use std::net::IpAddr;

use crate::life::resolvconf::FOLLOWS;

/// The first line of what is ours.
const HEAD: &str = "# Written by dnslet host enable; dnslet host disable brings back what was here.\n";

/// Of a server that says nothing, programs go on to the next after this, and not after 5 s.
const TIMEOUT: &str = "options timeout:1";

/// Whether `dnslet host enable` wrote it.
pub(super) fn ours(text: &str) -> bool {
    text.starts_with(HEAD)
}

/// The servers as they are written, in order.
pub(super) fn servers(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for server in text.lines().filter_map(|line| value(line, "nameserver")) {
        if !found.contains(&server) {
            found.push(server);
        }
    }
    found
}

/// The servers without dnslet.
pub(super) fn others(text: &str, address: IpAddr) -> Vec<&str> {
    servers(text).into_iter().filter(|server| server.parse() != Ok(address)).collect()
}

/// Whether dnslet is asked before all others.
pub(super) fn is_first(text: &str, address: IpAddr) -> bool {
    servers(text).first().is_some_and(|server| server.parse() == Ok(address))
}

/// A text for programs: dnslet, the other servers of `before` behind it, and whatever else was said there. `follows` is
/// the file with the servers that dnslet itself asks, where that is another.
pub(super) fn written(before: &str, address: IpAddr, follows: Option<&str>) -> String {
    let mut text = HEAD.to_owned();
    text.extend(follows.map(|file| format!("{FOLLOWS}{file}\n")));
    text.push_str(&format!("nameserver {address}\n"));
    text.extend(others(before, address).iter().map(|server| format!("nameserver {server}\n")));
    text.extend(before.lines().filter_map(kept));
    if !others(before, address).is_empty() && !has_timeout(before) {
        text.push_str(&format!("{TIMEOUT}\n"));
    }
    text
}

fn has_timeout(text: &str) -> bool {
    let options = text.lines().filter(|line| value(line, "options").is_some());
    options.flat_map(str::split_whitespace).any(|option| option.starts_with("timeout:"))
}

/// The same without dnslet, where what was there before is lost.
pub(super) fn without(text: &str, address: IpAddr) -> String {
    let servers = others(text, address).into_iter().map(|server| format!("nameserver {server}\n"));
    servers.chain(text.lines().filter(|line| *line != TIMEOUT).filter_map(kept)).collect()
}

/// A line that names no server and is no comment. With `rotate`, programs would not ask dnslet first.
fn kept(line: &str) -> Option<String> {
    let word = line.split_whitespace().next().filter(|word| !word.starts_with(['#', ';']) && *word != "nameserver")?;
    match value(line, "options") {
        Some(_) => {
            let options: Vec<&str> = line.split_whitespace().skip(1).filter(|option| *option != "rotate").collect();
            (!options.is_empty()).then(|| format!("{word} {}\n", options.join(" ")))
        }
        None => Some(format!("{line}\n")),
    }
}

/// The first word behind a keyword.
fn value<'a>(line: &'a str, keyword: &str) -> Option<&'a str> {
    let mut words = line.split_whitespace();
    (words.next() == Some(keyword)).then(|| words.next()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::life::resolvconf::NETWORK_MANAGER;

    const US: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn dnslet_comes_first_and_the_rest_stays() {
        let before =
            "# by hand\nsearch corp.example\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\noptions ndots:2 rotate\n";
        let text = written(before, US, Some(NETWORK_MANAGER));
        let lines = "# dnslet forwards to the servers in /run/NetworkManager/resolv.conf\nnameserver 127.0.0.1\n\
                     nameserver 192.0.2.1\nnameserver fe80::1%eth0\nsearch corp.example\noptions ndots:2\n\
                     options timeout:1\n";
        assert_eq!(text, [HEAD, lines].concat());
        assert!(ours(&text) && is_first(&text, US) && !ours(before) && !is_first(before, US));
        assert_eq!(written(&text, US, Some(NETWORK_MANAGER)), text, "what is written again stays");
        let patient = "nameserver 192.0.2.1\noptions timeout:3\n";
        assert!(written(patient, US, None).ends_with(patient), "what is set stays");
        assert!(!written("nameserver 127.0.0.1\n", US, None).contains("timeout"), "nobody is behind it");
        assert_eq!(
            without(&text, US),
            "nameserver 192.0.2.1\nnameserver fe80::1%eth0\nsearch corp.example\noptions ndots:2\n"
        );
    }
}
