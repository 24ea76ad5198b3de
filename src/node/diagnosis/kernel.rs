//! What the kernel can do and how it is set, from /proc and its list of modules.

use std::fs;
use std::path::Path;

/// The kernel and its settings. A field is `None` where nothing tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Its version, as in `6.1.0-13-amd64`.
    pub release: Option<String>,
    /// Whether it is 5.12 or later, from which on a table can end with its process.
    pub ends_tables: Option<bool>,
    /// Whether it can make dummy interfaces.
    pub dummy: Option<bool>,
    /// IPv6, in general and on the interface.
    pub ipv6: Ipv6,
    /// Entries of the connection tracking table, and how many it takes; `None` also where nothing is tracked.
    pub tracked: Option<(u64, u64)>,
}

/// Whether addresses of IPv6 can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv6 {
    /// They can.
    On,
    /// A setting forbids it (`disable_ipv6`).
    Off,
    /// The kernel has none.
    Absent,
}

/// Reads it all. `link` is the interface whose setting counts, where it exists.
pub(super) fn look(link: &str) -> Kernel {
    let release = word("/proc/sys/kernel/osrelease");
    let number = |name: &str| word(&format!("/proc/sys/net/netfilter/nf_conntrack_{name}"))?.parse().ok();
    Kernel {
        ends_tables: release.as_deref().and_then(version).map(|version| version >= (5, 12)),
        dummy: dummy(release.as_deref().unwrap_or_default()),
        ipv6: ipv6(link),
        tracked: number("count").zip(number("max")),
        release,
    }
}

/// Whether this process has CAP_NET_ADMIN.
pub(super) fn may_change_network() -> bool {
    /// The number of CAP_NET_ADMIN.
    const NET_ADMIN: u32 = 12;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).is_some_and(|set| set >> NET_ADMIN & 1 == 1)
}

/// Whether IPv6 can be used on the interface, or on one that would be made.
pub fn ipv6(link: &str) -> Ipv6 {
    let off = |at: &str| word(&format!("/proc/sys/net/ipv6/conf/{at}/disable_ipv6")).as_deref() == Some("1");
    match Path::new("/proc/sys/net/ipv6").exists() {
        false => Ipv6::Absent,
        // Setting it for all sets it for each; one may have been set back.
        true if Path::new("/proc/sys/net/ipv6/conf").join(link).exists() => match off(link) {
            true => Ipv6::Off,
            false => Ipv6::On,
        },
        true if off("default") => Ipv6::Off,
        true => Ipv6::On,
    }
}

fn dummy(release: &str) -> Option<bool> {
    let names = |path: &str, sign: &str| fs::read_to_string(path).is_ok_and(|text| text.contains(sign));
    let loaded = fs::read_to_string("/proc/modules").unwrap_or_default();
    if loaded.lines().any(|line| line.starts_with("dummy ")) {
        return Some(true);
    }
    let modules = format!("/lib/modules/{release}");
    // A container without the node's modules tells nothing.
    Path::new(&modules)
        .join("modules.dep")
        .exists()
        .then(|| ["builtin", "dep"].iter().any(|list| names(&format!("{modules}/modules.{list}"), "/net/dummy.ko")))
}

/// `6.1.0-13-amd64` is 6 and 1.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|char: char| !char.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn word(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        for (release, expected) in [("5.9.0", (5, 9)), ("5.12-rc1", (5, 12)), ("6.1.0-13-amd64", (6, 1))] {
            assert_eq!(version(release), Some(expected));
        }
        assert_eq!(version("unknown"), None);
    }

    #[test]
    fn this_kernel_is_described() {
        let kernel = look("lo");
        assert!(kernel.release.is_some() && kernel.ends_tables.is_some(), "{kernel:?}");
        assert_eq!(kernel.ipv6 == Ipv6::Absent, !Path::new("/proc/net/if_inet6").exists());
    }
}
