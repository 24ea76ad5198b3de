//! Search lists that are too long in one way or another. What stub resolvers make of them is bounded, and so is a walk.

use super::play::Player;
use super::script::{Script, Step};
use crate::support::wire::{A, NOERROR, NXDOMAIN};
use crate::support::{Message, Query};

/// The domains that kubelet gives to a pod at most.
const LONGEST: usize = 32;

/// A world where the namespace `shop` exists, and of `x` and these domains only what the last one has.
fn world(options: &str, domains: &[String]) -> Player {
    let mut world = Player::new(&format!(
        "cache\nautopath k8s.test @query {{\nsearch {}\n{options}\n}}\nforward . 192.0.2.53",
        domains.join(" ")
    ));
    let soa = "SOA ns.test. host.test. 1 3600 600 86400 60";
    let mut script =
        format!("CONFIG\nCONFIG_END\nSTEP 1 UPSTREAM shop.svc.k8s.test. A\nNOERROR RA\nAUTHORITY . 60 {soa}\n");
    let cluster = ["shop.svc.k8s.test", "svc.k8s.test", "k8s.test"].map(str::to_owned);
    let (last, missing) = domains.split_last().expect("domains");
    for (at, domain) in cluster.iter().chain(missing).enumerate() {
        script += &format!("STEP {} UPSTREAM x.{domain}. A\nNXDOMAIN RA\nAUTHORITY . 60 {soa}\n", at + 2);
    }
    script += &format!("STEP 99 UPSTREAM x.{last}. A\nNOERROR RA\nANSWER x.{last}. 60 A 192.0.2.1\n");
    Script::parse(&script).steps.into_iter().for_each(|(_, step)| world.play(step).expect("an entry"));
    world
}

fn ask(world: &mut Player, name: &str) -> Message {
    world.play(Step::Query { query: Query::new(name, A), tcp: false }).expect("an upstream for every name");
    world.reply().expect("a reply")
}

fn domains(count: usize) -> Vec<String> {
    (0..count).map(|at| format!("d{at}.test")).collect()
}

#[test]
fn a_list_of_32_domains_is_walked_to_its_end() {
    let mut world = world("max_depth 36", &domains(LONGEST));
    let reply = ask(&mut world, "x.shop.svc.k8s.test.");
    assert_eq!((reply.rcode, reply.answers.len()), (NOERROR, 2));
    assert_eq!(reply.answers[1].name, "x.d31.test.");
    assert_eq!(world.take_asked().len(), 3 + LONGEST + 1, "each name once, and the namespace");
    ask(&mut world, "x.shop.svc.k8s.test.");
    assert!(world.take_asked().is_empty());
}

#[test]
fn what_is_behind_max_depth_is_left_to_the_stub() {
    let mut world = world("", &domains(LONGEST));
    let reply = ask(&mut world, "x.shop.svc.k8s.test.");
    assert_eq!((reply.rcode, reply.answers.len()), (NXDOMAIN, 0), "the plain reply: the name may exist further down");
    assert_eq!(world.take_asked().len(), 10 + 1, "ten names and the namespace");
    assert!(world.metrics().contains("dnslet_autopath_plain_total{reason=\"depth\"} 1"), "{}", world.metrics());
    for domain in domains(LONGEST - 1) {
        assert_eq!(ask(&mut world, &format!("x.{domain}.")).rcode, NXDOMAIN);
    }
    assert_eq!(ask(&mut world, "x.d31.test.").rcode, NOERROR, "the stub ends where it would have ended");
}

/// Names of more than 255 octets are no names: no stub asks for them.
#[test]
fn names_that_are_too_long_are_left_out() {
    let long: String = (0..60).map(|at| format!("n{at:02}.")).collect::<String>() + "test";
    let mut world = world("max_depth 40", &[long.clone(), "corp.test".to_owned()]);
    // `x` fits before the long domain, and this one does not.
    let base = format!("{}.x", "y".repeat(60));
    let soa = "SOA ns.test. host.test. 1 3600 600 86400 60";
    let mut script = "CONFIG\nCONFIG_END\n".to_owned();
    for (at, suffix) in ["shop.svc.k8s.test.", "svc.k8s.test.", "k8s.test."].iter().enumerate() {
        script += &format!("STEP {} UPSTREAM {base}.{suffix} A\nNXDOMAIN RA\nAUTHORITY . 60 {soa}\n", at + 1);
    }
    script += &format!("STEP 9 UPSTREAM {base}.corp.test. A\nNOERROR RA\nANSWER {base}.corp.test. 60 A 192.0.2.1\n");
    Script::parse(&script).steps.into_iter().for_each(|(_, step)| world.play(step).expect("an entry"));
    let reply = ask(&mut world, &format!("{base}.shop.svc.k8s.test."));
    assert_eq!((reply.rcode, reply.answers.len()), (NOERROR, 2));
    assert_eq!(reply.answers[1].name, format!("{base}.corp.test."));
    assert!(world.take_asked().iter().all(|asked| !asked.contains(&long)));
    assert!(world.metrics().contains("dnslet_autopath_steps_total{by=\"too_long\"} 1"), "{}", world.metrics());
}

/// A domain that is the cluster's own, or stands there twice in other words, adds no name.
#[test]
fn a_list_that_contradicts_itself_asks_for_each_name_once() {
    let list = ["svc.k8s.test", "corp.test", "shop.svc.k8s.test", "Corp.test", "corp.test"].map(str::to_owned);
    let mut world = world("", &list);
    let reply = ask(&mut world, "x.shop.svc.k8s.test.");
    assert_eq!((reply.rcode, &reply.answers[1].name[..]), (NOERROR, "x.corp.test."));
    let asked = world.take_asked();
    assert_eq!(asked.len(), 5, "{asked:?}");
}
