//! Against the real programs and the real kernel, in private networks; without them, the text.

use std::time::Duration;

use super::*;
use crate::node::namespace::{block_on, private, run};

mod packets;

/// Both kinds of iptables that Debian's package brings.
const VARIANTS: [&str; 2] = ["-nft", "-legacy"];

fn base(addresses: &[&str], fallback: &[&str]) -> Base {
    Base {
        addresses: addresses.iter().map(|address| address.parse().expect("an address")).collect(),
        dns_port: 53,
        health_port: 8080,
        fallback: fallback.iter().map(|server| server.parse().expect("a server")).collect(),
    }
}

/// What the files in `iptables/` were written for.
fn example() -> Base {
    let addresses = ["169.254.20.10", "10.96.0.10", "fd69:254:20::10"];
    let fallback = ["10.244.0.2:53", "10.244.0.3:53", "[fd00:10:244::2]:53", "[fd00:10:244::3]:53"];
    base(&addresses, &fallback)
}

fn all(base: &Base) -> BTreeSet<IpAddr> {
    base.addresses.iter().copied().collect()
}

async fn iptables(variant: &str) -> Iptables {
    Iptables::of(variant).await.unwrap_or_else(|trouble| panic!("apt-get install iptables: {trouble}"))
}

/// All tables of both families, without counters and dates.
fn saved(variant: &str) -> String {
    let command = ["iptables", "ip6tables"].map(|family| format!("{family}{variant}-save 2>/dev/null")).join(" && ");
    let text = run(&command);
    let lines = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(" [").next().unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

fn count(text: &str, part: &str) -> usize {
    text.lines().filter(|line| line.contains(part)).count()
}

#[test]
fn the_files_for_operators_are_the_rules_that_are_placed() {
    let (example, nothing) = (example(), Saved::default());
    for (family, name) in [(Family::V4, "notrack.v4.rules"), (Family::V6, "notrack.v6.rules")] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("iptables").join(name);
        let file = std::fs::read_to_string(path).expect("a rules file");
        let rules: String = file
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| format!("{line}\n"))
            .collect();
        let ready = all(&example);
        let ours = Table::ALL.map(|table| Plan::new(table, family, &example, &ready).restore(&nothing)).concat();
        assert_eq!(rules, ours, "{name}");
    }
}

#[test]
fn the_files_for_operators_load_and_give_what_the_agent_places() {
    private(|| {
        block_on(async {
            for variant in VARIANTS {
                let mut iptables = iptables(variant).await;
                iptables.base(&example()).await.expect("a base");
                iptables.intercept(&all(&example())).await.expect("an intercept");
                let placed = saved(variant);
                assert_eq!(count(&placed, "-j DNSLET-"), 14, "{placed}");
                assert_eq!(iptables.remove_base().await.expect("it goes"), ["the iptables rules"]);
                assert_eq!(count(&saved(variant), "DNSLET"), 0);
                for (family, file) in [("iptables", "v4"), ("ip6tables", "v6")] {
                    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("iptables/notrack.{file}.rules"));
                    run(&format!("{family}{variant}-restore --noflush -w 2 {}", path.display()));
                }
                assert_eq!(saved(variant), placed, "{variant}");
            }
        })
    });
}

#[test]
fn a_thousand_calls_leave_what_one_leaves() {
    private(|| {
        block_on(async {
            let mut iptables = iptables("-nft").await;
            run("iptables-nft -t raw -A PREROUTING -d 192.0.2.1 -j ACCEPT; iptables-nft -A INPUT -s 192.0.2.1 -j DROP");
            assert!(iptables.base(&example()).await.expect("a base"));
            let placed = iptables.intercept(&all(&example())).await.expect("an intercept");
            assert_eq!(placed, Some(Action::Intercepted));
            let once = saved("-nft");
            for _ in 0..500 {
                assert!(!iptables.base(&example()).await.expect("a base"));
                assert_eq!(iptables.intercept(&all(&example())).await.expect("an intercept"), None);
            }
            assert_eq!(saved("-nft"), once);
            assert_eq!(count(&once, "192.0.2.1"), 2);
        })
    });
}

#[test]
fn what_others_change_is_repaired_and_what_is_theirs_stays() {
    private(|| {
        block_on(async {
            for variant in VARIANTS {
                let mut iptables = iptables(variant).await;
                let cmd = |rest: &str| run(&format!("iptables{variant} {rest}"));
                cmd("-t raw -A PREROUTING -d 192.0.2.1 -j ACCEPT");
                iptables.base(&example()).await.expect("a base");
                iptables.intercept(&all(&example())).await.expect("an intercept");
                let whole = saved(variant);
                for damage in [
                    "-t raw -F DNSLET-PREROUTING",
                    "-t raw -D DNSLET-OUTPUT 3",
                    "-t raw -A DNSLET-OUTPUT -s 192.0.2.9 -j ACCEPT",
                    "-t raw -I OUTPUT -m comment --comment dnslet -j DNSLET-OUTPUT",
                    "-t raw -D PREROUTING -m comment --comment dnslet -j DNSLET-PREROUTING",
                    "-t filter -D DNSLET-INPUT 1",
                    "-t nat -R DNSLET-POSTROUTING 1 -s 192.0.2.9 -j MASQUERADE",
                ] {
                    cmd(damage);
                    assert_ne!(saved(variant), whole, "{damage}");
                    let base = iptables.base(&example()).await.expect("a base");
                    let action = iptables.intercept(&all(&example())).await.expect("an intercept");
                    assert!(base || action == Some(Action::Intercepted), "{damage}");
                    assert_eq!(saved(variant), whole, "{damage}");
                }
                // Another agent, or this one started again, finds its predecessor's rules.
                let mut next = Iptables::of(variant).await.expect("it worked before");
                next.base(&example()).await.expect("a base");
                next.intercept(&all(&example())).await.expect("an intercept");
                assert_eq!(saved(variant), whole);
                assert_eq!(next.intercept(&BTreeSet::new()).await.expect("it goes"), Some(Action::Withdrawn));
                assert_eq!(next.intercept(&BTreeSet::new()).await.expect("it is gone"), None);
                let without = saved(variant);
                assert_eq!((count(&without, "while it listens"), count(&without, "from this node")), (0, 0));
                assert_eq!((count(&without, "replies of the cache"), count(&without, "192.0.2.1")), (9, 1));
                next.remove_base().await.expect("it goes");
                assert_eq!((count(&saved(variant), "DNSLET"), count(&saved(variant), "192.0.2.1")), (0, 1));
            }
        })
    });
}

#[test]
fn whoever_leaves_keeps_the_rules_of_whoever_stays() {
    private(|| {
        block_on(async {
            run("ip addr add 10.96.0.10/32 dev lo && ip addr add 169.254.20.10/32 dev lo");
            let socket = |address: &str| std::os::fd::OwnedFd::from(std::net::UdpSocket::bind(address).expect("free"));
            let sleep = |socket| std::process::Command::new("sleep").arg("600").stdin(socket).spawn().expect("sleep");
            for variant in VARIANTS {
                // Somebody's server of another kind does not need them.
                let mut others = [sleep(socket("0.0.0.0:53")), sleep(socket("0.0.0.0:5300"))];
                let mut iptables = iptables(variant).await;
                let base = Base { dns_port: 5300, ..example() };
                iptables.base(&base).await.expect("a base");
                assert_eq!(iptables.intercept(&BTreeSet::new()).await, Ok(None));
                others[1].kill().and_then(|()| others[1].wait()).expect("it ends");
                let mut newer = sleep(socket("10.96.0.10:5300"));
                assert_eq!(iptables.intercept(&BTreeSet::new()).await, Ok(None), "nothing is there to be kept");
                iptables.intercept(&all(&base)).await.expect("an intercept");
                assert_eq!(iptables.intercept(&BTreeSet::new()).await, Ok(Some(Action::Withdrawn)));
                let left = saved(variant);
                let of = |address: &str| count(&left, &format!("DNSLET-PREROUTING -d {address}/"));
                assert_eq!((of("10.96.0.10"), of("169.254.20.10"), of("fd69:254:20::10")), (3, 0, 0), "{left}");
                newer.kill().and_then(|()| newer.wait()).expect("it ends");
                others[0].kill().and_then(|()| others[0].wait()).expect("it ends");
                assert_eq!(iptables.intercept(&BTreeSet::new()).await, Ok(Some(Action::Withdrawn)));
                assert_eq!(count(&saved(variant), "while it listens"), 0);
            }
        })
    });
}

#[test]
fn a_node_s_own_clients_of_a_service_keep_no_source_of_the_cache() {
    private(|| {
        block_on(async {
            let mut iptables = iptables("-nft").await;
            iptables.base(&base(&["10.96.0.10", "fd00:96::a"], &[])).await.expect("a base");
            assert_eq!(count(&saved("-nft"), "MASQUERADE"), 2);
            assert!(!iptables.base(&base(&["10.96.0.10", "fd00:96::a"], &[])).await.expect("it is there"));
        })
    });
}

#[test]
fn a_held_lock_is_waited_for_shortly_and_said() {
    private(|| {
        block_on(async {
            let mut iptables = iptables("-legacy").await;
            iptables.base(&example()).await.expect("a base");
            iptables.intercept(&all(&example())).await.expect("an intercept");
            let mut holder = tokio::process::Command::new("flock")
                .args(["/run/xtables.lock", "sh", "-c", "echo held && exec cat"])
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .expect("flock: apt-get install util-linux");
            let mut out = tokio::io::BufReader::new(holder.stdout.take().expect("it was piped"));
            let mut line = String::new();
            tokio::io::AsyncBufReadExt::read_line(&mut out, &mut line).await.expect("the lock is held");
            assert_eq!(line, "held\n");

            // Looking needs no lock, so nothing is wrong until something has to change.
            assert_eq!(iptables.intercept(&all(&example())).await, Ok(None));
            let stop = async {
                let withdrawn = iptables.intercept(&BTreeSet::new()).await.expect_err("the lock is held");
                let removed = iptables.remove_base().await.expect_err("the lock is held");
                (withdrawn, removed)
            };
            let (withdrawn, removed) =
                tokio::time::timeout(Duration::from_secs(5), stop).await.expect("a stop is not held up");
            assert_eq!((withdrawn.kind, removed.kind), (Kind::IptablesLock, Kind::IptablesLock));
            assert!(
                withdrawn.text.contains("xtables lock") && withdrawn.text.contains("no harm to pods"),
                "{withdrawn}"
            );

            drop(holder.stdin.take());
            holder.wait().await.expect("it lets go");
            iptables.base(&example()).await.expect("a base");
            iptables.intercept(&BTreeSet::new()).await.expect("the lock is free");
            assert_eq!(count(&saved("-legacy"), "while it listens"), 0);
        })
    });
}

#[test]
fn a_family_that_is_missing_does_not_keep_the_other_from_its_rules() {
    private(|| {
        block_on(async {
            let mut iptables = iptables("-nft").await;
            iptables.v6 = Err("ip6tables-restore was not found".to_owned());
            let trouble = iptables.base(&example()).await.expect_err("IPv6 is missing");
            assert!(trouble.text.contains("ip6tables-restore was not found"), "{trouble}");
            assert_eq!(iptables.intercept(&all(&example())).await, Ok(Some(Action::Intercepted)));
            assert_eq!(iptables.intercept(&all(&example())).await, Ok(None));
            assert!(!iptables.covers("fd69:254:20::10".parse().expect("an address")));
            let text = saved("-nft");
            assert!(text.contains("169.254.20.10") && !text.contains("fd69"), "{text}");
            let only_v4 = base(&["169.254.20.10"], &[]);
            assert_eq!(iptables.base(&only_v4).await, Ok(true), "nothing is missing where IPv6 is not asked for");
        })
    });
}

#[test]
fn a_refusal_names_the_program_and_its_words() {
    private(|| {
        block_on(async {
            let mut iptables = iptables("-nft").await;
            let text = "*raw\n-A DNSLET-NONE -j NOTRACK\nCOMMIT\n";
            let failure = iptables.v4.tools.restore(text, LOCK_WAIT).await.expect_err("no such chain");
            let Failure::Refused(why) = &failure else { panic!("{failure:?}") };
            assert!(why.starts_with("iptables-nft-restore says: "), "{why}");
            iptables.v4.tools = Tools::of(Family::V4, "/bin/false".into(), "/bin/false".into());
            let trouble = iptables.base(&example()).await.expect_err("it fails");
            assert_eq!(trouble.kind, Kind::Iptables);
            assert!(trouble.text.contains("false says: nothing") && trouble.text.contains("tries again"), "{trouble}");
        })
    });
}

#[test]
fn a_program_that_hangs_is_ended() {
    private(|| {
        block_on(async {
            let mut iptables = iptables("-nft").await;
            run("printf '#!/bin/sh\\necho $$ >/run/pid; exec sleep 600' >/run/hangs && chmod +x /run/hangs");
            iptables.v4.tools = Tools::of(Family::V4, "/run/hangs".into(), "/run/hangs".into());
            let nothing = BTreeSet::new();
            let attempt = tokio::time::timeout(Duration::from_secs(5), iptables.intercept(&nothing));
            let trouble = attempt.await.expect("a stop is not held up").expect_err("it never ended");
            assert!(trouble.text.contains("did not finish within 3 s"), "{trouble}");
            let path = format!("/proc/{}/cmdline", run("cat /run/pid").trim());
            while std::fs::read(&path).is_ok_and(|line| !line.is_empty()) {
                tokio::task::yield_now().await;
            }
        })
    });
}
