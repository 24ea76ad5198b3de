//! A plain `/etc/resolv.conf`: replaced by one that names dnslet first, and kept.

use std::net::IpAddr;

use super::files::Root;
use super::manager::RESOLV_CONF;
use super::{Done, text};

/// What was there before. Beside it, because a file has a second name only on its own file system; as a file of its own
/// and not a link to elsewhere, because programs may be confined to reading `/etc/resolv.conf`.
pub(super) const KEPT: &str = "/etc/resolv.conf.before-dnslet";

pub(super) fn enable(root: &Root, address: IpAddr) -> Done {
    let mut before = root.text(RESOLV_CONF).unwrap_or_default();
    // It may have listened elsewhere.
    if let Some(told) = told(root) {
        before = text::without(&before, told);
    }
    let mut lines = keep(root)?;
    lines.extend(put(root, address, &before, None)?);
    if lines.is_empty() {
        lines.push(format!("{RESOLV_CONF} names {address} first already"));
    }
    Ok(lines)
}

/// Whether the file is one that was written here.
pub(super) fn is_ours(root: &Root) -> bool {
    root.link(RESOLV_CONF).is_none() && root.text(RESOLV_CONF).is_some_and(|text| text::ours(&text))
}

/// dnslet's address, as our file has it.
pub(super) fn told(root: &Root) -> Option<IpAddr> {
    let ours = is_ours(root).then(|| root.text(RESOLV_CONF)).flatten()?;
    text::servers(&ours).first()?.parse().ok()
}

/// Whether programs are told to ask dnslet first, whoever has written that.
pub(super) fn names_first(root: &Root, address: IpAddr) -> bool {
    root.text(RESOLV_CONF).is_some_and(|text| text::is_first(&text, address))
}

/// Whether somebody else has written the file since it was ours, and names others first.
pub(super) fn is_replaced(root: &Root, address: IpAddr) -> bool {
    root.exists(KEPT) && !names_first(root, address) && !is_ours(root) && !root.same(KEPT, RESOLV_CONF)
}

/// What to do about that. `who` says who does it again and again, and how to stop that.
pub(super) fn replaced(who: Option<String>) -> String {
    let fix = "dnslet host enable writes it again, dnslet host disable leaves it so";
    format!("{RESOLV_CONF} was written by somebody else since dnslet host enable: {}", who.as_deref().unwrap_or(fix))
}

/// Keeps what is there, unless it is ours.
pub(super) fn keep(root: &Root) -> Done {
    if is_ours(root) {
        return Ok(Vec::new());
    }
    root.keep(RESOLV_CONF, KEPT)?;
    Ok(vec![format!("kept {RESOLV_CONF} as {KEPT}")])
}

/// Writes the servers of `before` behind dnslet. No lines if that stands there already.
pub(super) fn put(root: &Root, address: IpAddr, before: &str, follows: Option<&str>) -> Done {
    let new = text::written(before, address, follows);
    if root.link(RESOLV_CONF).is_none() && root.text(RESOLV_CONF).as_deref() == Some(&new) {
        return Ok(Vec::new());
    }
    root.put(RESOLV_CONF, &new)?;
    let behind = match text::others(before, address).as_slice() {
        [] => "nobody: while dnslet is away, no name resolves".to_owned(),
        others => others.join(", "),
    };
    Ok(vec![format!("{RESOLV_CONF} names {address} first, and behind it {behind}")])
}

/// Brings back what was kept. A file that somebody else has written since is left alone.
pub(super) fn disable(root: &Root) -> Done {
    match (is_ours(root), root.exists(KEPT)) {
        (true, true) => {
            root.bring_back(KEPT, RESOLV_CONF)?;
            Ok(vec![format!("{RESOLV_CONF} is what it was before")])
        }
        (true, false) => {
            let text = root.text(RESOLV_CONF).unwrap_or_default();
            let address = told(root).unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
            root.put(RESOLV_CONF, &text::without(&text, address))?;
            Ok(vec![format!("{KEPT} is gone: {RESOLV_CONF} is what it was under dnslet, without {address}")])
        }
        (false, true) if root.same(KEPT, RESOLV_CONF) => {
            root.remove(KEPT)?;
            Ok(vec![format!("removed {KEPT}, a second name of {RESOLV_CONF}")])
        }
        (false, true) => {
            root.remove(KEPT)?;
            Ok(vec![format!("{RESOLV_CONF} was written by somebody else since: it stays; removed {KEPT}")])
        }
        (false, false) => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests;
