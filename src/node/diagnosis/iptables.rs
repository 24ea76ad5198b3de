//! Rules of iptables, ours and node-cache's, as `iptables-save` prints them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::{Seen, Unseen};

/// How long one of the programs may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// The most that is read of what one prints.
const LONGEST: u64 = 32 << 20;

/// What stands in the comments of our rules, and of node-cache's.
const OURS: &str = "--comment \"dnslet: ";
const NODE_CACHES: &str = "--comment \"NodeLocal DNS Cache: ";

/// Rules found in iptables and ip6tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chains {
    /// How many rules of ours there are.
    pub ours: usize,
    /// The addresses whose packets our rules bring here, and how many came.
    pub intercepted: BTreeMap<IpAddr, u64>,
    /// Every address in our rules.
    pub addresses: BTreeSet<IpAddr>,
    /// How many rules of node-cache there are.
    pub node_caches: usize,
    /// Every address in those.
    pub node_cache_addresses: BTreeSet<IpAddr>,
}

/// Lists them. Errors: the programs are not here, or may not read.
pub(super) async fn look() -> Seen<Chains> {
    let mut chains = Chains::default();
    let mut unseen = None;
    for family in ["iptables", "ip6tables"] {
        // Each keeps rules of its own; the plain name is one of the two.
        let both = [save(format!("{family}-nft-save")).await, save(format!("{family}-legacy-save")).await];
        let neither = both.iter().all(|text| matches!(text, Ok(None)));
        let plain = if neither { Some(save(format!("{family}-save")).await) } else { None };
        if matches!(plain, Some(Ok(None))) {
            unseen = unseen.or(Some(Unseen::Failed(format!("{family}-save is not installed here"))));
        }
        for saved in both.into_iter().chain(plain) {
            match saved {
                Ok(text) => chains.read(&text.unwrap_or_default()),
                Err(why) => unseen = unseen.or(Some(why)),
            }
        }
    }
    // Rules that were seen count, whatever the other programs said.
    match unseen {
        Some(why) if chains == Chains::default() => Err(why),
        _ => Ok(chains),
    }
}

/// What the program prints; nothing if it is not here. Without a table in its arguments it loads none.
async fn save(program: String) -> Seen<Option<String>> {
    let failed = |why: String| Unseen::Failed(format!("{program}: {why}"));
    let mut run = Command::new(&program);
    run.arg("-c").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = match run.spawn() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        child => child.map_err(|error| failed(error.to_string()))?,
    };
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (mut printed, mut complaint) = (Vec::new(), Vec::new());
    let reading = async {
        let mut out = out.expect("it was piped").take(LONGEST);
        let mut err = err.expect("it was piped").take(LONGEST);
        tokio::try_join!(out.read_to_end(&mut printed), err.read_to_end(&mut complaint))?;
        child.wait().await
    };
    let status = match timeout(PATIENCE, reading).await {
        Ok(status) => status.map_err(|error| failed(error.to_string()))?,
        Err(_) => return Err(failed("it took too long".to_owned())),
    };
    let complaint = String::from_utf8_lossy(&complaint);
    match status.success() {
        true => Ok(Some(String::from_utf8_lossy(&printed).into_owned())),
        false if complaint.contains("ermission denied") || complaint.contains("must be root") => Err(Unseen::Forbidden),
        false => Err(failed(complaint.lines().next().unwrap_or("it failed").to_owned())),
    }
}

impl Chains {
    /// Takes down the lines of one program, as in `[7:420] -A CHAIN -d 10.96.0.10/32 ... -j NOTRACK`.
    fn read(&mut self, text: &str) {
        for line in text.lines() {
            let Some((counters, rule)) = line.strip_prefix('[').and_then(|line| line.split_once("] -A ")) else {
                continue;
            };
            let words: Vec<&str> = rule.split(' ').collect();
            let behind = |flag: &str| words.iter().position(|word| *word == flag).and_then(|at| words.get(at + 1));
            let address = |flag| behind(flag)?.split('/').next()?.parse::<IpAddr>().ok();
            if rule.contains(NODE_CACHES) {
                self.node_caches += 1;
                self.node_cache_addresses.extend(address("-d").or_else(|| address("-s")));
            }
            if !rule.contains(OURS) {
                continue;
            }
            self.ours += 1;
            self.addresses.extend(address("-d").or_else(|| address("-s")));
            let target = behind("-j").copied().unwrap_or_default();
            let untracked = target == "NOTRACK" || (target == "CT" && words.contains(&"--notrack"));
            let probe = words.contains(&"--mark");
            if let Some(address) = address("-d").filter(|_| untracked && !probe) {
                let packets: u64 = counters.split(':').next().and_then(|packets| packets.parse().ok()).unwrap_or(0);
                *self.intercepted.entry(address).or_default() += packets;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_told_apart_and_counted() {
        let text = "# Generated\n*raw\n:PREROUTING ACCEPT [9:900]\n\
            [7:420] -A DNSLET-PREROUTING -d 10.96.0.10/32 -p udp -m udp --dport 53 -m socket --nowildcard -m comment --comment \"dnslet: to the cache, while it listens\" -j CT --notrack\n\
            [2:120] -A DNSLET-OUTPUT -d 10.96.0.10/32 -p udp -m udp --dport 53 -m comment --comment \"dnslet: to the cache, from this node\" -j NOTRACK\n\
            [5:300] -A DNSLET-OUTPUT -d 10.96.0.10/32 -p udp -m udp --dport 53 -m mark --mark 0x35 -m comment --comment \"dnslet: probes of the agent\" -j NOTRACK\n\
            [1:60] -A DNSLET-OUTPUT -s 169.254.20.10/32 -p udp -m udp --sport 53 -m comment --comment \"dnslet: replies of the cache\" -j NOTRACK\n\
            [0:0] -A PREROUTING -m comment --comment \"dnslet\" -j DNSLET-PREROUTING\n\
            [3:4] -A PREROUTING -d 169.254.20.10/32 -p udp -m comment --comment \"NodeLocal DNS Cache: skip conntrack\" -j NOTRACK\n\
            [3:4] -A KUBE-SERVICES -d 10.96.0.10/32 -p udp -m comment --comment \"kube-system/kube-dns\" -j KUBE-SVC\nCOMMIT\n";
        let mut chains = Chains::default();
        chains.read(text);
        let service: IpAddr = "10.96.0.10".parse().unwrap();
        let local: IpAddr = "169.254.20.10".parse().unwrap();
        assert_eq!((chains.ours, chains.node_caches), (4, 1));
        assert_eq!(chains.intercepted, [(service, 9)].into());
        assert_eq!(chains.addresses, [service, local].into());
        assert_eq!(chains.node_cache_addresses, [local].into());
    }
}
