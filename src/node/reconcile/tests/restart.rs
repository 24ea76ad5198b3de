//! What becomes of the fallback while the cluster's DNS servers are not known.

use super::*;

/// As it starts without `-fallback`.
fn unknown(rules: Rules) -> Desired {
    Desired { rules, fallback: Vec::new(), ..with_rules() }
}

fn rules_of_both_kinds() -> String {
    run("nft list ruleset && iptables -t nat -S")
}

#[test]
fn a_start_keeps_the_fallback_that_the_node_has_until_it_knows_better() {
    private(|| {
        block_on(async {
            let wanted = with_rules().fallback;
            for (before, after) in [
                (Rules::Nftables, Rules::Nftables),
                (Rules::Iptables, Rules::Iptables),
                (Rules::Iptables, Rules::Nftables),
                (Rules::Nftables, Rules::Iptables),
            ] {
                run("nft flush ruleset");
                // As after a death: nothing is torn down.
                drop(Node::start(Desired { rules: before, ..with_rules() }).await);
                let mut node = Node::start(unknown(after)).await;
                assert_eq!(node.status().fallback, wanted, "{before:?} {after:?}");
                node.reconcile().await;
                assert_eq!(node.status().fallback, wanted, "{before:?} {after:?}");
                node.teardown(false).await;
                drop(node);
                assert!(run("ip address").contains("169.254.20.10/32"), "{before:?} {after:?}");
                assert!(rules_of_both_kinds().contains("10.244.0.2"), "{before:?} {after:?}");
            }

            run("nft flush ruleset");
            drop(Node::start(with_rules()).await);
            let mut node = Node::start(unknown(Rules::Nftables)).await;
            node.set_fallback(vec!["10.244.0.3:53".parse().unwrap()]).await;
            let rules = run("nft list ruleset");
            assert!(rules.contains("10.244.0.3") && !rules.contains("10.244.0.2"), "{rules}");
            node.set_fallback(Vec::new()).await;
            node.teardown(false).await;
            assert!(!run("ip address").contains("169.254.20.10"), "it is known that there is none");
        });
    });
}

#[test]
fn an_address_whose_fallback_was_never_known_stays() {
    private(|| {
        block_on(async {
            for rules in [Rules::Nftables, Rules::Iptables] {
                let mut node = Node::start(unknown(rules)).await;
                assert_eq!((&node.status().fallback, node.status().troubles.len()), (&Vec::new(), 0));
                let ((), text) = logged(node.teardown(false)).await;
                drop(node);
                assert!(text.contains("Kept 169.254.20.10 - "), "{text}");
                let there = run("ip address");
                assert!(there.contains("169.254.20.10/32") && !there.contains("10.96.0.10"), "{there}");
                assert!(!rules_of_both_kinds().contains("dnslet"), "no rule is needed for that");
            }
        });
    });
}

#[test]
fn a_younger_instance_does_not_take_the_fallback_away() {
    private(|| {
        block_on(async {
            let older = Node::start(with_rules()).await;
            let mut younger = Node::start(unknown(Rules::Nftables)).await;
            assert!(run("nft list ruleset").contains("10.244.0.2"));
            drop(older);
            younger.reconcile().await;
            assert!(run("nft list ruleset").contains("10.244.0.2"));

            // Found by another one after this one had started.
            run("nft delete table inet dnslet");
            drop(younger);
            let mut blank = Node::start(unknown(Rules::Nftables)).await;
            assert_eq!(blank.status().fallback, []);
            drop(Node::start(with_rules()).await);
            blank.reconcile().await;
            assert_eq!(blank.status().fallback, with_rules().fallback);
            assert!(run("nft list ruleset").contains("10.244.0.2"));
        });
    });
}
