//! What an operator sees from outside: metrics, the query log, the errors log, in CoreDNS's names and forms.

use std::net::IpAddr;

use nix::sys::signal::Signal;

use crate::support::wire::*;
use crate::support::{Agent, Query, Upstream, time};

/// The sum of the series that carry these labels besides server, zone and view.
fn count(agent: &Agent, name: &str, labels: &[(&str, &str)]) -> f64 {
    let server = format!("dns://{}", agent.dns());
    let common = [("server", server.as_str()), ("view", "")];
    agent.metric(name, &[&common, labels].concat())
}

#[test]
fn aaaa_that_is_off_asks_nobody_and_is_counted_as_such() {
    let (agent, up) = Agent::beside_upstream("aaaa off four.test\n cache\n forward . {once}");
    for name in ["ttl300.four.test.", "nx-60-60.four.test."] {
        let reply = agent.ask(&Query::new(name, AAAA).edns(1232));
        assert_eq!((reply.rcode, reply.answers.len() + reply.authority.len()), (NOERROR, 0), "{name}");
        assert_eq!((reply.errors(), up.count(name)), (vec![0], 0), "{name}");
    }
    assert_eq!(agent.ask_a("ttl300.four.test.").answers.len(), 1);
    assert_eq!(agent.ask(&Query::new("ttl300.six.test.", AAAA)).answers.len(), 1);
    let off = [("rcode", "NOERROR"), ("plugin", "aaaa")];
    assert_eq!(count(&agent, "coredns_dns_responses_total", &off), 2.0);
    assert_eq!(agent.metric("dnslet_aaaa_off_total", &[]), 2.0);
}

#[test]
fn metrics_have_the_names_and_labels_dashboards_use() {
    let (agent, up) = Agent::beside_upstream("cache 30\n errors\n forward . {once}");
    let name = "ttl300.metrics.test.";
    agent.ask_a(name);
    agent.ask_a(name);
    agent.ask_tcp(&Query::new(name, A).dnssec_ok());
    agent.ask(&Query::new("nx.metrics.test.", AAAA));
    agent.ask(&Query::new("nx.metrics.test.", AAAA));
    for (metric, labels, value) in [
        ("coredns_dns_requests_total", &[("zone", "."), ("proto", "udp"), ("family", "1"), ("type", "A")][..], 2.0),
        ("coredns_dns_requests_total", &[("zone", "."), ("proto", "tcp"), ("family", "1"), ("type", "A")], 1.0),
        ("coredns_dns_do_requests_total", &[("zone", ".")], 1.0),
        ("coredns_dns_responses_total", &[("zone", "."), ("rcode", "NOERROR"), ("plugin", "cache")], 3.0),
        ("coredns_dns_responses_total", &[("zone", "."), ("rcode", "NXDOMAIN"), ("plugin", "cache")], 2.0),
        ("coredns_dns_request_duration_seconds_count", &[("zone", ".")], 5.0),
        ("coredns_dns_request_duration_seconds_bucket", &[("zone", "."), ("le", "+Inf")], 5.0),
        ("coredns_dns_request_size_bytes_count", &[("zone", "."), ("proto", "udp")], 4.0),
        ("coredns_dns_response_size_bytes_count", &[("zone", "."), ("proto", "tcp")], 1.0),
        ("coredns_cache_requests_total", &[("zones", ".")], 5.0),
        ("coredns_cache_misses_total", &[("zones", ".")], 3.0),
        ("coredns_cache_hits_total", &[("zones", "."), ("type", "success")], 1.0),
        ("coredns_cache_hits_total", &[("zones", "."), ("type", "denial")], 1.0),
        ("coredns_cache_entries", &[("zones", "."), ("type", "success")], 2.0),
        ("coredns_cache_entries", &[("zones", "."), ("type", "denial")], 1.0),
        ("coredns_plugin_enabled", &[("zone", "."), ("name", "cache")], 1.0),
        ("coredns_plugin_enabled", &[("zone", "."), ("name", "forward")], 1.0),
    ] {
        assert_eq!(count(&agent, metric, labels), value, "{metric} {labels:?}\n{}", agent.metrics());
    }
    let to = up.address().to_string();
    let exchanged = [("proxy_name", "forward"), ("to", &to), ("rcode", "NOERROR")];
    assert_eq!(agent.metric("coredns_proxy_request_duration_seconds_count", &exchanged), 2.0);
    for always in ["coredns_build_info", "coredns_panics_total", "coredns_reload_failed_total", "process_open_fds"] {
        assert!(agent.metrics().contains(&format!("\n{always}")), "{always} is there from the start");
    }
}

#[test]
fn queries_for_no_zone_are_counted_as_dropped() {
    let plan = Agent::plan();
    let text = plan.block("test", "whoami");
    let agent = plan.corefile(&text).start();
    assert_eq!(agent.ask_a("outside.example.").rcode, REFUSED);
    let dropped = [("zone", "dropped"), ("rcode", "REFUSED"), ("plugin", "")];
    assert_eq!(count(&agent, "coredns_dns_responses_total", &dropped), 1.0);
}

#[test]
fn an_upstream_that_goes_and_comes_back_is_one_line_each_and_a_metric() {
    let plan = Agent::plan();
    let ups = [Upstream::start(), Upstream::start()];
    let to = [0, 1].map(|up: usize| ups[up].address().to_string());
    let agent = plan.root(&format!("forward . {} {}", to[0], to[1])).start();
    let up = |to: &str| agent.metric("dnslet_upstream_up", &[("to", to)]);
    let ask_until = |what: &str, text: &str| {
        time::until(what, || {
            agent.ask_a("ttl1.down.test.");
            agent.log().lines().find(|line| line.contains(text)).map(str::to_owned)
        })
    };
    let mut told = Vec::new();
    for (at, left) in [(0, "1 of 2"), (1, "0 of 2")] {
        assert_eq!(up(&to[at]), 1.0, "{}", agent.metrics());
        ups[at].change_all(Some("silent"));
        let line = ask_until("a line", &format!("upstream {} is down", to[at]));
        let start =
            format!("[WARNING] upstream {} is down: 3 checks failed, the last one with: no answer within ", to[at]);
        assert!(line.starts_with(&start), "{line}");
        assert!(line.ends_with(&format!(" ms; {left} upstreams of this forward are left")), "{line}");
        assert_eq!(up(&to[at]), 0.0, "{}", agent.metrics());
        told.push(line);
    }
    told.push(line(&agent, "all upstreams of a forward"));
    assert!(told[2].starts_with("[ERROR] all upstreams of a forward are down: "), "{told:?}");
    assert!(to.iter().all(|to| told[2].contains(to)), "{told:?}");
    for (up, to) in ups.iter().zip(&to) {
        up.change_all(None);
        let line = ask_until("a line", &format!("upstream {to} answers again"));
        assert!(line.starts_with(&format!("[INFO] upstream {to} answers again after ")), "{line}");
        assert!(line.ends_with(" s"), "{line}");
    }
    assert_eq!([up(&to[0]), up(&to[1])], [1.0, 1.0], "{}", agent.metrics());
    let lines = agent.log().lines().filter(|line| line.contains("upstream")).count();
    assert_eq!(lines, 5, "one for each change and one for the whole: {}", agent.log());
}

/// The line of the log that holds the text.
#[track_caller]
fn line(agent: &Agent, text: &str) -> String {
    let found = || agent.log().lines().find(|line| line.contains(text)).map(str::to_owned);
    time::until(&format!("a log line with {text:?}"), found)
}

#[test]
fn query_log_has_the_form_of_coredns() {
    let (agent, _up) = Agent::beside_upstream("log\n cache\n forward . {once}");
    let query = Query::new("TTL300.Log.test.", A).with_id(4711);
    let reply = agent.ask(&query);
    let line = line(&agent, "ttl300.log.test.");
    let words: Vec<&str> = line.split(' ').collect();
    let [level, remote, "-", id, kind, class, name, proto, size, dnssec_ok, bufsize, rcode, flags, rsize, took] =
        words[..]
    else {
        panic!("{line}")
    };
    assert_eq!([level, id, kind, class, name, proto], ["[INFO]", "4711", "\"A", "IN", "ttl300.log.test.", "udp"]);
    assert_eq!(remote.rsplit_once(':').map(|(ip, _)| ip.parse()), Some(Ok(IpAddr::from([127, 0, 0, 1]))), "{line}");
    assert_eq!([size, dnssec_ok, bufsize], [&query.bytes().len().to_string(), "false", "512\""]);
    assert_eq!([rcode, flags], ["NOERROR", "qr,rd,ra"]);
    assert_eq!(rsize.parse(), Ok(reply.raw.len()), "{line}");
    assert!(took.strip_suffix('s').is_some_and(|took| took.parse::<f64>().is_ok()), "{line}");
}

#[test]
fn errors_log_names_question_and_cause() {
    let (agent, _up) = Agent::beside_upstream("errors\n forward . {once}");
    assert_eq!(agent.ask_a("silent.errors.test.").rcode, SERVFAIL);
    let line = line(&agent, "silent.errors.test.");
    assert!(line.starts_with("[ERROR] plugin/errors: 2 silent.errors.test. A: read udp "), "{line}");
    assert!(line.ends_with(": i/o timeout"), "{line}");
}

#[test]
fn the_health_probe_is_not_counted_as_a_query() {
    let plan = Agent::plan();
    let health = format!("whoami\nhealth {}:8080", plan.ip());
    let agent = plan.root(&health).start();
    time::until("a probe", || (agent.metric("coredns_health_request_duration_seconds_count", &[]) > 0.0).then_some(()));
    assert_eq!(agent.metric("coredns_dns_requests_total", &[("type", "TXT")]), 0.0, "{}", agent.metrics());
}

#[test]
fn readiness_and_listeners_are_metrics_too() {
    let plan = Agent::plan();
    let health = format!("whoami\nhealth {}:8080", plan.ip());
    let agent = plan.root(&health).start();
    let server = format!("dns://{}", agent.dns());
    for proto in ["udp", "tcp"] {
        let labels = [("server", server.as_str()), ("proto", proto)];
        time::until("the listener to be up", || (agent.metric("dnslet_listener_up", &labels) == 1.0).then_some(()));
    }
    assert_eq!(agent.metric("dnslet_ready", &[]), 1.0, "{}", agent.metrics());
}

#[test]
fn consolidated_errors_are_told_at_the_end() {
    let (mut agent, _up) = Agent::beside_upstream("errors {\n consolidate 1h timeout$\n }\n forward . {once}");
    assert_eq!(agent.ask_a("silent.errors.test.").rcode, SERVFAIL);
    assert!(!agent.log().contains("errors like"), "{}", agent.log());
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.wait().code(), Some(0));
    assert!(agent.log().contains("1 errors like 'timeout$' occurred in last 1h0m0s"), "{}", agent.log());
}

#[test]
fn an_answer_that_cannot_be_kept_is_counted_as_dropped() {
    let (agent, _up) = Agent::beside_upstream("cache\n forward . {up}");
    agent.ask(&Query::new("cnameloop.drops.test.", A));
    assert_eq!(agent.metric("coredns_cache_drops_total", &[]), 1.0, "{}", agent.metrics());
}
