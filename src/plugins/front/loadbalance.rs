//! `loadbalance [round_robin] { prefer CIDR... }`: the order of addresses in replies, hits included.

use crate::corefile::{Diagnostic, Directive};
use crate::plugins::report::{Report, options};
use crate::plugins::value::Network;

/// Address records are shuffled; then those in one of the preferred networks are moved to the front, their order among
/// themselves kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loadbalance {
    /// Preferred networks, one as good as another.
    pub prefer: Vec<Network>,
}

impl Loadbalance {
    /// How much an address is preferred: 0 is most; equal addresses keep their shuffled order.
    pub fn rank(&self, address: std::net::IpAddr) -> usize {
        usize::from(!self.prefer.iter().any(|network| network.contains(address)))
    }
}

pub(crate) fn parse(line: &Directive, report: &mut Report<'_>) -> Loadbalance {
    let mut loadbalance = Loadbalance::default();
    if let Some(policy) = line.args.first() {
        match &*policy.text {
            "round_robin" => {
                report.args(line, 0..=1, "loadbalance [round_robin]");
            }
            "weighted" => {
                report.add(
                    Diagnostic::error(policy.span, "weighted load balancing is not offered yet")
                        .help("write `loadbalance round_robin`, or leave the order to the upstream"),
                );
                return loadbalance;
            }
            _ => _ = report.choice(policy, &[("round_robin", ())]),
        }
    }
    for option in options(line) {
        match &*option.name.text {
            "prefer" => {
                report.no_block(option);
                for word in report.args(option, 1..=usize::MAX, "prefer CIDR...") {
                    let network = Network::parse(&word.text).ok_or(format!("`{word}` is not an address block"));
                    loadbalance.prefer.extend(report.take(word, network, "write a block such as `10.0.0.0/8`"));
                }
            }
            "reload" => report.add(
                Diagnostic::error(option.name.span, "`reload` belongs to `loadbalance weighted`").help("remove it"),
            ),
            _ => report.unknown_option("loadbalance", option, &["prefer"]),
        }
    }
    loadbalance
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferred_networks_come_first() {
        let network = |text| Network::parse(text).unwrap();
        let loadbalance = Loadbalance { prefer: vec![network("10.0.0.0/8"), network("fd00::/8")] };
        let rank = |text: &str| loadbalance.rank(text.parse().unwrap());
        assert_eq!((rank("10.9.9.9"), rank("fd00::1"), rank("192.0.2.1")), (0, 0, 1));
    }
}
