mod packets;

use std::env;
use std::future::Future;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;
use crate::node::namespace::{block_on, private, run};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/iptables/notrack.nft");

pub(super) fn addresses(list: &[&str]) -> BTreeSet<IpAddr> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

/// The addresses and servers of `iptables/notrack.nft`.
fn example() -> Base {
    let servers = ["10.244.0.2:53", "10.244.0.3:53", "[fd00:10:244::2]:53", "[fd00:10:244::3]:53"];
    Base {
        addresses: addresses(&["169.254.20.10", "10.96.0.10", "fd69:254:20::10"]).into_iter().collect(),
        dns_port: 53,
        health_port: 8080,
        fallback: servers.iter().map(|text| text.parse().unwrap()).collect(),
    }
}

fn all(base: &Base) -> BTreeSet<IpAddr> {
    base.addresses.iter().copied().collect()
}

/// A test in a private network, with one instance that has placed everything.
fn with_all<F: Future<Output = ()>>(body: impl FnOnce(Nftables, Base) -> F) {
    block_on(async {
        let mut rules = Nftables::detect().await.unwrap();
        let base = example();
        assert_eq!(rules.base(&base).await, Ok(true));
        assert_eq!(rules.intercept(&all(&base)).await, Ok(Some(Action::Intercepted)));
        body(rules, base).await;
    });
}

/// Both tables as the `nft` program shows them, without what differs from one loading to the next.
fn listing() -> String {
    let names = tables();
    let (own, base): (Vec<_>, Vec<_>) = names.lines().partition(|name| name.starts_with("table inet dnslet_"));
    let text: String = [base, own].concat().iter().map(|name| run(&format!("nft --stateless list {name}"))).collect();
    let lines =
        text.lines().filter(|line| !["\tflags owner", "\tcomment "].iter().any(|start| line.starts_with(start)));
    let lines = lines.map(|line| match line.starts_with("table inet dnslet_") {
        true => "table inet dnslet_NAME {",
        false => line,
    });
    lines.filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect()
}

fn tables() -> String {
    run("nft list tables")
}

#[test]
fn rules_are_those_of_the_file_for_operators() {
    private(|| {
        run(&format!("nft -f {FILE} && nft -f {FILE}"));
        let by_hand = listing();
        assert!(by_hand.lines().count() > 70, "{by_hand}");
        run("nft flush ruleset");
        with_all(async |_, _| assert_eq!(listing(), by_hand));
    });
}

#[test]
fn words_fit_into_what_the_nft_program_shows() {
    let longest: Vec<IpAddr> =
        ["fd12:3456:789a:bcde:f012:3456:789a:bcde"].iter().map(|text| text.parse().unwrap()).collect();
    let server = "[fd12:3456:789a:bcde:f012:3456:789a:bcdf]:65535".parse().unwrap();
    let base = Base { addresses: longest, dns_port: 53, health_port: 8080, fallback: vec![server] };
    let table = rules::base(&base, "12345678");
    let comments = table.chains.iter().flat_map(|chain| &chain.rules).map(|rule| &rule.comment).chain([&table.comment]);
    let too_long: Vec<&String> = comments.filter(|comment| comment.len() > 128).collect();
    assert!(too_long.is_empty(), "{too_long:?}");
}

#[test]
fn the_intercept_belongs_to_its_socket_and_the_base_to_nobody() {
    private(|| {
        with_all(async |mut rules, base| {
            let own = format!("table inet dnslet_{}", rules.instance);
            assert!(run(&format!("nft list {own}")).contains("\tflags owner\n"));
            assert!(!run("nft list table inet dnslet").contains("flags owner"));
            run("nft flush ruleset");
            assert_eq!(tables(), format!("{own}\n"));
            assert_eq!(rules.intercept(&all(&base)).await, Ok(None));
            assert_eq!(rules.base(&base).await, Ok(true));
            drop(rules);
            assert_eq!(tables(), "table inet dnslet\n");
        });
    });
}

#[test]
fn the_intercept_ends_with_its_process_however_that_ends() {
    const VICTIM: &str = "DNSLET_TEST_VICTIM";
    if env::var_os(VICTIM).is_some() {
        return with_all(async |_, _| {
            println!("placed");
            std::future::pending::<()>().await;
        });
    }
    private(|| {
        let test = "node::firewall::nftables::tests::the_intercept_ends_with_its_process_however_that_ends";
        let mut victim = Command::new(env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(VICTIM, "yes")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().ends_with("placed")));
        assert_eq!(tables().lines().count(), 2);
        victim.kill().unwrap();
        victim.wait().unwrap();
        assert_eq!(tables(), "table inet dnslet\n");
    });
}

#[test]
fn withdrawn_is_an_empty_table() {
    private(|| {
        with_all(async |mut rules, base| {
            assert_eq!(rules.intercept(&BTreeSet::new()).await, Ok(Some(Action::Withdrawn)));
            assert_eq!(rules.intercept(&BTreeSet::new()).await, Ok(None));
            let own = run(&format!("nft list table inet dnslet_{}", rules.instance));
            assert!(own.contains("flags owner") && !own.contains("chain"), "{own}");
            let one = addresses(&["169.254.20.10"]);
            assert_eq!(rules.intercept(&one).await, Ok(Some(Action::Intercepted)));
            let own = run(&format!("nft list table inet dnslet_{}", rules.instance));
            assert!(own.contains("169.254.20.10") && !own.contains("10.96.0.10"), "{own}");
            assert_eq!(rules.intercept(&all(&base)).await, Ok(Some(Action::Intercepted)));
        });
    });
}

#[test]
fn a_withdrawal_does_not_depend_on_the_kernels_answers() {
    private(|| {
        with_all(async |mut rules, base| {
            let nobody = u32::MAX;
            rules.kernel.lead_to(nobody);
            assert!(rules.intercept(&addresses(&["10.96.0.10"])).await.is_err(), "nothing can be looked at");
            assert_eq!(tables().lines().count(), 2);
            assert_eq!(rules.intercept(&BTreeSet::new()).await, Ok(Some(Action::Withdrawn)));
            assert_eq!(tables(), "table inet dnslet\n");
            assert!(rules.intercept(&BTreeSet::new()).await.is_err(), "there is nothing to withdraw");

            rules.kernel = Netfilter::connect().unwrap();
            assert_eq!(rules.intercept(&all(&base)).await, Ok(Some(Action::Intercepted)));
            rules.owner.as_mut().unwrap().lead_to(nobody);
            assert_eq!(rules.intercept(&BTreeSet::new()).await, Ok(Some(Action::Withdrawn)));
            assert_eq!(tables(), "table inet dnslet\n");
        });
    });
}

#[test]
fn whatever_others_do_to_the_base_is_repaired() {
    private(|| {
        with_all(async |mut rules, base| {
            let whole = listing();
            let probe = r#"ip daddr 10.96.0.10 tcp dport 54 notrack comment \"probe of 10.96.0.10 over UDP\""#;
            for edit in [
                "nft flush ruleset",
                "nft delete table inet dnslet",
                "nft flush table inet dnslet",
                "nft flush chain inet dnslet output",
                "nft delete chain inet dnslet fallback_postrouting",
                "nft add chain inet dnslet another",
                "nft add rule inet dnslet output udp dport 53 drop",
                "nft insert rule inet dnslet fallback_output accept",
                "nft 'add set inet dnslet numbers { type inet_service; }'",
                "nft 'add table inet dnslet { flags dormant; }'",
                "nft delete table inet dnslet && nft add table inet dnslet",
                &format!(
                    "nft replace rule inet dnslet probes handle $(nft -a list chain inet dnslet probes | sed -n \
                     's/.*10.96.0.10 udp.*handle //p') {probe}"
                ),
                "nft delete chain inet dnslet fallback_postrouting && nft add chain inet dnslet fallback_postrouting \
                 '{ type filter hook postrouting priority 100; }' && nft add rule inet dnslet fallback_postrouting accept",
            ] {
                assert_eq!(rules.base(&base).await, Ok(false), "before {edit}");
                run(edit);
                assert_ne!(listing(), whole, "{edit}");
                assert_eq!(rules.base(&base).await, Ok(true), "{edit}");
                assert_eq!(listing(), whole, "{edit}");
            }
        });
    });
}

#[test]
fn asked_ten_thousand_times_it_writes_nothing() {
    private(|| {
        with_all(async |mut rules, base| {
            let (whole, generation) = (listing(), rules.generation().unwrap());
            let ready = all(&base);
            for call in 0..10_000 {
                // Rules of others change all the time, and ours have to be looked at then.
                if call % 100 == 0 {
                    rules.base.generation = None;
                    rules.intercept.generation = None;
                }
                assert_eq!(rules.base(&base).await, Ok(false));
                assert_eq!(rules.intercept(&ready).await, Ok(None));
            }
            assert_eq!(rules.generation().unwrap(), generation);
            assert_eq!(listing(), whole);
        });
    });
}

#[test]
fn a_transaction_with_one_bad_change_changes_nothing() {
    private(|| {
        with_all(async |mut rules, base| {
            let whole = listing();
            let mut bad = rules::base(&Base { addresses: vec![[192, 0, 2, 1].into()], ..base.clone() }, "0");
            let last = bad.chains.last_mut().unwrap();
            last.rules[0].expressions = vec![expressions::jump("nowhere")];
            let refused = rules.kernel.transact(bad.writing()).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::ENOENT));
            let refused = rules.kernel.rehearse(bad.writing()).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::ENOENT));
            assert_eq!(listing(), whole);
            assert_eq!(rules.base(&base).await, Ok(false));
        });
    });
}

#[test]
fn a_rehearsal_changes_nothing() {
    private(|| {
        block_on(async {
            let rules = Nftables::detect().await.unwrap();
            assert_eq!(tables(), "");
            drop(rules);
        });
    });
}

#[test]
fn two_instances_overlap() {
    private(|| {
        with_all(async |mut older, base| {
            let mut younger = Nftables::detect().await.unwrap();
            assert_eq!(older.shared().await, Ok(false));
            assert_eq!(younger.base(&base).await, Ok(false), "it wants the same");
            assert_eq!(younger.intercept(&all(&base)).await, Ok(Some(Action::Intercepted)));
            assert_eq!((older.shared().await, younger.shared().await), (Ok(true), Ok(true)));
            assert_eq!(tables().lines().count(), 3);
            assert_eq!(older.remove_base().await, Ok(vec![]), "the younger one needs it");
            drop(older);
            let left = ["table inet dnslet".to_owned(), format!("table inet dnslet_{}", younger.instance)];
            assert_eq!(tables().lines().collect::<Vec<_>>(), left);
            assert_eq!(younger.remove_base().await, Ok(vec!["table inet dnslet".to_owned()]));
            assert_eq!(younger.remove_base().await, Ok(vec![]));
        });
    });
}

#[test]
fn instances_that_want_different_things_do_not_write_in_turns() {
    private(|| {
        with_all(async |mut older, base| {
            let other = Base { addresses: vec![[169, 254, 20, 11].into()], ..base.clone() };
            let mut younger = Nftables::detect().await.unwrap();
            assert_eq!(younger.base(&other).await, Ok(true));
            let whole = listing();
            for _ in 0..3 {
                assert_eq!((older.base(&base).await, younger.base(&other).await), (Ok(false), Ok(false)));
            }
            run("nft flush chain inet dnslet output");
            assert_eq!(older.base(&base).await, Ok(false), "the author repairs it");
            assert_eq!(younger.base(&other).await, Ok(true));
            assert_eq!(listing(), whole);
            drop(younger);
            assert_eq!(older.base(&base).await, Ok(true), "its own again");
        });
    });
}

#[test]
fn changes_by_others_wake_and_own_ones_do_not() {
    private(|| {
        with_all(async |mut rules, base| {
            let moment = Duration::from_millis(100);
            let nothing = tokio::time::timeout(moment, rules.changed()).await;
            assert!(nothing.is_err(), "its own writes");
            run("nft add table inet others && nft delete table inet others");
            assert!(tokio::time::timeout(moment, rules.changed()).await.is_err(), "tables of others");
            for edit in [
                "nft flush chain inet dnslet output",
                "nft flush ruleset",
                "nft 'add table inet dnslet { flags dormant; }'",
            ] {
                run(edit);
                rules.changed().await;
                assert_eq!(rules.base(&base).await, Ok(true), "{edit}");
            }
        });
    });
}

#[test]
fn more_changes_than_could_be_told_are_a_change() {
    private(|| {
        with_all(async |mut rules, _| {
            rules.watch.shrink();
            run("for i in $(seq 200); do echo add table inet others$i; done | nft -f -");
            rules.changed().await;
        });
    });
}

#[test]
fn where_no_more_changes_are_told_it_listens_again() {
    private(|| {
        with_all(async |mut rules, base| {
            rules.watch.end();
            run("nft flush ruleset");
            let moment = Duration::from_millis(100);
            assert!(tokio::time::timeout(moment, rules.changed()).await.is_err(), "nothing is told");
            assert_eq!(rules.base(&base).await, Ok(true));
            run("nft flush ruleset");
            rules.changed().await;
        });
    });
}

#[test]
fn without_the_fallback_the_rest_is_placed() {
    private(|| {
        block_on(async {
            let mut rules = Nftables::detect().await.unwrap();
            // As after a refusal by a kernel without NAT, which this one is not.
            let base = example();
            rules.lacks = Some(Trouble { kind: Kind::Iptables, text: "lacks".to_owned() });
            rules.base.wanted = Some(base.clone());
            let told = rules.base(&base).await;
            assert_eq!(told.unwrap_err().text, "lacks");
            let placed = run("nft list table inet dnslet");
            assert!(placed.contains("chain probes"), "{placed}");
            assert!(!placed.contains("chain fallback") && !placed.contains("masquerade"), "{placed}");
            assert_eq!(rules.base(&base).await.unwrap_err().text, "lacks");
        });
    });
}

#[test]
fn what_is_in_force_is_listed_in_words() {
    private(|| {
        assert_eq!(installed(), Ok(vec![]));
        with_all(async |rules, _| {
            run("nft add table inet others");
            let found = installed().unwrap();
            let names: Vec<&str> = found.iter().map(|table| table.table.as_str()).collect();
            assert_eq!(names, ["dnslet".to_owned(), format!("dnslet_{}", rules.instance)]);
            assert_eq!((found[0].owner, found[1].owner), (None, rules.owner.as_ref().map(Netfilter::port)));
            let rule = |chain: &str, comment: &str, packets, bytes| InstalledRule {
                chain: chain.to_owned(),
                comment: comment.to_owned(),
                packets,
                bytes,
            };
            assert!(found[0].rules.contains(&rule("probes", "probe of 10.96.0.10 over UDP", None, None)));
            assert!(found[1].rules.contains(&rule("prerouting", "to 169.254.20.10", Some(0), Some(0))));
        });
    });
}
