//! What `iptables-save` prints, as far as it is ours.

use std::net::IpAddr;

use super::rules::PREFIX;

/// Our part of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Saved {
    /// Our chains.
    pub(crate) chains: Vec<String>,
    /// Our rules, in the tool's spelling, without `-A`.
    pub(crate) rules: Vec<String>,
    /// The rules of other chains that lead into ours, without `-A`.
    pub(crate) jumps: Vec<String>,
}

impl Saved {
    /// Sorts the lines of one table.
    pub(crate) fn new(lines: &[String]) -> Self {
        let mut saved = Self::default();
        for line in lines {
            if let Some(chain) = line.strip_prefix(':') {
                let name = chain.split(' ').next().unwrap_or(chain);
                saved.chains.extend(name.starts_with(PREFIX).then(|| name.to_owned()));
            } else if let Some(rule) = line.strip_prefix("-A ") {
                if rule.starts_with(PREFIX) {
                    saved.rules.push(rule.to_owned());
                } else if target(rule).is_some_and(|target| target.starts_with(PREFIX)) {
                    saved.jumps.push(rule.to_owned());
                }
            }
        }
        saved
    }

    /// The jumps from one chain to the other, without `-A`.
    pub(crate) fn jumps_between(&self, from: &str, to: &str) -> impl Iterator<Item = &str> {
        let wanted = move |jump: &&str| jump.split(' ').next() == Some(from) && target(jump) == Some(to);
        self.jumps.iter().map(String::as_str).filter(wanted)
    }

    /// Whether the rules bring packets to this address here.
    pub(crate) fn intercepts(&self, address: IpAddr) -> bool {
        let to = format!(" -d {address}/");
        self.rules.iter().any(|rule| rule.starts_with("DNSLET-PREROUTING ") && rule.contains(&to))
    }

    /// The lines that take all of it away.
    pub(crate) fn removal(&self) -> String {
        let jumps = self.jumps.iter().map(|jump| format!("-D {jump}\n"));
        let emptied = self.chains.iter().map(|chain| format!("-F {chain}\n"));
        let removed = self.chains.iter().map(|chain| format!("-X {chain}\n"));
        jumps.chain(emptied).chain(removed).collect()
    }
}

/// The chain or action a rule leads to. Comments are in quotes, and come before it.
fn target(rule: &str) -> Option<&str> {
    let (_, after) = rule.rsplit_once(" -j ").or_else(|| rule.rsplit_once(" -g "))?;
    after.split(' ').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_chains_rules_and_jumps_are_seen() {
        let text = ":PREROUTING ACCEPT [0:0]\n:DNSLET-PREROUTING - [0:0]\n:KUBE-X - [0:0]\n\
            -A PREROUTING -m comment --comment \"dnslet\" -j DNSLET-PREROUTING\n\
            -A PREROUTING -m comment --comment \"not -j DNSLET-PREROUTING\" -j KUBE-X\n\
            -A KUBE-X -m comment --comment \"DNSLET-PREROUTING\" -j RETURN\n\
            -A DNSLET-PREROUTING -d 10.96.0.10/32 -p udp -m udp --dport 53 -j NOTRACK\n";
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let saved = Saved::new(&lines);
        assert_eq!(saved.chains, ["DNSLET-PREROUTING"]);
        assert_eq!(saved.rules, ["DNSLET-PREROUTING -d 10.96.0.10/32 -p udp -m udp --dport 53 -j NOTRACK"]);
        let jump = "PREROUTING -m comment --comment \"dnslet\" -j DNSLET-PREROUTING";
        assert_eq!(saved.jumps, [jump]);
        assert_eq!(saved.jumps_between("PREROUTING", "DNSLET-PREROUTING").collect::<Vec<_>>(), [jump]);
        assert_eq!(saved.jumps_between("OUTPUT", "DNSLET-PREROUTING").count(), 0);
        let removal = format!("-D {jump}\n-F DNSLET-PREROUTING\n-X DNSLET-PREROUTING\n");
        assert_eq!(saved.removal(), removal);
    }
}
