//! What operators read about links and addresses.

use std::io;
use std::net::IpAddr;

use super::rtnl::Link;
use crate::node::status::{Kind, Trouble};

/// No connection to the kernel.
pub(super) fn unconnected(error: &io::Error) -> Trouble {
    check(format!(
        "interfaces cannot be looked at, because there is no netlink socket ({error}): addresses stay as they are and \
         serving goes on; allow sockets of the family AF_NETLINK, or place the addresses and pass -setupinterface=false"
    ))
}

/// The kernel does not say what there is.
pub(super) fn unreadable(error: &io::Error) -> Trouble {
    check(format!(
        "interfaces and addresses cannot be read ({error}): they stay as they are and serving goes on; if it lasts, \
         place the addresses and pass -setupinterface=false"
    ))
}

/// The kernel did not answer in time.
pub(super) fn slow() -> Trouble {
    check(
        "interfaces and addresses cannot be looked after, because the kernel took too long to answer: serving goes on, \
         and it is tried again; other programs may be changing many interfaces at once"
            .to_owned(),
    )
}

/// Something stays that was to go.
pub(super) fn unremoved(name: &str, why: &str) -> Trouble {
    check(format!(
        "the interface {name}, or addresses of the cache on it or on lo, could not be removed ({why}): nobody answers \
         there; `ip address` shows what is left, and `ip link delete {name}` removes the interface"
    ))
}

/// The name is taken by an interface that is not ours.
pub(super) fn foreign(name: &str, link: &Link, missing: &[IpAddr]) -> Trouble {
    let kind = link.kind.as_ref().map_or_else(|| "another kind of interface".to_owned(), |kind| format!("a {kind}"));
    add(format!(
        "the interface {name} is {kind} and not a dummy link that could be ours, so it is left alone and no interface \
         gets {}: serving goes on at addresses that the node has; pick a free name with -interfacename",
        listed(missing)
    ))
}

/// We may not change anything.
pub(super) fn forbidden(missing: &[IpAddr]) -> Trouble {
    let missing = listed(missing);
    add(format!(
        "no interface has {missing} and this process may not change that, because it lacks CAP_NET_ADMIN: serving goes \
         on, and reaches clients once somebody else places {missing}; add the capability, or place the addresses and \
         pass -setupinterface=false"
    ))
}

/// The interface cannot be made.
pub(super) fn unmade(name: &str, error: &io::Error, missing: &[IpAddr]) -> Trouble {
    add(format!(
        "the interface {name} cannot be made ({error}), so no interface gets {}: serving goes on at addresses that the \
         node has; place the others and pass -setupinterface=false, or pick another -interfacename",
        listed(missing)
    ))
}

/// The interface does not come up.
pub(super) fn down(link: &Link, error: &io::Error) -> Trouble {
    let name = &link.name;
    add(format!(
        "the interface {name} is down and cannot be brought up ({error}): clients may not reach the addresses on it; \
         type: ip link set {name} up"
    ))
}

/// The node does not want IPv6 there.
pub(super) fn no_ipv6(link: &Link, missing: &[IpAddr]) -> Trouble {
    let name = &link.name;
    add(format!(
        "IPv6 is disabled on {name}, which therefore cannot have {}: IPv4 goes on; type: sysctl \
         net.ipv6.conf.{name}.disable_ipv6=0, or leave the IPv6 addresses out of -localip",
        listed(missing)
    ))
}

/// An address is refused.
pub(super) fn refused(address: IpAddr, link: &Link, error: &io::Error) -> Trouble {
    let name = &link.name;
    add(format!(
        "{address} cannot be put on {name} ({error}): serving goes on at the other addresses; place it yourself, or \
         leave it out of -localip"
    ))
}

/// Addresses in a sentence.
pub(in crate::node) fn listed(addresses: &[IpAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    match texts.as_slice() {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

const fn check(text: String) -> Trouble {
    Trouble { kind: Kind::InterfaceCheck, text }
}

const fn add(text: String) -> Trouble {
    Trouble { kind: Kind::InterfaceAdd, text }
}
