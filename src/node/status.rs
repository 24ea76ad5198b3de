//! What the node looks like, in words for metrics, logs and people.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::desired::Rules;

/// What is in place, and what was done and failed since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Where the addresses are: the interface's name, `lo` where the kernel has no dummy links, `None` if not placed.
    pub link: Option<String>,
    /// The rules in use; `None` while there are none.
    pub rules: Option<Rules>,
    /// The addresses whose packets come here untracked.
    pub intercepted: BTreeSet<IpAddr>,
    /// The servers that link-local clients reach while nobody answers here.
    pub fallback: Vec<SocketAddr>,
    /// What could not be done so far, as it was told.
    pub lasting: BTreeSet<String>,
    /// How often each thing was done.
    pub actions: BTreeMap<Action, u64>,
    /// How often each kind of thing failed.
    pub troubles: BTreeMap<Kind, u64>,
}

/// One change of the kernel's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The interface was made.
    LinkAdded,
    /// The interface was brought up.
    LinkUp,
    /// An address was put on it.
    AddressAdded,
    /// What outlives the process was written: replies untracked, fallback.
    BaseWritten,
    /// The rules that bring packets here were placed or replaced.
    Intercepted,
    /// The rules that bring packets here were taken away.
    Withdrawn,
}

/// What kind of thing failed; the label `errortype` of `coredns_nodecache_setup_errors_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Rules could not be placed or read.
    Iptables,
    /// The xtables lock was held by somebody else.
    IptablesLock,
    /// The interface or an address could not be made.
    InterfaceAdd,
    /// The interface could not be looked at.
    InterfaceCheck,
}

/// Something that could not be done: a sentence that says what, why, what still works, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Its kind.
    pub kind: Kind,
    /// The sentence.
    pub text: String,
}

impl Action {
    /// The label's value.
    pub const fn word(self) -> &'static str {
        match self {
            Action::LinkAdded => "link_added",
            Action::LinkUp => "link_up",
            Action::AddressAdded => "address_added",
            Action::BaseWritten => "base_written",
            Action::Intercepted => "intercepted",
            Action::Withdrawn => "withdrawn",
        }
    }
}

impl Kind {
    /// The label's value.
    pub const fn word(self) -> &'static str {
        match self {
            Kind::Iptables => "iptables",
            Kind::IptablesLock => "iptables_lock",
            Kind::InterfaceAdd => "interface_add",
            Kind::InterfaceCheck => "interface_check",
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Trouble {}
