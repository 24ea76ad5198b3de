//! `host status`: whether programs ask dnslet, and what would be brought back.

use std::net::IpAddr;

use super::files::Root;
use super::manager::{self, Manager, RESOLV_CONF};
use super::{networkmanager, plain, resolved, text};

/// What decides which programs read resolv.conf at all.
const NSSWITCH: &str = "/etc/nsswitch.conf";

/// The report, and whether all is well: programs ask dnslet first, and it answers.
pub(super) fn status(root: &Root, address: IpAddr, answers: &Result<(), String>) -> (String, bool) {
    let manager = manager::of(root);
    let away = match &manager {
        Ok(Manager::Resolved) => resolved::standing(root, address).unwrap_or_else(Some),
        Ok(manager) => in_file(root, address, *manager),
        Err(_) => Some(format!("{RESOLV_CONF} is not ours")),
    };
    let rows = [
        ("in charge", manager.as_ref().map_or_else(Clone::clone, ToString::to_string)),
        ("in front", away.as_ref().map_or_else(|| format!("{address} is asked first"), |why| format!("no: {why}"))),
        (
            "answers",
            answers.as_ref().map_or_else(|why| format!("no: {why}"), |()| format!("{address} over UDP and TCP")),
        ),
        ("way back", way_back(root)),
        ("nsswitch", nsswitch(root, manager.as_ref().ok())),
    ];
    let report = rows.iter().map(|(what, said)| format!("{what:<10} {said}\n")).collect();
    (report, away.is_none() && answers.is_ok())
}

fn in_file(root: &Root, address: IpAddr, manager: Manager) -> Option<String> {
    let text = root.text(RESOLV_CONF).unwrap_or_default();
    if !text::is_first(&text, address) {
        let first = text::servers(&text).first().map_or("nobody", |server| *server).to_owned();
        return Some(format!("{RESOLV_CONF} names {first} first"));
    }
    let told = manager != Manager::NetworkManager || root.exists(networkmanager::DROP_IN);
    (!told).then(|| format!("NetworkManager is not told to leave {RESOLV_CONF} alone"))
}

fn way_back(root: &Root) -> String {
    let kept = match root.link(plain::KEPT) {
        Some(target) => Some(format!("{} is a link to {}", plain::KEPT, target.display())),
        None => root.text(plain::KEPT).map(|text| format!("{} names {}", plain::KEPT, text::servers(&text).join(", "))),
    };
    let drop_ins = [networkmanager::DROP_IN, resolved::DROP_IN].into_iter().filter(|file| root.exists(file));
    let parts: Vec<String> = kept.into_iter().chain(drop_ins.map(|file| format!("{file} will be removed"))).collect();
    if parts.is_empty() { "nothing to take back".to_owned() } else { parts.join("; ") }
}

fn nsswitch(root: &Root, manager: Option<&Manager>) -> String {
    let text = root.text(NSSWITCH).unwrap_or_default();
    let hosts = text.lines().find_map(|line| line.strip_prefix("hosts:")).unwrap_or("files dns").trim();
    let words: Vec<&str> = hosts.split_whitespace().collect();
    let place = |word| words.iter().position(|other| *other == word);
    let note = match (place("resolve"), place("dns")) {
        (Some(resolve), dns) if manager != Some(&Manager::Resolved) && dns.is_none_or(|dns| resolve < dns) => {
            ": while systemd-resolved runs, programs ask that and not the servers of resolv.conf"
        }
        (None, None) => ": programs that use the C library ask no DNS server at all",
        _ => "",
    };
    format!("hosts: {hosts}{note}")
}
