mod restart;

use std::env;
use std::io::{self, Read, Write};
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use tokio::time::timeout;

use super::super::namespace::{block_on, private, run};
use super::super::{Kind, Rules};
use super::*;
use crate::observe::Registry;
use crate::observe::log::{Log, Options};

/// Set in the process that stands for another instance.
const ANOTHER: &str = "DNSLET_TEST_ANOTHER";

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

fn desired(addresses: &[&str]) -> Desired {
    Desired {
        link: Some("nodelocaldns".to_owned()),
        addresses: ips(addresses),
        rules: Rules::None,
        dns_port: 53,
        health_port: 8080,
        fallback: Vec::new(),
    }
}

/// A node with rules, and two addresses in them: one that falls back, one of a Service.
fn with_rules() -> Desired {
    let fallback = vec!["10.244.0.2:53".parse().expect("an endpoint")];
    Desired { rules: Rules::Nftables, fallback, ..desired(&["169.254.20.10", "10.96.0.10"]) }
}

/// What is logged while the future runs.
async fn logged<F: Future>(future: F) -> (F::Output, String) {
    #[derive(Clone, Default)]
    struct Text(Arc<Mutex<Vec<u8>>>);
    impl Write for Text {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let text = Text::default();
    let log = Log::start(Options::default(), Box::new(text.clone()), &Registry::new(1)).expect("a thread");
    let guard = tracing::subscriber::set_default(log.subscriber());
    let output = future.await;
    drop(guard);
    assert!(log.flush(Duration::from_secs(10)));
    let bytes = text.0.lock().expect("no panic").clone();
    (output, String::from_utf8(bytes).expect("text"))
}

/// Breaks something, and repairs when told until nothing is left to do; within a second, as promised.
async fn repaired(node: &mut Node, breakage: &str) {
    run(breakage);
    let done = node.status().actions.values().sum::<u64>();
    let repair = async {
        while node.status().actions.values().sum::<u64>() == done {
            node.changed().await;
            node.reconcile().await;
        }
    };
    timeout(Duration::from_secs(1), repair).await.unwrap_or_else(|_| panic!("{breakage}: repaired within a second"));
}

#[test]
fn what_is_broken_is_repaired_when_the_kernel_tells_and_then_it_is_quiet() {
    private(|| {
        block_on(async {
            let (mut node, text) = logged(Node::start(desired(&["169.254.20.10", "fd00:90::10"]))).await;
            let place = node.status().link.clone().expect("the addresses are somewhere");
            assert!(text.contains(&format!("Added 169.254.20.10 and fd00:90::10 - {place}")), "{text}");
            assert_eq!(node.status().actions[&Action::AddressAdded], 2);
            assert_eq!((node.status().rules, node.status().troubles.len()), (None, 0));

            let delete = format!("ip address del 169.254.20.10/32 dev {place}");
            let ((), text) = logged(repaired(&mut node, &delete)).await;
            assert!(text.contains(&format!("Added back 169.254.20.10 - {place}")), "{text}");
            repaired(&mut node, &format!("ip link set {place} down")).await;
            repaired(&mut node, &format!("ip address flush dev {place} && ip link set {place} down")).await;
            UdpSocket::bind("169.254.20.10:53").expect("the address is back");
            UdpSocket::bind("[fd00:90::10]:53").expect("the address is back");

            // Its own repairs are events too: they end in a look that finds nothing.
            while timeout(Duration::from_millis(300), node.changed()).await.is_ok() {
                let before = node.status().clone();
                node.reconcile().await;
                assert_eq!(*node.status(), before);
            }
            let before = node.status().clone();
            for _ in 0..1000 {
                node.reconcile().await;
            }
            assert_eq!(*node.status(), before);
        });
    });
}

#[test]
fn a_storm_of_events_costs_ten_rounds_a_second_at_most() {
    private(|| {
        block_on(async {
            let mut node = Node::start(desired(&["169.254.20.10"])).await;
            let place = node.status().link.clone().expect("a place");
            let fight = format!("while ip address flush to 169.254.20.10 dev {place}; do :; done");
            let mut enemy = Command::new("sh").args(["-c", &fight]).spawn().expect("a shell");
            let (started, mut rounds) = (clock::now(), 0);
            while rounds < 15 {
                timeout(Duration::from_secs(10), node.changed()).await.expect("there are events all the time");
                node.reconcile().await;
                rounds += 1;
            }
            let elapsed = clock::now() - started;
            enemy.kill().expect("it is ours");
            enemy.wait().expect("it is ours");
            assert!(elapsed >= PAUSE * (rounds - 1), "{rounds} rounds in {elapsed:?}");
        });
    });
}

#[test]
fn changed_loses_nothing_when_it_is_dropped() {
    private(|| {
        block_on(async {
            let mut node = Node::start(desired(&["169.254.20.10"])).await;
            let place = node.status().link.clone().expect("a place");
            while timeout(Duration::from_millis(300), node.changed()).await.is_ok() {}
            run(&format!("ip address del 169.254.20.10/32 dev {place}"));
            // Long enough for the event, too short for what may come with it.
            while node.due.is_none() {
                assert!(timeout(Duration::from_millis(1), node.changed()).await.is_err());
            }
            timeout(Duration::from_secs(10), node.changed()).await.expect("the event is not forgotten");
        });
    });
}

#[test]
fn a_trouble_is_told_once_until_it_is_gone() {
    private(|| {
        block_on(async {
            run("ip link add nodelocaldns type bridge");
            let (mut node, first) = logged(Node::start(desired(&["169.254.20.10"]))).await;
            let told = first.lines().find(|line| line.starts_with("[ERROR] the interface nodelocaldns is a bridge"));
            let told = told.unwrap_or_else(|| panic!("{first}"));
            let ((), second) = logged(node.reconcile()).await;
            assert_eq!(second, "");
            assert_eq!(node.status().troubles[&Kind::InterfaceAdd], 2);
            assert_eq!(node.status().link, None);

            run("ip link set nodelocaldns name br0");
            node.reconcile().await;
            assert_eq!(node.status().troubles[&Kind::InterfaceAdd], 2);
            match node.status().link.as_deref() {
                Some("lo") => run("ip address flush to 169.254.20.10 dev lo"),
                place => run(&format!("ip link del {}", place.expect("a place"))),
            };
            run("ip link set br0 name nodelocaldns");
            let ((), third) = logged(node.reconcile()).await;
            assert_eq!(third.trim_end(), told, "what comes again is news");
        });
    });
}

#[test]
fn at_the_end_everything_goes_unless_it_is_to_be_kept() {
    private(|| {
        block_on(async {
            let before = run("ip address");
            let wanted = desired(&["169.254.20.10", "10.96.0.10", "fd00:90::10"]);
            let mut node = Node::start(wanted.clone()).await;
            let during = run("ip address");
            node.teardown(true).await;
            assert_eq!(run("ip address"), during);
            let ((), text) = logged(node.teardown(false)).await;
            assert!(text.contains("Removed "), "{text}");
            assert_eq!(run("ip address"), before);
            let ((), text) = logged(node.teardown(false)).await;
            assert_eq!(text, "");
        });
    });
}

#[test]
fn addresses_at_which_another_process_answers_stay() {
    if let Ok(address) = env::var(ANOTHER) {
        let _socket = UdpSocket::bind(address).expect("a socket");
        println!("bound");
        io::stdin().read_to_end(&mut Vec::new()).expect("until the end");
        return;
    }
    private(|| {
        block_on(async {
            let mut node = Node::start(desired(&["10.96.0.10", "10.96.0.11"])).await;
            let _own = UdpSocket::bind("10.96.0.11:53").expect("our own socket does not count");
            let test = "node::reconcile::tests::addresses_at_which_another_process_answers_stay";
            let mut another = Command::new(env::current_exe().expect("the test's binary"))
                .args(["--exact", test, "--nocapture"])
                .env(ANOTHER, "10.96.0.10:53")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("another process");
            let mut said = String::new();
            let mut out = io::BufReader::new(another.stdout.take().expect("piped"));
            while !said.contains("bound") {
                assert_ne!(io::BufRead::read_line(&mut out, &mut said).expect("text"), 0, "{said}");
            }
            node.teardown(false).await;
            let there = run("ip address");
            assert!(there.contains("10.96.0.10/32") && !there.contains("10.96.0.11"), "{there}");
            drop(another.stdin.take());
            another.wait().expect("it ends");
            node.teardown(false).await;
            assert!(!run("ip address").contains("10.96.0.10"));
        });
    });
}

#[test]
fn rules_are_repaired_too_and_follow_what_is_ready() {
    private(|| {
        block_on(async {
            let wanted = with_rules();
            let (mut node, text) = logged(Node::start(wanted.clone())).await;
            assert!(text.contains("clients of 169.254.20.10 reach the cluster's DNS while nobody answers"), "{text}");
            let status = node.status();
            assert_eq!((status.rules, &status.fallback), (Some(Rules::Nftables), &wanted.fallback));
            assert_eq!(status.intercepted, BTreeSet::new());
            let all: BTreeSet<IpAddr> = wanted.addresses.iter().copied().collect();
            node.intercept(all.clone()).await;
            assert_eq!(node.status().intercepted, all);
            let rules = run("nft --stateless list ruleset");

            let ((), text) = logged(repaired(&mut node, "nft flush ruleset")).await;
            assert!(text.contains("[INFO] Added back rules - replies are not tracked"), "{text}");
            let place = node.status().link.clone().expect("a place");
            let breakage = format!("nft delete table inet dnslet && ip address del 10.96.0.10/32 dev {place}");
            let ((), text) = logged(repaired(&mut node, &breakage)).await;
            let both = text.contains("Added back rules -") && text.contains("Added back 10.96.0.10 -");
            assert!(both, "two events, one repair: {text}");

            let before = node.status().clone();
            for _ in 0..1000 {
                node.reconcile().await;
            }
            assert_eq!(*node.status(), before);
            assert_eq!(run("nft --stateless list ruleset").lines().count(), rules.lines().count());

            node.intercept(ips(&["10.96.0.10"]).into_iter().collect()).await;
            assert_eq!(node.status().intercepted, ips(&["10.96.0.10"]).into_iter().collect());
            node.set_fallback(Vec::new()).await;
            assert_eq!(node.status().fallback, []);
            assert!(!run("nft list ruleset").contains("10.244.0.2"));
        });
    });
}

#[test]
fn an_address_that_falls_back_stays_with_its_rules_until_it_no_longer_does() {
    private(|| {
        block_on(async {
            let before = run("ip address");
            let mut node = Node::start(with_rules()).await;
            node.intercept(node.desired.addresses.iter().copied().collect()).await;
            node.teardown(false).await;
            assert_eq!(node.status().intercepted, BTreeSet::new());
            drop(node);
            let (there, rules) = (run("ip address"), run("nft list ruleset"));
            assert!(there.contains("169.254.20.10/32") && !there.contains("10.96.0.10"), "{there}");
            assert_eq!(rules.matches("table").count(), 1, "{rules}");
            assert!(rules.contains("10.244.0.2") && !rules.contains("10.96.0.10"), "{rules}");

            let mut node = Node::start(with_rules()).await;
            assert_eq!(node.status().actions.get(&Action::AddressAdded), Some(&1), "one was still there");
            node.set_fallback(Vec::new()).await;
            node.teardown(false).await;
            drop(node);
            assert_eq!((run("ip address"), run("nft list ruleset")), (before, String::new()));
        });
    });
}

#[test]
fn what_another_instance_uses_stays() {
    private(|| {
        block_on(async {
            let before = run("ip address");
            let mut old = Node::start(Desired { fallback: Vec::new(), ..with_rules() }).await;
            old.set_fallback(Vec::new()).await;
            let all: BTreeSet<IpAddr> = old.desired.addresses.iter().copied().collect();
            old.intercept(all.clone()).await;
            let mut young = Node::start(old.desired.clone()).await;
            young.set_fallback(Vec::new()).await;
            assert_eq!(young.status().actions.get(&Action::AddressAdded), None);
            young.intercept(all).await;
            old.teardown(false).await;
            drop(old);
            let taken = young.status().clone();
            young.reconcile().await;
            assert_eq!(*young.status(), taken, "nothing was missing");
            young.teardown(false).await;
            drop(young);
            assert_eq!((run("ip address"), run("nft list ruleset")), (before, String::new()));
        });
    });
}

#[test]
fn it_can_live_on_a_task() {
    fn is_send<T: Send>(_: &T) {}
    let start = async {
        let mut node = Node::start(desired(&[])).await;
        node.changed().await;
        node.reconcile().await;
        node.intercept(BTreeSet::new()).await;
        node.set_fallback(Vec::new()).await;
        node.teardown(false).await;
    };
    is_send(&start);
}
