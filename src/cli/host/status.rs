//! `host status`: whether programs ask dnslet, and what would be brought back.

use std::net::IpAddr;

use super::files::Root;
use super::manager::{self, InCharge, RESOLV_CONF};
use super::resolved::Standing;
use super::{networkmanager, plain, resolved, text};

/// What decides which programs read resolv.conf at all.
const NSSWITCH: &str = "/etc/nsswitch.conf";

/// Said of servers behind dnslet that the network has replaced since.
const STALE: &str = "; behind it are servers of another day: dnslet host enable brings in those of today";

/// The report, and whether all is well: programs ask dnslet first, and it answers.
pub(super) fn status(root: &Root, address: IpAddr, answers: &Result<(), String>) -> (String, bool) {
    let manager = manager::of(root);
    let first = match &manager {
        Ok(InCharge::Resolved) => in_resolved(root, address),
        _ if plain::is_replaced(root, address) => Err(plain::replaced(None)),
        Ok(manager) => in_file(root, address, *manager),
        Err(_) => in_file(root, address, InCharge::Nobody),
    };
    let rows = [
        ("in charge", manager.as_ref().map_or_else(Clone::clone, ToString::to_string)),
        (
            "in front",
            first.as_ref().map_or_else(|why| format!("no: {why}"), |more| format!("{address} is asked first{more}")),
        ),
        (
            "answers",
            answers.as_ref().map_or_else(|why| format!("no: {why}"), |()| format!("{address} over UDP and TCP")),
        ),
        ("way back", way_back(root)),
        ("nsswitch", nsswitch(root, manager.as_ref().ok())),
    ];
    let report = rows.iter().map(|(what, said)| format!("{what:<10} {said}\n")).collect();
    (report, first.is_ok() && answers.is_ok())
}

/// More to say if dnslet is first; why not is the error.
fn in_resolved(root: &Root, address: IpAddr) -> Result<&'static str, String> {
    match resolved::standing(root, address)? {
        Standing::First => Ok(""),
        Standing::Stale => Ok(STALE),
        Standing::Left(server) => {
            Err(format!("it asks {server} since dnslet was away; dnslet host enable brings it back"))
        }
        Standing::Not(why) => Err(why),
    }
}

fn in_file(root: &Root, address: IpAddr, manager: InCharge) -> Result<&'static str, String> {
    let text = root.text(RESOLV_CONF).unwrap_or_default();
    if !text::is_first(&text, address) {
        return Err(format!("{RESOLV_CONF} names {} first", text::servers(&text).first().unwrap_or(&"nobody")));
    }
    if manager == InCharge::Nobody {
        return Ok("");
    }
    if !root.exists(networkmanager::DROP_IN) {
        return Err(format!("NetworkManager is not told to leave {RESOLV_CONF} alone"));
    }
    Ok(if networkmanager::is_fresh(root, address) { "" } else { STALE })
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

fn nsswitch(root: &Root, manager: Option<&InCharge>) -> String {
    let text = root.text(NSSWITCH).unwrap_or_default();
    let hosts = text.lines().find_map(|line| line.strip_prefix("hosts:")).unwrap_or("files dns").trim();
    let words: Vec<&str> = hosts.split_whitespace().collect();
    let place = |word| words.iter().position(|other| *other == word);
    let note = match (place("resolve"), place("dns")) {
        (Some(resolve), dns) if manager != Some(&InCharge::Resolved) && dns.is_none_or(|dns| resolve < dns) => {
            ": while systemd-resolved runs, programs ask that and not the servers of resolv.conf"
        }
        (None, None) => ": programs that use the C library ask no DNS server at all",
        _ => "",
    };
    format!("hosts: {hosts}{note}")
}
