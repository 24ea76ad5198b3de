//! A server that fails in the middle of a search list: the failure is what the client gets, and its stub resolver goes on
//! from there as it would without.

use crate::support::dig::dig;
use crate::support::{Upstream, namespace};

use super::lab::{Lab, Side};
use super::programs::{self, Question};
use super::{Class, Group, IN_DEFAULT, questions};

/// Exists outside.
const NAME: &str = "www.example.org";

#[test]
fn failure_at_the_second_name_is_reported() {
    if namespace::entered("stubs::failures::failure_at_the_second_name_is_reported") {
        fails(Some("svc.cluster.local"), "servfail", "SERVFAIL");
    }
}

#[test]
fn silence_at_the_second_name_is_reported() {
    if namespace::entered("stubs::failures::silence_at_the_second_name_is_reported") {
        fails(Some("svc.cluster.local"), "silent", "SERVFAIL");
    }
}

#[test]
fn refusal_at_the_third_name_is_reported() {
    if namespace::entered("stubs::failures::refusal_at_the_third_name_is_reported") {
        fails(Some("cluster.local"), "refused", "REFUSED");
    }
}

#[test]
fn failure_outside_is_reported() {
    if namespace::entered("stubs::failures::failure_outside_is_reported") {
        fails(None, "servfail", "SERVFAIL");
    }
}

/// The name of the list with this suffix, and what is just below the suffix, are answered like that label.
fn fails(suffix: Option<&str>, label: &str, status: &str) {
    let lab = Lab::without_servers();
    let upstream = Upstream::start();
    upstream.change_all(Some("nx-5-5"));
    upstream.change("default.svc.cluster.local.", "nodata-5-5");
    upstream.change(&format!("{NAME}."), "ttl300");
    let failing = match suffix {
        Some(suffix) => ["", "example.", "www.example."].map(|above| format!("{above}org.{suffix}.")).to_vec(),
        None => vec![format!("{NAME}.")],
    };
    failing.iter().for_each(|name| upstream.change(name, label));
    let sides = [false, true].map(|walks| Side::asking(1 + u8::from(walks), walks, [upstream.address(); 2]));
    let first = format!("{NAME}.default.svc.cluster.local");
    // As long as a stub resolver waits for its first try.
    let ask = |kind| dig(sides[1].server(1), &["+time=5", &first, kind]);
    let printed = std::thread::scope(|scope| {
        let other = scope.spawn(|| ask("AAAA"));
        [ask("A"), other.join().expect("dig runs to its end")]
    });
    assert!(printed.iter().all(|reply| reply.contains(&format!("status: {status}"))), "{printed:?}");
    let glibc = &programs::all(lab.directory.path())[0];
    let class = Class { name: "failing", group: Group::Other, names: vec![NAME.to_owned()], odd: false };
    let questions: Vec<Question<'_>> = questions([&class], glibc, glibc.hosts);
    let [off, on] = sides.each_ref().map(|side| {
        lab.become_pod(IN_DEFAULT, 2, side);
        glibc.look_up(lab.directory.path(), &questions)
    });
    assert_eq!(on, off, "{questions:?}");
    println!("{label}: {off:?}");
}
