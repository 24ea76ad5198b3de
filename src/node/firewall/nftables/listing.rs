//! What is in force, for people.

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::rules::{BASE, INSTANCE_PREFIX};
use super::{expressions, rules, table, trouble};
use crate::node::netfilter::Netfilter;
use crate::node::status::Trouble;

/// A table of ours, of another instance, or loaded by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Its name, in family `inet`.
    pub table: String,
    /// The socket it belongs to, by the kernel's number; it is the process id for the first socket of a process.
    pub owner: Option<u32>,
    /// Its rules, in order within each chain.
    pub rules: Vec<InstalledRule>,
}

/// A rule of such a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstalledRule {
    /// The chain it stands in.
    pub chain: String,
    /// What it does, in words; empty if nobody said.
    pub comment: String,
    /// Packets that it matched; `None` if it does not count.
    pub packets: Option<u64>,
    /// Octets of those packets.
    pub bytes: Option<u64>,
}

impl InstalledRule {
    /// The address whose clients this rule leads to a server of the cluster's DNS, and the server.
    pub fn leads(&self) -> Option<(IpAddr, SocketAddr)> {
        rules::led(&self.comment)
    }
}

/// All tables named `dnslet` or after an instance. None where the kernel has no nf_tables.
///
/// # Errors
/// Why they could not be listed: most often that the process lacks CAP_NET_ADMIN.
pub fn installed() -> Result<Vec<Installed>, Trouble> {
    let advice = "list them with `nft list ruleset` as root";
    match list() {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPROTONOSUPPORT | libc::EINVAL | libc::EOPNOTSUPP)) => {
            Ok(Vec::new())
        }
        listed => listed.map_err(|error| trouble("the tables could not be listed", &error, advice)),
    }
}

fn list() -> io::Result<Vec<Installed>> {
    let mut kernel = Netfilter::connect()?;
    let mut found = Vec::new();
    for head in table::all(&mut kernel)? {
        let name = table::name(&head);
        if name != BASE && !name.starts_with(INSTANCE_PREFIX) {
            continue;
        }
        let rules = match table::rules(&mut kernel, name) {
            // It ended with its process in between.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
            rules => rules?.into_iter().map(rule).collect(),
        };
        found.push(Installed { table: name.to_owned(), owner: table::owner(&head), rules });
    }
    Ok(found)
}

fn rule(found: table::Found) -> InstalledRule {
    let (packets, bytes) = found.rule.expressions.iter().find_map(expressions::counted).unzip();
    InstalledRule { chain: found.chain, comment: found.rule.comment, packets, bytes }
}
