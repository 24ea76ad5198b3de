//! Real stub resolvers against real servers: whatever a pod looks up, it ends with the same with `autopath` and without.
//! Names and servers are in `names` and `tree`, the stub resolvers in `programs`.

mod failures;
mod lab;
mod names;
mod programs;
mod report;
mod tree;

use crate::support::namespace;
use lab::{Cost, Lab, Pod, Side};
use names::{Class, GROUPS, Group};
use programs::{Question, Stub};
use report::{Difference, Table};

/// A pod's search list, with the host's domain behind that of the cluster.
const IN_DEFAULT: Pod =
    Pod { search: "default.svc.cluster.local svc.cluster.local cluster.local corp.example", ndots: 5 };
const IN_DATA: Pod = Pod { search: "data.svc.cluster.local svc.cluster.local cluster.local corp.example", ndots: 5 };
/// A pod that takes more names as they are.
const EARLY: Pod = Pod { ndots: 2, ..IN_DEFAULT };
/// A pod with a list of its own.
const OTHER: Pod =
    Pod { search: "other.example default.svc.cluster.local svc.cluster.local cluster.local corp.example", ndots: 5 };

#[test]
fn every_stub_ends_as_without_autopath() {
    if namespace::entered("stubs::every_stub_ends_as_without_autopath") {
        compare(false, &[IN_DEFAULT, IN_DATA, EARLY, OTHER]);
    }
}

#[test]
fn every_stub_ends_as_without_autopath_where_the_hosts_domain_has_every_name() {
    if namespace::entered("stubs::every_stub_ends_as_without_autopath_where_the_hosts_domain_has_every_name") {
        // What differs by pod is compared where the domain has few names; this is about where lists end.
        compare(true, &[IN_DEFAULT]);
    }
}

#[test]
fn difference_would_be_seen() {
    if !namespace::entered("stubs::difference_would_be_seen") {
        return;
    }
    let lab = Lab::build(false);
    let side = Side::start(1, false);
    let other = Pod { search: "default.svc.cluster.local svc.cluster.local cluster.local", ..IN_DEFAULT };
    let classes = names::classes();
    for stub in &programs::all(lab.directory.path()) {
        let questions = questions(&classes, stub, stub.kinds);
        let results = [IN_DEFAULT, other].map(|pod| {
            lab.become_pod(pod, 1, &side);
            stub.look_up(lab.directory.path(), &questions)
        });
        let changed: Vec<&str> =
            (0..questions.len()).filter(|&at| results[0][at] != results[1][at]).map(|at| questions[at].name).collect();
        for name in ["intranet", "build.ci", "both.shop", "api", "_ldap._tcp"] {
            // musl looks up nothing but addresses along the list.
            let expected = !(stub.name == "musl" && name == "_ldap._tcp");
            assert_eq!(changed.contains(&name), expected, "{} and {name}: {changed:?}", stub.name);
        }
        assert!(!changed.iter().any(|name| name.ends_with("cluster.local")), "{}: {changed:?}", stub.name);
    }
}

/// Looks everything up by every stub in each kind of pod, with autopath off and on.
fn compare(wildcard: bool, pods: &[Pod]) {
    let lab = Lab::build(wildcard);
    let classes = names::classes();
    let names = classes.iter().map(|class| class.names.len()).sum::<usize>();
    assert!(names >= 200, "{names} names");
    let (mut table, mut differences, mut lookups) = (Table::default(), Vec::new(), 0);
    for stub in &programs::all(lab.directory.path()) {
        let sides = [Side::start(1, false), Side::start(2, true)];
        for round in ["cold", "warm"] {
            for (group, size) in GROUPS.map(|group| (group, size(&classes, group))) {
                let cost = sides.each_ref().map(|side| count(&lab, &classes, stub, group, side));
                table.add(stub.name, round, group, size, cost);
            }
        }
        for (number, pod) in (2..).zip(pods) {
            let questions = questions(&classes, stub, stub.kinds);
            let [off, on] = sides.each_ref().map(|side| {
                lab.become_pod(*pod, if wildcard { 1 } else { number }, side);
                stub.look_up(lab.directory.path(), &questions)
            });
            lookups += questions.len();
            // musl takes a name with as many dots as `ndots` as it is, and only so.
            if pod.ndots == 5 {
                sane(stub, &questions, &off, wildcard);
            }
            let found = questions.iter().zip(off.into_iter().zip(on));
            let found = found.filter(|(question, (off, on))| !same(stub, question, off, on));
            differences.extend(found.map(|(question, (off, on))| {
                let asked = format!("{} {} ({})", question.kind, question.name, question.class);
                Difference { stub: stub.name, pod: *pod, asked, off, on }
            }));
        }
    }
    print!("{table}");
    differences.iter().for_each(|difference| println!("{difference}"));
    println!("{names} names, {lookups} lookups by 5 stub resolvers: {} differences", differences.len());
    assert!(differences.is_empty(), "see above");
    table.check(wildcard);
}

/// Whether a lookup ended alike. Names are equal in whatever letters (RFC 4343): memory has those of its first client. And
/// the alias of a walk shows where a stub tells aliases instead of the name with the addresses: c-ares lists them and has
/// nothing where there are none, and musl passes over one that leads to a name with an underscore.
fn same(stub: &Stub, question: &Question<'_>, off: &str, on: &str) -> bool {
    let tells_aliases = match stub.name {
        "ares" => off.ends_with(" canonical -"),
        "musl" => question.name.contains('_'),
        _ => false,
    };
    let end = if tells_aliases { " canonical " } else { "\n" };
    let compared = |result: &str| result.split(end).next().unwrap_or_default().to_ascii_lowercase();
    compared(off) == compared(on)
}

/// What it costs this stub to look up the addresses of a group in a pod of its own.
fn count(lab: &Lab, classes: &[Class], stub: &Stub, group: Group, side: &Side) -> Cost {
    lab.become_pod(IN_DEFAULT, 1, side);
    let before = side.cost();
    let of_group = classes.iter().filter(|class| class.group == group);
    stub.look_up(lab.directory.path(), &questions(of_group, stub, stub.hosts));
    side.cost() - before
}

fn size(classes: &[Class], group: Group) -> usize {
    classes.iter().filter(|class| class.group == group).map(|class| class.names.len()).sum()
}

/// Everything that a stub looks up in these ways.
fn questions<'a>(
    classes: impl IntoIterator<Item = &'a Class>,
    stub: &Stub,
    kinds: &'static [char],
) -> Vec<Question<'a>> {
    let classes = classes.into_iter().filter(|class| !(stub.strict && class.odd));
    let names = classes.flat_map(|class| class.names.iter().map(|name| (class.name, name)));
    names.flat_map(|(class, name)| kinds.iter().map(move |&kind| Question { class, kind, name })).collect()
}

/// The lists are about what they say: names of every kind are found, and others are not.
#[track_caller]
fn sane(stub: &Stub, questions: &[Question<'_>], results: &[String], wildcard: bool) {
    let holds = |kind: char, name: &str, text: &str| {
        let at = questions.iter().position(|question| question.kind == kind && question.name == name);
        let result = &results[at.expect("a name of the list")];
        assert!(result.contains(text), "{}: {kind} {name}: {result}", stub.name);
    };
    for (name, address) in [
        ("kubernetes.default", "10.96.0.1"),
        ("shop.dev", "10.96.4.1"),
        ("pod-1.db.data", "10.1.3.2"),
        ("ext.default", "192.0.2.10"),
        ("cross.example.org", if wildcard { "10.9.9.9" } else { "192.0.2.13" }),
        ("intranet", "10.9.0.1"),
        ("single.", "203.0.113.10"),
    ] {
        holds('4', name, address);
    }
    if !wildcard {
        holds('6', "six.example.net", "2001:db8:4::6");
    }
    holds('6', "six.default", "fd00:96::6");
    holds('S', "_pg._tcp.db.data.svc.cluster.local", "pod-0.db.data.svc.cluster.local");
    let missing: Vec<&String> = (0..questions.len())
        .filter(|&at| questions[at].name == "missing.example.com.")
        .map(|at| &results[at])
        .collect();
    assert!(missing.iter().all(|result| !result.contains("192.0.2.")), "{}: {missing:?}", stub.name);
}
