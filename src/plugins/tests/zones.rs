//! Options that are meant for zones: `denial_cut`, `aaaa off`.

use super::*;

#[test]
fn zones_of_denial_cut_add_up() {
    assert!(good("cache").cache.unwrap().denial_cut.is_empty());
    let cache = good("cache {\n denial_cut a.Example.org org\n denial_cut b.example.org\n}").cache.unwrap();
    assert_eq!(cache.denial_cut, [name("a.example.org"), name("org"), name("b.example.org")]);
    let reverse = read("cache 10.0.0.0/8 {\n denial_cut 10.1.0.0/16\n}").0.cache.unwrap();
    assert_eq!(reverse.denial_cut, [name("1.10.in-addr.arpa")]);
}

#[test]
fn zones_of_denial_cut_are_checked() {
    bad(&[
        ("cache {\n denial_cut\n}", "3:2: `denial_cut` needs more arguments (write `denial_cut ZONES...`)"),
        (
            "cache {\n denial_cut org {\n }\n}",
            "3:2: `denial_cut` has no options in braces (remove the braces and what is between them)",
        ),
        (
            "cache {\n denial_cut a..b\n}",
            "3:13: `a..b` is not a domain name: a label is empty (two dots in a row) (write a name such as `example.org`, or a block such as `10.0.0.0/8`)",
        ),
        (
            "cache {\n denial_cut org cluster.local\n}",
            "3:17: `cluster.local` is outside the zones here (write a zone under `example.org.`, or put the line into the block that serves it)",
        ),
        (
            "cache a.example.org b.example.org {\n denial_cut c.example.org\n}",
            "3:13: `c.example.org` is outside the zones here (write a zone under `a.example.org.`, `b.example.org.`, or put the line into the block that serves it)",
        ),
        (
            "cache {\n denial_cut a.example.org\n disable denial\n}",
            "3:13: `a.example.org` has no effect here: no denials of it are kept (remove it, or keep denials of this zone)",
        ),
        (
            "cache {\n disable denial b.org example.org\n denial_cut example.org\n}",
            "4:13: `example.org` has no effect here: no denials of it are kept (remove it, or keep denials of this zone)",
        ),
        ("cache {\n denial_cuts org\n}", "3:2: `cache` has no option `denial_cuts` (did you mean `denial_cut`?)"),
    ]);
}

#[test]
fn denials_that_are_kept_may_cut() {
    good("cache {\n disable success\n denial_cut example.org\n}");
    good("cache {\n disable denial a.example.org\n denial_cut example.org\n}");
    good("cache {\n disable denial\n disable denial a.test\n denial_cut example.org\n}");
}

#[test]
fn aaaa_is_off_for_zones_or_for_all() {
    let covers = |lines: &str, asked: &str| good(lines).aaaa.unwrap().is_off(name(asked).as_wire());
    assert!(good("errors").aaaa.is_none());
    assert!(covers("aaaa off", "www.example.org") && covers("aaaa off", "elsewhere.test"));
    let zones = "aaaa off a.example.org b.Example.org";
    assert!(covers(zones, "a.example.org") && covers(zones, "x.y.b.example.org"));
    assert!(!covers(zones, "example.org") && !covers(zones, "za.example.org"));
}

#[test]
fn faults_of_aaaa_are_told() {
    bad(&[
        ("aaaa", "2:1: `aaaa` needs more arguments (write `aaaa off [ZONES...]`)"),
        ("aaaa on", "2:6: `on` is not known here (write `off`)"),
        ("aaaa of example.org", "2:6: `of` is not known here (did you mean `off`?)"),
        ("aaaa off\naaaa off", "3:1: `aaaa` can be used only once in a block (put all of it into one)"),
        ("aaaa off {\n}", "2:1: `aaaa` has no options in braces (remove the braces and what is between them)"),
        (
            "aaaa off cluster.local",
            "2:10: `cluster.local` is outside the zones here (write a zone under `example.org.`, or put the line into the block that serves it)",
        ),
    ]);
    // A zone that cannot be read covers nothing, and above all not everything.
    assert!(!read("aaaa off a..b").0.aaaa.unwrap().is_off(name("example.org").as_wire()));
}
