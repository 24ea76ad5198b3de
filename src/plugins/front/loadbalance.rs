//! `loadbalance [round_robin] { prefer CIDR... }`, `loadbalance weighted FILE { reload DURATION }`: the order of
//! addresses in replies, hits included.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::corefile::{Diagnostic, Directive};
use crate::plugins::report::{Report, options};
use crate::plugins::value::Network;

/// By which rule addresses change places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loadbalance {
    /// Address records are shuffled; then those in one of the preferred networks are moved to the front, their order
    /// among themselves kept.
    RoundRobin {
        /// Preferred networks, one as good as another.
        prefer: Vec<Network>,
    },
    /// One address is moved to the front, by chance, the more often the more it weighs.
    Weighted(Weighted),
}

/// Where weights come from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weighted {
    /// The file with the weights.
    pub file: PathBuf,
    /// After how long at the latest it is read again; zero: never.
    pub reload: Duration,
}

const ANY: RangeInclusive<Duration> = Duration::ZERO..=Duration::MAX;
const RELOAD: Duration = Duration::from_secs(30);

/// How much an address is preferred: 0 is most; equal addresses keep their shuffled order.
pub fn rank(prefer: &[Network], address: IpAddr) -> usize {
    usize::from(!prefer.iter().any(|network| network.contains(address)))
}

pub(crate) fn parse(line: &Directive, report: &mut Report<'_>) -> Loadbalance {
    match line.args.first() {
        Some(policy) if &*policy.text == "weighted" => return weighted(line, report),
        Some(policy) if &*policy.text != "round_robin" => {
            _ = report.choice(policy, &[("round_robin", ()), ("weighted", ())]);
        }
        _ => _ = report.args(line, 0..=1, "loadbalance [round_robin]"),
    }
    let mut prefer = Vec::new();
    for option in options(line) {
        match &*option.name.text {
            "prefer" => {
                report.no_block(option);
                for word in report.args(option, 1..=usize::MAX, "prefer CIDR...") {
                    let network = Network::parse(&word.text).ok_or(format!("`{word}` is not an address block"));
                    prefer.extend(report.take(word, network, "write a block such as `10.0.0.0/8`"));
                }
            }
            "reload" => report.add(
                Diagnostic::error(option.name.span, "`reload` belongs to `loadbalance weighted`").help("remove it"),
            ),
            _ => report.unknown_option("loadbalance", option, &["prefer"]),
        }
    }
    Loadbalance::RoundRobin { prefer }
}

fn weighted(line: &Directive, report: &mut Report<'_>) -> Loadbalance {
    let file = report.args(line, 2..=2, "loadbalance weighted FILE").last();
    if let Some(word) = file.filter(|word| word.text.is_empty()) {
        report.add(Diagnostic::error(word.span, "this file name is empty").help("name the file with the weights"));
    }
    let mut weighted =
        Weighted { file: file.map(|word| PathBuf::from(&*word.text)).unwrap_or_default(), reload: RELOAD };
    for option in options(line) {
        match &*option.name.text {
            "reload" => {
                report.no_block(option);
                let word = report.one(option, "reload DURATION");
                if let Some(reload) = word.and_then(|word| report.duration(word, ANY)) {
                    weighted.reload = reload;
                }
            }
            "prefer" => report.add(
                Diagnostic::error(option.name.span, "`prefer` belongs to `loadbalance round_robin`").help("remove it"),
            ),
            _ => report.unknown_option("loadbalance", option, &["reload"]),
        }
    }
    Loadbalance::Weighted(weighted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferred_networks_come_first() {
        let network = |text| Network::parse(text).unwrap();
        let prefer = [network("10.0.0.0/8"), network("fd00::/8")];
        let rank = |text: &str| rank(&prefer, text.parse().unwrap());
        assert_eq!((rank("10.9.9.9"), rank("fd00::1"), rank("192.0.2.1")), (0, 0, 1));
    }
}
