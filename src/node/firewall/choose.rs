//! Which way to place rules.

use nix::net::if_::if_nameindex;

use super::nftables::Refusal;
use super::{Firewall, Iptables, Nftables};
use crate::node::desired::Rules;
use crate::node::status::{Kind, Trouble};

/// What the names of Calico's interfaces start with.
const CALICO: &str = "cali";

/// The way to take, or the trouble that there is none.
pub(super) async fn choose(wanted: Rules) -> (Firewall, Option<Trouble>) {
    match wanted {
        Rules::None => (Firewall::None, None),
        Rules::Auto => auto().await,
        Rules::Nftables => match Nftables::detect().await {
            Ok(nftables) => taken(Firewall::Nftables(Box::new(nftables)), "they were asked for"),
            Err(refusal) => (Firewall::None, Some(nothing(&format!("nf_tables: {refusal}")))),
        },
        Rules::Iptables => match Iptables::detect().await {
            Ok(iptables) => taken(Firewall::Iptables(iptables), "they were asked for"),
            Err(trouble) => (Firewall::None, Some(trouble)),
        },
    }
}

async fn auto() -> (Firewall, Option<Trouble>) {
    let calico = calico();
    let nftables = match (Nftables::detect().await, &calico) {
        (Ok(nftables), None) => return taken(Firewall::Nftables(Box::new(nftables)), "the kernel has all they take"),
        // iptables could do no more.
        (Err(refusal @ Refusal::NotPermitted), _) => return (Firewall::None, Some(nothing(&refusal.to_string()))),
        (nftables, _) => nftables,
    };
    match (Iptables::detect().await, nftables, calico) {
        (Ok(iptables), Err(refusal), _) => taken(Firewall::Iptables(iptables), &format!("nf_tables: {refusal}")),
        (Ok(iptables), Ok(_), link) => {
            let link = link.unwrap_or_default();
            let why = format!("Calico is here ({link}), and it drops untracked packets that nobody accepted before");
            taken(Firewall::Iptables(iptables), &why)
        }
        (Err(_), Ok(nftables), link) => {
            let link = link.unwrap_or_default();
            let why = format!(
                "iptables-restore is missing; if Calico ({link}) drops untracked packets, clients get no answer \
                 until it is installed"
            );
            taken(Firewall::Nftables(Box::new(nftables)), &why)
        }
        (Err(trouble), Err(refusal), _) => (Firewall::None, Some(nothing(&format!("nf_tables: {refusal}; {trouble}")))),
    }
}

fn taken(firewall: Firewall, why: &str) -> (Firewall, Option<Trouble>) {
    let rules = match &firewall {
        Firewall::Nftables(_) => "nf_tables",
        _ => "iptables",
    };
    tracing::info!("Rules by {rules}: {why}");
    (firewall, None)
}

fn nothing(why: &str) -> Trouble {
    let text = format!(
        "No packet rules: {why}. DNS is served on the addresses that are on this node, tracked like any traffic; packets \
         to Service addresses stay with the cluster's DNS. Give the container NET_ADMIN on a kernel with nf_tables or \
         iptables, or say -rules none"
    );
    Trouble { kind: Kind::Iptables, text }
}

/// The name of an interface of Calico's, if there is one. It has one for each pod.
fn calico() -> Option<String> {
    let interfaces = if_nameindex().ok()?;
    interfaces.iter().map(|link| link.name().to_string_lossy().into_owned()).find(|name| name.starts_with(CALICO))
}
