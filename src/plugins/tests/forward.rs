use super::*;
use crate::upstream::Address;
use crate::upstream::spec::{Policy, Target};

#[test]
fn forward_options() {
    let forward = good(
        "forward example.org 10.0.0.1 [fd00::1]:54 tls://9.9.9.9%dns.quad9.net /etc/resolv.conf {\n except a.example.org 10.0.0.0/8\n force_tcp\n prefer_udp\n expire 20s\n max_age 1m\n max_fails 3\n max_connect_attempts 4\n max_concurrent 1000\n max_idle_conns 2\n policy sequential\n health_check 1s no_rec domain example.net\n next NXDOMAIN\n next_on_nodata\n failover servfail REFUSED\n failfast_all_unhealthy_upstreams\n read_timeout 1s\n source_address 10.0.0.2\n tls /cert /key /ca\n}",
    )
    .forward
    .remove(0);
    assert_eq!(
        (forward.from, forward.except),
        (name("example.org"), vec![name("a.example.org"), name("10.in-addr.arpa")])
    );
    assert_eq!((forward.next, forward.next_on_nodata), (vec![Rcode::NXDOMAIN], true));
    let spec = forward.spec;
    assert_eq!((spec.targets.len(), forward.words.len()), (4, 4));
    assert!(matches!(&spec.targets[2], Target::Address(at) if at.server_name.as_deref() == Some("dns.quad9.net")));
    assert_eq!(spec.targets[3], Target::File("/etc/resolv.conf".into()));
    assert!(spec.force_tcp && spec.prefer_udp && spec.failfast);
    assert_eq!((spec.expire, spec.max_age, spec.max_fails), (20 * SECOND, Some(60 * SECOND), 3));
    assert_eq!((spec.max_connect_attempts, spec.max_concurrent, spec.max_idle_conns), (Some(4), Some(1000), Some(2)));
    assert_eq!((spec.policy, spec.failover), (Policy::Sequential, vec![Rcode::SERVFAIL, Rcode::REFUSED]));
    assert_eq!((spec.health_check.interval, spec.health_check.no_rec), (SECOND, true));
    assert_eq!(spec.health_check.domain, name("example.net"));
    assert_eq!((spec.read_timeout, spec.source_address), (Some(SECOND), Some("10.0.0.2".parse().unwrap())));
    let identity = spec.tls.identity.unwrap();
    assert_eq!((identity.certificate.to_str(), identity.key.to_str()), (Some("/cert"), Some("/key")));
    assert_eq!(spec.tls.ca.unwrap().to_str(), Some("/ca"));

    let plain = good("forward . 1.1.1.1\nforward a 1.1.1.2 {\n max_concurrent 0\n max_age 0\n max_fails 0\n}").forward;
    assert_eq!((plain[0].spec.policy, plain[0].spec.expire, plain[0].spec.max_fails), (Policy::Random, 10 * SECOND, 2));
    assert_eq!((plain[1].spec.max_concurrent, plain[1].spec.max_age, plain[1].spec.max_fails), (None, None, 0));
    assert_eq!(plain[0].spec.max_age, Some(60 * SECOND));
    let lasting = good("forward . 1.1.1.1 {\n expire 5m\n}").forward.remove(0);
    assert_eq!(lasting.spec.max_age, Some(300 * SECOND), "the default gives way");
    let tls = good("forward . tls://1.1.1.1 {\n tls /ca\n tls_servername cloudflare-dns.com\n}").forward.remove(0);
    assert_eq!(tls.spec.tls.server_name.as_deref(), Some("cloudflare-dns.com"));
    let hosts = good("forward . a.test tls://b.test {\n resolver 1.1.1.1 [::1]:54\n tls /ca\n}").forward.remove(0).spec;
    assert_eq!(hosts.targets.iter().map(Target::to_string).collect::<Vec<_>>(), ["a.test:53", "tls://b.test:853"]);
    assert_eq!(hosts.resolvers.iter().map(Address::to_string).collect::<Vec<_>>(), ["1.1.1.1:53", "[::1]:54"]);
}

#[test]
fn forward_option_errors() {
    let with = |option: &str| read(&format!("forward . 1.1.1.1 {{\n {option}\n}}")).1;
    for (option, expected) in [
        ("force_tcp yes", "3:12: `force_tcp` takes no arguments (write `force_tcp`)"),
        ("expire -1s", "3:9: `-1s` is out of range (write a duration that is not negative)"),
        ("max_age 5s", "3:2: `max_age` is less than `expire` (10s) (make `max_age` at least as long, or leave it out)"),
        ("max_fails -1", "3:12: -1 is out of range (write a number from 0 to 4294967295)"),
        ("policy fastest", "3:9: `fastest` is not known here (write `random`, `round_robin` or `sequential`)"),
        ("failover SERVFAI", "3:11: `SERVFAI` is not an RCODE (did you mean `SERVFAIL`?)"),
        ("next BROKEN", "3:7: `BROKEN` is not an RCODE (write a name such as `SERVFAIL`, `REFUSED` or `NXDOMAIN`)"),
        (
            "failover NOERROR",
            "3:2: `failover NOERROR` would refuse every good response (name error codes, such as `SERVFAIL` or `REFUSED`)",
        ),
        (
            "health_check 1s rec",
            "3:18: `health_check` has no option `rec` (write `health_check DURATION [no_rec] [domain NAME]`)",
        ),
        ("health_check 1s domain", "3:18: `domain` needs a name (health_check DURATION [no_rec] [domain NAME])"),
        ("resolver 1.1.1.1", "3:2: `resolver` has no effect: no upstream is a host name (remove it)"),
        (
            "resolver dns.test",
            "3:11: `dns.test` is not the address of a resolver (write `10.0.0.10`, `10.0.0.10:5353` or `[fd00::1]:53`)",
        ),
        ("doh_method GET", "3:2: DNS over HTTPS upstreams are not offered yet (use `tls://IP`, remove `doh_method`)"),
        (
            "source_address fd00::1",
            "3:2: no upstream can be asked from fd00::1 (give a source address of the same family as the upstreams)",
        ),
        ("source_address eth0", "3:17: `eth0` is not an IP address (write an address of this node)"),
        (
            "tls_servername x",
            "3:2: `tls_servername` has no effect: no upstream is spoken to over TLS (write the upstream as `tls://IP`)",
        ),
        ("tls a b c d", "3:12: `tls` takes fewer arguments (write `tls [CERT KEY] [CA]`)"),
        ("force_tpc", "3:2: `forward` has no option `force_tpc` (did you mean `force_tcp`?)"),
        ("next", "3:2: `next` needs more arguments (write `next RCODE...`)"),
    ] {
        assert_eq!(with(option), [expected], "{option}");
    }
}

#[test]
fn forward_targets_that_cannot_be() {
    bad(&[
        ("forward .", "2:1: `forward` needs more arguments (write `forward FROM TO...`)"),
        (
            "forward . localhost",
            "2:11: `localhost` is neither an IP address nor a host name with a dot (write its IP address or its full name, or the path of a file with a slash (`./localhost`))",
        ),
        (
            "forward . https://1.1.1.1/dns-query",
            "2:11: DNS over HTTPS upstreams are not offered yet (use the same server over TLS: `tls://IP`)",
        ),
        (
            "forward . 1.2.3",
            "2:11: `1.2.3` is a malformed IP address (write all of it, such as `10.0.0.10` or `10.0.0.10:5353`)",
        ),
        (
            "forward . resolv.conf",
            "2:11: `resolv.conf` is taken for a file, which needs a slash (write `./resolv.conf`)",
        ),
        ("forward . grpc://1.1.1.1", "2:11: grpc upstreams are not offered (use `tls://IP` or plain `IP`)"),
        (
            "forward . <nil>",
            "2:11: the template left `<nil>` in place of an upstream (the address it stands for was not known when this file was made)",
        ),
        ("forward . \"\"", "2:11: this upstream is empty (name an IP address or a file; is a variable not set?)"),
        (
            "forward . 1.1.1.1:99999",
            "2:11: not a port number from 1 to 65535: \"99999\" (write `10.0.0.10`, `10.0.0.10:5353`, `[fd00::1]:53` or `tls://9.9.9.9`)",
        ),
        (
            "forward . tls://dns",
            "2:11: not an IP address: \"tls://dns\" (write `tls://9.9.9.9`, `tls://9.9.9.9%dns.quad9.net` or `tls://dns.quad9.net`)",
        ),
        ("forward . 1.1.1.1 1.1.1.1:53", "2:19: this upstream is named twice"),
        (
            "forward 10.0.0.0/9 1.1.1.1",
            "2:9: `10.0.0.0/9` stands for 128 zones (name the zones in the key of the block, and write `forward .`)",
        ),
        (
            "forward . tls://1.1.1.1%a {\n tls_servername b\n}",
            "3:2: an upstream already names its certificate after `%` (use `%NAME` on the upstreams, or `tls_servername` for all of them, not both)",
        ),
    ]);
    let many: Vec<_> = (1..=16).map(|last| format!("10.0.0.{last}")).collect();
    assert!(read(&format!("forward . {}", many.join(" "))).1[0].contains("more than 15 upstreams"));
}
