//! Which way to place rules.

use nix::net::if_::if_nameindex;

use super::nftables::Refusal;
use super::{Firewall, Iptables, Nftables};
use crate::node::desired::Rules;
use crate::node::status::{Kind, Trouble};

/// What the names of Calico's interfaces start with.
const CALICO: &str = "cali";

/// The way to take, which the log gets to know, or the trouble that there is none.
pub(super) async fn choose(wanted: Rules) -> (Firewall, Option<Trouble>) {
    match decide(wanted).await {
        Ok((firewall, why)) => {
            tracing::info!("{why}");
            (firewall, None)
        }
        Err(trouble) => (Firewall::None, Some(trouble)),
    }
}

/// The way to take, and why, as a sentence.
async fn decide(wanted: Rules) -> Result<(Firewall, String), Trouble> {
    match wanted {
        Rules::None => Ok((Firewall::None, "No packet rules: they are not wanted".to_owned())),
        Rules::Auto => auto().await,
        Rules::Nftables => match Nftables::detect().await {
            Ok(nftables) => Ok(taken(Firewall::Nftables(Box::new(nftables)), "that was asked for")),
            Err(refusal) => Err(nothing(&format!("nf_tables: {refusal}"))),
        },
        Rules::Iptables => Ok(taken(Firewall::Iptables(Iptables::detect().await?), "that was asked for")),
    }
}

async fn auto() -> Result<(Firewall, String), Trouble> {
    let calico = calico();
    let nftables = match (Nftables::detect().await, &calico) {
        (Ok(nftables), None) => {
            return Ok(taken(Firewall::Nftables(Box::new(nftables)), "the kernel has all they take"));
        }
        // iptables could do no more.
        (Err(refusal @ Refusal::NotPermitted), _) => return Err(nothing(&refusal.to_string())),
        (nftables, _) => nftables,
    };
    let link = calico.unwrap_or_default();
    match (Iptables::detect().await, nftables) {
        (Ok(iptables), Err(refusal)) => Ok(taken(Firewall::Iptables(iptables), &format!("nf_tables: {refusal}"))),
        (Ok(iptables), Ok(_)) => {
            let why = format!("Calico is here ({link}), which drops untracked packets that nobody accepted before");
            Ok(taken(Firewall::Iptables(iptables), &why))
        }
        (Err(trouble), Ok(nftables)) => {
            let why = format!(
                "{}; if Calico, which is here ({link}), drops untracked packets, clients get no answer until iptables is \
                 installed",
                cause(&trouble)
            );
            Ok(taken(Firewall::Nftables(Box::new(nftables)), &why))
        }
        (Err(trouble), Err(refusal)) => Err(nothing(&format!("nf_tables: {refusal}; {}", cause(&trouble)))),
    }
}

fn taken(firewall: Firewall, why: &str) -> (Firewall, String) {
    let rules = match &firewall {
        Firewall::Nftables(_) => "nf_tables",
        _ => "iptables",
    };
    (firewall, format!("Packet rules by {rules}: {why}"))
}

fn nothing(why: &str) -> Trouble {
    let text = format!(
        "No packet rules: {why}. DNS is served at the addresses that are on this node, tracked like any traffic, and \
         packets to Service addresses stay with the cluster's DNS. Give the process CAP_NET_ADMIN on a kernel with \
         nf_tables or iptables, or say -rules none"
    );
    Trouble { kind: Kind::Iptables, text }
}

/// What is wrong, without the advice that follows it: this is one of two ways.
fn cause(trouble: &Trouble) -> &str {
    trouble.text.split(", so ").next().unwrap_or_default()
}

/// The name of an interface of Calico's, if there is one. It has one for each pod.
fn calico() -> Option<String> {
    let interfaces = if_nameindex().ok()?;
    interfaces.iter().map(|link| link.name().to_string_lossy().into_owned()).find(|name| name.starts_with(CALICO))
}

#[cfg(test)]
mod tests {
    use std::env;

    use super::*;
    use crate::node::namespace::{block_on, private, run};

    /// Set in a process that lacks CAP_NET_ADMIN.
    const POWERLESS: &str = "DNSLET_TEST_POWERLESS";

    fn said(wanted: Rules) -> (Option<Rules>, String) {
        block_on(async {
            match decide(wanted).await {
                Ok((firewall, why)) => (firewall.rules(), why),
                Err(trouble) => (None, trouble.text),
            }
        })
    }

    #[test]
    fn a_kernel_with_all_it_takes_gets_nf_tables() {
        private(|| {
            let all = "Packet rules by nf_tables: the kernel has all they take".to_owned();
            assert_eq!(said(Rules::Auto), (Some(Rules::Nftables), all));
            let asked = "Packet rules by nf_tables: that was asked for".to_owned();
            assert_eq!(said(Rules::Nftables), (Some(Rules::Nftables), asked));
            let (rules, why) = said(Rules::Iptables);
            assert_eq!(rules, Some(Rules::Iptables), "apt-get install iptables: {why}");
            assert_eq!(said(Rules::None).0, None);
        });
    }

    #[test]
    fn beside_calico_iptables_is_taken() {
        private(|| {
            run("ip link add cali0123456789a type veth peer name pod");
            let (rules, why) = said(Rules::Auto);
            assert_eq!(rules, Some(Rules::Iptables), "apt-get install iptables: {why}");
            assert!(why.contains("Calico is here (cali0123456789a)"), "{why}");
            assert_eq!(said(Rules::Nftables).0, Some(Rules::Nftables), "who asks gets it");
        });
    }

    #[test]
    fn without_the_right_there_are_no_rules_and_one_sentence() {
        if env::var_os(POWERLESS).is_some() {
            for wanted in [Rules::Auto, Rules::Nftables] {
                let (rules, why) = said(wanted);
                assert_eq!(rules, None);
                for part in ["CAP_NET_ADMIN", "DNS is served", "-rules none"] {
                    assert!(why.contains(part), "{part:?} in {why:?}");
                }
            }
            return;
        }
        private(|| {
            let itself = env::current_exe().expect("the test's binary");
            let test = "node::firewall::choose::tests::without_the_right_there_are_no_rules_and_one_sentence";
            let drop = "setpriv --bounding-set=-net_admin --inh-caps=-net_admin";
            let printed = run(&format!("{POWERLESS}=1 {drop} {} --exact {test} --nocapture", itself.display()));
            assert!(printed.contains("1 passed"), "{printed}");
        });
    }

    #[test]
    fn each_refusal_of_a_kernel_has_its_words() {
        let errno = std::io::Error::from_raw_os_error;
        for (refusal, words) in [
            (Refusal::of_socket(errno(libc::EPROTONOSUPPORT)), "the kernel has no nf_tables"),
            (Refusal::of_table(errno(libc::EOPNOTSUPP)), "the kernel has no nf_tables"),
            (Refusal::of_table(errno(libc::EINVAL)), "the kernel is older than 5.12"),
            (Refusal::of_table(errno(libc::EPERM)), "it lacks CAP_NET_ADMIN"),
            (Refusal::of_rules(errno(libc::ENOENT)), "nf_tables lacks counter or notrack"),
            (Refusal::of_rules(errno(libc::ENOMEM)), "the kernel refuses: Cannot allocate memory"),
        ] {
            assert!(refusal.to_string().contains(words), "{refusal}");
        }
    }
}
