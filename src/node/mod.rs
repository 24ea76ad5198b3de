//! The `node` room: what the node should look like in, changes of the kernel's state out.
//!
//! What comes in is a [`Desired`] (the interface's name, the cache's addresses, how rules are placed, the cluster's DNS
//! servers) and, as probes are answered or not, the addresses whose packets may come here. What leaves are links,
//! addresses and rules in the kernel, log lines, and a [`Status`] for metrics and people. [`Node`] joins the two halves:
//!
//! - [`Links`]: the interface and the addresses, over rtnetlink;
//! - [`firewall`]: the rules, of which there are two sets. The *intercept* brings packets here and ends with the process.
//!   The *base* outlives it: it keeps replies untracked, and leads clients of link-local addresses to the cluster's DNS
//!   while nobody answers here.
//!
//! Nothing is remembered about what was done before. Each call of [`Node::reconcile`] looks at what the kernel has and
//! changes what differs from what is wanted, in this order: interface, addresses, base, intercept. So start, repair and a
//! change of mind are the same code, and a second call finds nothing to do. The kernel tells of changes
//! ([`Node::changed`]), by whomever; what it cannot tell, as with iptables, is found at the next regular look.
//!
//! Example: `-localip 169.254.20.10,10.96.0.10`. [`Node::start`] makes the dummy link `nodelocaldns`, puts both addresses
//! on it and writes the base. Clients do not notice: packets to 10.96.0.10 go on being translated, and nobody uses
//! 169.254.20.10 yet. Probes of both are answered: [`Node::intercept`] with both places the intercept, and packets
//! come here. Somebody deletes the link: the kernel tells, and within the time of a few events link and addresses are back
//! while the sockets never noticed. The probe of 10.96.0.10 fails: `intercept` with the other address alone, and clients of
//! 10.96.0.10 are back at the cluster's DNS. At the end [`Node::teardown`] takes away what is ours and what nobody's
//! configuration relies on: 169.254.20.10 stays, with the rules that lead to the cluster's DNS.
//!
//! A thing that cannot be done is a [`Trouble`]: told once, counted each time, and never in the way of the rest.
//!
//! The room never sees a DNS message: to it DNS is a list of addresses and a port. It does not decide whether an address
//! is ready, it starts no server, and it never touches what belongs to others.

mod desired;
pub mod diagnosis;
pub mod firewall;
pub mod leftovers;
mod links;
#[cfg(test)]
mod namespace;
mod netfilter;
mod reconcile;
mod status;
pub mod translation;

pub use desired::{Desired, Rules};
pub use links::Links;
pub use reconcile::Node;
pub use status::{Action, Kind, Status, Trouble};
