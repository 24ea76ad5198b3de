//! Real rules, tables and addresses in private networks.

use std::collections::BTreeSet;
use std::env;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::node::desired::Rules;
use crate::node::firewall::{Base, Firewall, iptables::Iptables};
use crate::node::namespace::{block_on, private, run};

const ADDRESSES: [(&str, &str); 3] =
    [("iptables", "169.254.20.10"), ("iptables", "10.96.0.10"), ("ip6tables", "fd69:254:20::10")];
const VARIANTS: [&str; 2] = ["-nft", "-legacy"];

/// The rules node-cache places for an address: twelve, at the top.
fn place_node_cache(variant: &str) {
    for (family, address) in ADDRESSES {
        let skip = "-m comment --comment \"NodeLocal DNS Cache: skip conntrack\" -j NOTRACK";
        let allow = "-m comment --comment \"NodeLocal DNS Cache: allow DNS traffic\" -j ACCEPT";
        let place = |rule: &str| run(&format!("{family}{variant} -w 5 {rule}"));
        for protocol in ["tcp", "udp"] {
            place(&format!("-t raw -I PREROUTING -p {protocol} -d {address} --dport 53 {skip}"));
            place(&format!("-t filter -I INPUT -p {protocol} -d {address} --dport 53 {allow}"));
            place(&format!("-t raw -I OUTPUT -p {protocol} -s {address} --sport 53 {skip}"));
            place(&format!("-t filter -I OUTPUT -p {protocol} -s {address} --sport 53 {allow}"));
            place(&format!("-t raw -I OUTPUT -p {protocol} -d {address} --dport 53 {skip}"));
        }
        place(&format!("-t raw -I OUTPUT -p tcp -d {address} --dport 8080 {skip}"));
        place(&format!("-t raw -I OUTPUT -p tcp -s {address} --sport 8080 {skip}"));
    }
}

/// Rules that look alike and belong to others.
fn place_foreign(variant: &str) {
    for family in ["iptables", "ip6tables"] {
        run(&format!(
            "{family}{variant} -t raw -A PREROUTING -m comment --comment \"NodeLocal DNS Cache: ours\" -j ACCEPT
             {family}{variant} -t filter -A INPUT -p udp --dport 53 -m comment --comment \"skip conntrack\" -j ACCEPT
             {family}{variant} -N KUBE-X && {family}{variant} -A KUBE-X -m comment --comment DNSLET-OUTPUT -j RETURN"
        ));
    }
}

/// All rules and chains of the variant, each with its table, except for the kernel's own chains.
fn saved(variant: &str) -> Vec<String> {
    let text = run(&format!("iptables{variant}-save 2>/dev/null && ip6tables{variant}-save 2>/dev/null"));
    let mut table = "";
    let mut found = Vec::new();
    for line in text.lines() {
        table = line.strip_prefix('*').unwrap_or(table);
        found.extend((line.starts_with("-A") || line.contains(" - [")).then(|| format!("{table} {line}")));
    }
    found
}

fn addresses() -> Vec<IpAddr> {
    ADDRESSES.iter().map(|(_, address)| address.parse().expect("an address")).collect()
}

fn base() -> Base {
    let fallback = ["10.244.0.2:53", "[fd00::2]:53"].map(|server| server.parse().expect("a server"));
    Base { addresses: addresses(), dns_port: 53, health_port: 8080, fallback: fallback.to_vec() }
}

/// What an agent that uses nf_tables takes away where nobody listens.
async fn removed_anywhere() -> (Vec<String>, Vec<Trouble>) {
    let taken = take_over(&[], 53, Rules::Nftables).await;
    (taken.removed, taken.troubles)
}

#[test]
fn node_cache_loses_its_rules_and_nobody_else() {
    private(|| {
        block_on(async {
            for variant in VARIANTS {
                place_foreign(variant);
                let without = saved(variant);
                place_node_cache(variant);
                // Twice, as after a fault of its own.
                run(&format!(
                    "iptables{variant} -t raw -A OUTPUT -p tcp -s 10.96.0.10 --sport 8080 -m comment --comment \
                     \"NodeLocal DNS Cache: skip conntrack\" -j NOTRACK"
                ));
                let (removed, troubles) = removed_anywhere().await;
                assert_eq!((removed.len(), troubles), (3 * 12 + 1, Vec::new()), "{removed:#?}");
                assert_eq!(saved(variant), without);
            }
            assert_eq!(removed_anywhere().await, (Vec::new(), Vec::new()));
        });
    });
}

#[test]
fn everything_of_ours_and_of_node_cache_goes_and_a_second_time_there_is_nothing() {
    private(|| {
        block_on(async {
            run("nft add table inet foreign && ip addr add 192.0.2.1/32 dev lo");
            for variant in VARIANTS {
                place_foreign(variant);
                run(&format!("iptables{variant}-save -t nat; ip6tables{variant}-save -t nat"));
            }
            let before = (VARIANTS.map(saved), run("nft list tables inet; ip -o addr show scope host; ip -o link"));
            for variant in VARIANTS {
                place_node_cache(variant);
                let mut iptables = Iptables::of(variant).await.expect("apt-get install iptables");
                iptables.base(&base()).await.expect("a base");
                iptables.intercept(&addresses().into_iter().collect()).await.expect("an intercept");
            }
            run("nft add table inet dnslet && nft add table inet dnslet_0badcafe");
            let mut links = Links::connect().expect("a connection");
            links.ensure(NODE_CACHE_LINK, &addresses()).await;
            assert!(run("ip addr").contains("169.254.20.10"));

            let removed = remove_all(NODE_CACHE_LINK, &[], 53).await.expect("no agent runs");
            assert_eq!(removed.troubles, []);
            for part in
                ["table inet dnslet_0badcafe", "node-cache's rule in iptables-legacy raw: OUTPUT ", "chain DNSLET-"]
            {
                assert!(removed.things.iter().any(|thing| thing.starts_with(part)), "{part}: {:#?}", removed.things);
            }
            let after = (VARIANTS.map(saved), run("nft list tables inet; ip -o addr show scope host; ip -o link"));
            assert_eq!(after, before);
            assert_eq!(remove_all(NODE_CACHE_LINK, &[], 53).await, Ok(Removed::default()));
        });
    });
}

#[test]
fn a_living_agent_is_named_and_nothing_is_removed() {
    private(|| {
        block_on(async {
            place_node_cache("-nft");
            let (mut agent, trouble) = Firewall::choose(Rules::Nftables).await;
            assert_eq!(trouble, None);
            agent.base(&base()).await.expect("a base");
            agent
                .intercept(&BTreeSet::from(["169.254.20.10".parse().expect("an address")]))
                .await
                .expect("an intercept");
            let before = run("nft list ruleset");
            let owner = remove_all(NODE_CACHE_LINK, &addresses(), 53).await.expect_err("an agent runs");
            assert!(owner.contains(&format!("(pid {})", std::process::id())) && owner.contains("dnslet_"), "{owner}");
            assert_eq!(run("nft list ruleset"), before);

            drop(agent);
            let removed = remove_all(NODE_CACHE_LINK, &addresses(), 53).await.expect("it has gone");
            assert!(removed.things.contains(&"table inet dnslet".to_owned()), "{:#?}", removed.things);
        });
    });
}

#[test]
fn whoever_listens_at_an_address_of_the_cache_keeps_what_is_there() {
    private(|| {
        block_on(async {
            let everything = || (VARIANTS.map(saved), run("nft list tables; ip -o addr; ip -o link"));
            run("ip link add nodelocaldns type veth peer name other && ip link set nodelocaldns up");
            run("ip addr add 10.96.0.10/32 dev nodelocaldns && ip addr add 192.0.2.53/32 dev lo");
            // A server of another kind, which is no reason to stop.
            let other = living("0.0.0.0:53");
            for (place, address) in [("the interface", "10.96.0.10"), ("what was given", "192.0.2.53")] {
                let before = everything();
                let living = living(&format!("{address}:5300"));
                let given = ["192.0.2.53".parse().expect("an address")];
                let why = remove_all(NODE_CACHE_LINK, &given, 5300).await.expect_err(place);
                assert!(why.contains(&format!("sleep (pid {})", living.id())) && why.contains(address), "{why}");
                assert_eq!(everything(), before);
                end(living);
            }
            end(other);
            run("ip link del nodelocaldns && ip addr add 10.96.0.10/32 dev lo");
            let mut agent = Iptables::of("-nft").await.expect("apt-get install iptables");
            agent.base(&base()).await.expect("a base");
            let before = everything();
            let of_iptables = living("10.96.0.10:53");
            remove_all(NODE_CACHE_LINK, &[], 53).await.expect_err("an agent with rules of iptables");
            end(of_iptables);
            assert_eq!(everything(), before);
            agent.remove_base().await.expect("it goes");
            place_node_cache("-legacy");
            let before = everything();
            let node_cache = living("10.96.0.10:53");
            remove_all(NODE_CACHE_LINK, &[], 5300).await.expect_err("node-cache");
            end(node_cache);
            assert_eq!(everything(), before);
            let other = living("0.0.0.0:53");
            let removed = remove_all(NODE_CACHE_LINK, &[], 53).await.expect("it is dead");
            assert_eq!(removed.things.len(), 3 * 12);
            end(other);
        });
    });
}

#[test]
fn where_it_cannot_be_seen_whether_an_agent_runs_nothing_is_removed() {
    const POWERLESS: &str = "DNSLET_TEST_POWERLESS";
    if env::var_os(POWERLESS).is_some() {
        let why = block_on(remove_all(NODE_CACHE_LINK, &[], 53)).expect_err("it lacks CAP_NET_ADMIN");
        assert!(why.contains("cannot be seen") && why.contains("not permitted"), "{why}");
        return;
    }
    private(|| {
        let itself = env::current_exe().expect("the test's binary");
        let test = "node::leftovers::tests::where_it_cannot_be_seen_whether_an_agent_runs_nothing_is_removed";
        let drop = "setpriv --bounding-set=-net_admin --inh-caps=-net_admin";
        let printed = run(&format!("{POWERLESS}=1 {drop} {} --exact {test} --nocapture", itself.display()));
        assert!(printed.contains("1 passed"), "{printed}");
    });
}

#[test]
fn a_held_lock_is_a_trouble_and_the_rest_goes() {
    private(|| {
        block_on(async {
            VARIANTS.iter().for_each(|variant| place_node_cache(variant));
            let lock = std::fs::File::create("/run/xtables.lock").expect("a private directory");
            lock.try_lock().expect("nobody else has it");
            let removed = remove_all(NODE_CACHE_LINK, &[], 53).await.expect("no agent runs");
            assert_eq!(removed.things.len(), 3 * 12, "{:#?}", removed.things);
            assert_eq!(removed.troubles.len(), 2, "{:#?}", removed.troubles);
            assert!(removed.troubles.iter().all(|trouble| trouble.text.contains("xtables lock")));
            drop(lock);
            let removed = remove_all(NODE_CACHE_LINK, &[], 53).await.expect("no agent runs");
            assert_eq!((removed.things.len(), removed.troubles), (3 * 12, Vec::new()));
        });
    });
}

#[test]
fn without_the_programs_of_iptables_the_rules_in_nf_tables_go_and_the_others_are_mentioned() {
    private(|| {
        block_on(async {
            place_foreign("-nft");
            let without = saved("-nft");
            VARIANTS.iter().for_each(|variant| place_node_cache(variant));
            run("mount -t tmpfs tmpfs /usr/sbin");
            let removed = remove_all(NODE_CACHE_LINK, &[], 53).await.expect("no agent runs");
            assert_eq!(removed_anywhere().await, (Vec::new(), Vec::new()));
            run("umount /usr/sbin");
            assert_eq!((removed.things.len(), removed.troubles), (3 * 12, Vec::new()), "{:#?}", removed.things);
            assert!(removed.things[0].starts_with("node-cache's rule "), "{:#?}", removed.things);
            let unseen = removed.unseen.join("; ");
            assert!(
                unseen.contains("tables of iptables-legacy") && unseen.contains("tables of ip6tables-legacy"),
                "{unseen}"
            );
            assert_eq!(saved("-nft"), without);
            assert_eq!(removed_anywhere().await.0.len(), 3 * 12, "those of legacy iptables are still there");
        });
    });
}

/// Another process that listens at the address until it is killed.
fn living(address: &str) -> Child {
    let socket = UdpSocket::bind(address).expect("nobody is there");
    Command::new("sleep").arg("600").stdin(Stdio::from(OwnedFd::from(socket))).spawn().expect("a process")
}

fn end(mut process: Child) {
    process.kill().and_then(|()| process.wait()).expect("it ends");
}

/// As the keeper calls it.
async fn taken_over(addresses: &[IpAddr], in_force: Rules) -> TakenOver {
    let addresses = addresses.to_vec();
    tokio::spawn(async move { take_over(&addresses, 53, in_force).await }).await.expect("it ends")
}

#[test]
fn a_living_node_cache_at_another_address_keeps_its_rules_until_it_is_dead() {
    private(|| {
        block_on(async {
            run("ip -6 addr add fd69:254:20::10/128 dev lo nodad");
            let without_programs = VARIANTS.len();
            for (at, variant) in ["-nft", "-legacy", "-nft"].into_iter().enumerate() {
                place_node_cache(variant);
                let hide = |yes: bool| match (at == without_programs, yes) {
                    (true, true) => drop(run("mount -t tmpfs tmpfs /usr/sbin")),
                    (true, false) => drop(run("umount /usr/sbin")),
                    _ => {}
                };
                let living = living("[fd69:254:20::10]:53");
                hide(true);
                let taken = taken_over(&addresses()[..1], Rules::Nftables).await;
                let again = taken_over(&addresses()[..1], Rules::Nftables).await;
                hide(false);
                assert_eq!((taken.removed.len(), taken.troubles, taken.complete), (24, Vec::new(), false), "{variant}");
                assert_eq!((again.removed, again.complete), (Vec::new(), false));
                let left = saved(variant).into_iter().filter(|line| line.contains("NodeLocal")).collect::<Vec<_>>();
                assert!(left.len() == 12 && left.iter().all(|rule| rule.contains("fd69:254:20::10")), "{left:#?}");
                end(living);
                hide(true);
                let taken = taken_over(&addresses()[..1], Rules::Nftables).await;
                hide(false);
                assert_eq!((taken.removed.len(), taken.complete), (12, true), "{variant}: {:#?}", taken.removed);
                assert!(!saved(variant).concat().contains("NodeLocal"));
            }
        });
    });
}

#[test]
fn what_cannot_be_seen_without_a_program_is_said_once_and_for_all() {
    private(|| {
        block_on(async {
            assert_eq!(
                taken_over(&addresses(), Rules::Nftables).await,
                TakenOver { complete: true, ..TakenOver::default() }
            );
            place_node_cache("-legacy");
            run("mount -t tmpfs tmpfs /usr/sbin");
            let taken = taken_over(&addresses(), Rules::Nftables).await;
            let unseen = taken.unseen.expect("it is said");
            assert!(
                unseen.contains("tables of iptables-legacy are in use") && unseen.contains("no answer"),
                "{unseen}"
            );
            assert!(taken.complete && taken.removed.is_empty());
        });
    });
}

#[test]
fn rules_of_ours_in_iptables_go_when_nf_tables_are_in_force() {
    private(|| {
        block_on(async {
            run("ip addr add 10.96.0.10/32 dev lo");
            for (variant, programs) in [("-nft", true), ("-nft", false), ("-legacy", true)] {
                for table in ["raw", "filter", "nat"] {
                    run(&format!("iptables{variant}-save -t {table}; ip6tables{variant}-save -t {table}"));
                }
                run(&format!("iptables{variant} -N KUBE-Y && iptables{variant} -A OUTPUT -j KUBE-Y"));
                let before = saved(variant);
                let mut killed = Iptables::of(variant).await.expect("apt-get install iptables");
                killed.base(&base()).await.expect("a base");
                killed.intercept(&addresses().into_iter().collect()).await.expect("an intercept");
                let whole = saved(variant);
                let living = living("10.96.0.10:53");
                let taken = taken_over(&addresses(), Rules::Nftables).await;
                assert_eq!((taken.removed, taken.complete), (Vec::new(), false), "another instance lives");
                end(living);
                assert!(taken_over(&addresses(), Rules::Iptables).await.complete, "they are those in force");
                assert_eq!(saved(variant), whole);

                if !programs {
                    run("mount -t tmpfs tmpfs /usr/sbin");
                }
                let taken = taken_over(&addresses(), Rules::Nftables).await;
                if !programs {
                    run("umount /usr/sbin");
                }
                assert_eq!((taken.troubles, taken.unseen, taken.complete), (Vec::new(), None, true), "{variant}");
                assert!(taken.removed.iter().any(|thing| thing.starts_with("chain DNSLET-FALLBACK in ")));
                assert_eq!(saved(variant), before, "{variant} {programs}");
                run(&format!("iptables{variant} -F OUTPUT && iptables{variant} -X KUBE-Y"));
            }
        });
    });
}

#[test]
fn the_base_of_a_dead_agent_in_nf_tables_goes_when_iptables_are_in_force() {
    private(|| {
        block_on(async {
            let (mut agent, trouble) = Firewall::choose(Rules::Nftables).await;
            assert_eq!(trouble, None);
            agent.base(&base()).await.expect("a base");
            agent.intercept(&addresses().into_iter().collect()).await.expect("an intercept");
            let taken = taken_over(&addresses(), Rules::Iptables).await;
            assert_eq!((taken.removed, taken.complete), (Vec::new(), false), "it lives");
            drop(agent);
            run("nft add table inet dnslet_byhand");
            assert_eq!(taken_over(&addresses(), Rules::Nftables).await.removed, Vec::<String>::new());
            let taken = taken_over(&addresses(), Rules::Iptables).await;
            assert_eq!((taken.removed, taken.complete), (vec!["table inet dnslet".to_owned()], true));
            assert_eq!(run("nft list tables inet"), "table inet dnslet_byhand\n");
        });
    });
}
