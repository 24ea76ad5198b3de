mod autopath;
mod forward;
mod zones;

use std::path::Path;
use std::time::Duration;

use super::front::loadbalance::{Loadbalance, Weighted};
use super::*;
use crate::cache::settings::{Prefetch, ServeStale};
use crate::corefile;
use crate::dns::{Name, Rcode};
use crate::observe::log::Severity;

/// Reads the lines of a block; the settings and the findings without their file.
fn read(lines: &str) -> (Settings, Vec<String>) {
    let text = format!("example.org {{\n{lines}\n}}");
    let parsed = corefile::parse(Path::new("C"), &text, &mut |_| Err("none".into()), &|_| None);
    let mut found = Vec::new();
    let settings = parse(&parsed.blocks[0], &mut found);
    let all = parsed.diagnostics.iter().chain(&found);
    let found = all.map(|finding| finding.line(&parsed.sources).trim_start_matches("C:").to_owned()).collect();
    (settings, found)
}

#[track_caller]
fn good(lines: &str) -> Settings {
    let (settings, found) = read(lines);
    assert_eq!(found, Vec::<String>::new(), "{lines}");
    settings
}

/// Each line alone in a block, and the only finding it must give.
#[track_caller]
fn bad(cases: &[(&str, &str)]) {
    for (lines, expected) in cases {
        assert_eq!(read(lines).1, [*expected], "{lines}");
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn cache_options() {
    let plain = good("cache").cache.unwrap();
    assert_eq!((plain.success.max_ttl, plain.denial.max_ttl, plain.success.min_ttl), (3600, 1800, 5));
    assert_eq!((plain.success.capacity, plain.servfail, plain.zones), (10_000, 30 * SECOND, None));
    assert!(plain.prefetch.is_none() && plain.serve_stale.is_none() && !plain.keepttl);

    let cache = good("cache 30 Example.org 10.0.0.0/8 {\n success 9984 60 1\n denial -1 7\n prefetch 5 10m 20%\n servfail 0s\n keepttl\n disable denial a b\n disable success\n disable denial c\n}").cache.unwrap();
    assert_eq!(cache.zones.unwrap(), [name("example.org"), name("10.in-addr.arpa")]);
    assert_eq!((cache.success.capacity, cache.success.max_ttl, cache.success.min_ttl), (9984, 60, 1));
    assert_eq!((cache.denial.capacity, cache.denial.max_ttl, cache.denial.min_ttl), (1024, 7, 5));
    assert_eq!(cache.prefetch, Some(Prefetch { amount: 5, duration: 600 * SECOND, percentage: 20 }));
    assert_eq!((cache.servfail, cache.keepttl), (Duration::ZERO, true));
    assert_eq!((cache.disable_success, cache.disable_denial), (vec![Name::root()], vec![name("c")]));

    assert_eq!(good("cache {\n prefetch 0\n}").cache.unwrap().prefetch, None);
}

/// Each option of CoreDNS 1.13 and 1.14.7, and what it is here.
#[test]
fn serve_stale_options() {
    let stale = |options: &str| good(&format!("cache {{\n {options}\n}}")).cache.unwrap().serve_stale;
    let hour = || ServeStale::lasting(3600 * SECOND);
    let verify = || ServeStale { verify: true, ..hour() };
    for (options, expected) in [
        ("serve_stale", hour()),
        ("serve_stale 90m", ServeStale::lasting(5400 * SECOND)),
        ("serve_stale 1h immediate", hour()),
        ("serve_stale 1h Verify", verify()),
        ("serve_stale 1h immediate 10s", ServeStale { response_ttl: Some(10), ..hour() }),
        (
            "serve_stale 1h immediate 1m 5s",
            ServeStale { response_ttl: Some(60), failure_recheck: Some(5 * SECOND), ..hour() },
        ),
        ("serve_stale 1h verify 500ms", ServeStale { verify_timeout: Some(SECOND / 2), ..verify() }),
        (
            "serve_stale 1h VERIFY 500ms 10s 5m",
            ServeStale {
                verify_timeout: Some(SECOND / 2),
                response_ttl: Some(10),
                failure_recheck: Some(300 * SECOND),
                ..verify()
            },
        ),
        // Zero is how CoreDNS writes "as if it were left out"; a pause of none is a pause all the same.
        ("serve_stale 1h immediate 0 0s", ServeStale { failure_recheck: Some(Duration::ZERO), ..hour() }),
        ("serve_stale 1h verify 0 30s", ServeStale { response_ttl: Some(30), ..verify() }),
        ("serve_stale 1h immediate 4294967295s", ServeStale { response_ttl: Some(604_800), ..hour() }),
        // The last line holds, and the policy wherever it stands.
        ("serve_stale 1m verify 1s 1s 1s\n serve_stale 1h", hour()),
        ("serve_stale_policy Prefer_Positive\n serve_stale 1h", ServeStale { prefer_positive: true, ..hour() }),
    ] {
        assert_eq!(stale(options), Some(expected), "{options}");
    }
    assert_eq!(stale("serve_stale 0s verify\n serve_stale_policy prefer_positive"), None);
}

#[test]
fn serve_stale_errors() {
    bad(&[
        ("cache {\n serve_stale 1h verfy\n}", "3:17: `verfy` is not known here (did you mean `verify`?)"),
        (
            "cache {\n serve_stale 1h immediate 5s 5s 6\n}",
            "3:33: `serve_stale` takes fewer arguments (write `serve_stale [DURATION [immediate [TTL [RECHECK]] | verify [TIMEOUT [TTL [RECHECK]]]]]`)",
        ),
        (
            "cache {\n serve_stale 1h verify 1s 30\n}",
            "3:27: `30` is not a duration (a unit is missing: `30s` is 30 seconds)",
        ),
        (
            "cache {\n serve_stale 1h immediate 1500ms\n}",
            "3:27: `1500ms` is not a whole number of seconds (TTLs have no fractions: write `30s`)",
        ),
        (
            "cache {\n serve_stale 1h immediate 4294967296s\n}",
            "3:27: `4294967296s` is out of range (write a duration from 0ns to 4294967295s)",
        ),
        (
            "cache {\n serve_stale 1h verify -1s\n}",
            "3:24: `-1s` is out of range (write a duration that is not negative)",
        ),
        (
            "cache {\n serve_stale 1h verify 1s 1s 301s\n}",
            "3:30: `301s` is out of range (write a duration from 0ns to 300s)",
        ),
        (
            "cache {\n serve_stale 1h verify 1s 1s 1s 1s\n}",
            "3:33: `serve_stale` takes fewer arguments (write `serve_stale [DURATION [immediate [TTL [RECHECK]] | verify [TIMEOUT [TTL [RECHECK]]]]]`)",
        ),
        (
            "cache {\n serve_stale\n serve_stale_policy fresh\n}",
            "4:21: `fresh` is not known here (write `prefer_positive`)",
        ),
        ("cache {\n serve_stale -1h\n}", "3:14: `-1h` is out of range (write a duration that is not negative)"),
        (
            "cache {\n serve_stale_policy prefer_positive\n}",
            "3:2: `serve_stale_policy` needs `serve_stale` (add a line `serve_stale`, or remove this one)",
        ),
        (
            "cache {\n serve_stale\n serve_stale_policy prefer_positive\n serve_stale_policy prefer_positive\n}",
            "5:2: `serve_stale_policy` is given twice (remove one of them)",
        ),
    ]);
}

#[test]
fn cache_errors() {
    bad(&[
        ("cache 0", "2:7: 0 is out of range (write a number from 1 to 9223372036)"),
        (
            "cache 30s",
            "2:7: `30s` is read as a zone, not as a time (a TTL is a whole number of seconds, as in `cache 30`)",
        ),
        (
            "cache a..b",
            "2:7: `a..b` is not a domain name: a label is empty (two dots in a row) (write a name such as `example.org`, or a block such as `10.0.0.0/8`)",
        ),
        ("cache {\n success\n}", "3:2: `success` needs more arguments (write `success CAPACITY [TTL] [MINTTL]`)"),
        ("cache {\n denial 1 0\n}", "3:11: 0 is out of range (write a number from 1 to 9223372036)"),
        ("cache {\n success 1 2 -1\n}", "3:14: -1 is out of range (write a number from 0 to 9223372036)"),
        ("cache {\n success 1 2 3 4\n}", "3:16: what follows here is ignored"),
        (
            "cache {\n prefetch 1 1m 10\n}",
            "3:16: `10` is not a percentage that can be used (write a percentage from `10%` to `90%`, with its sign)",
        ),
        (
            "cache {\n prefetch 1 1m 91%\n}",
            "3:16: `91%` is not a percentage that can be used (write a percentage from `10%` to `90%`, with its sign)",
        ),
        ("cache {\n prefetch 1 60\n}", "3:13: `60` is not a duration (a unit is missing: `60s` is 60 seconds)"),
        ("cache {\n servfail 6m\n}", "3:11: `6m` is out of range (write a duration from 0ns to 300s)"),
        ("cache {\n disable all\n}", "3:10: `all` is not known here (write `success` or `denial`)"),
        ("cache {\n keepttl 5\n}", "3:10: `keepttl` takes no arguments (write `keepttl`)"),
        ("cache {\n prefech 5\n}", "3:2: `cache` has no option `prefech` (did you mean `prefetch`?)"),
        ("cache\ncache", "3:1: `cache` can be used only once in a block (put all of it into one)"),
    ]);
}

#[test]
fn endpoints_and_times() {
    let settings = good(
        "health 169.254.20.10:8080 {\n lameduck 5s\n}\nready\nprometheus :9253\nreload 10s 0\nbufsize\ndebug\nloop\nwhoami",
    );
    let health = settings.health.unwrap();
    assert_eq!((health.address.socket.to_string().as_str(), health.lameduck), ("169.254.20.10:8080", 5 * SECOND));
    assert_eq!(settings.ready.unwrap().address.socket.to_string(), "[::]:8181");
    assert_eq!(settings.ready.unwrap().monitor, ready::Monitor::UntilReady);
    assert_eq!(settings.prometheus.unwrap().address.socket.to_string(), "[::]:9253");
    assert_eq!(settings.reload, Some(reload::Reload { interval: 10 * SECOND, jitter: Duration::ZERO }));
    assert_eq!(settings.bufsize, Some(1232));
    assert!(settings.debug && settings.loop_check && settings.whoami);
    assert_eq!(settings.handlers, ["bufsize", "prometheus", "loop", "whoami"]);

    let later = good("health\nhealth :1\nready 1.2.3.4:1 {\n monitor continuously\n}\nprometheus\nreload 4s");
    assert_eq!(later.health.unwrap().address.socket.port(), 1);
    assert_eq!(later.ready.unwrap().monitor, ready::Monitor::Continuously);
    assert_eq!(later.prometheus.unwrap().address.socket.to_string(), "127.0.0.1:9153");
    assert_eq!(later.reload.unwrap().jitter, 2 * SECOND);

    let timeouts =
        good("timeouts {\n read 5\n write 1m\n}\ntimeouts {\n read 6s\n idle 24h\n maxtcpqueries -1\n}").timeouts;
    assert_eq!(
        timeouts,
        Some(timeouts::Timeouts {
            read: Some(6 * SECOND),
            write: Some(60 * SECOND),
            idle: Some(86_400 * SECOND),
            max_queries: Some(timeouts::MaxQueries::Unlimited),
        })
    );
    bad(&[
        ("health 8080", "2:8: `8080` has no port (write `:8080`, `127.0.0.1:8080` or `[fd00::1]:8080`)"),
        ("health {\n lameduck 5\n}", "3:11: `5` is not a duration (a unit is missing: `5s` is 5 seconds)"),
        ("ready {\n monitor now\n}", "3:10: `now` is not known here (write `until-ready` or `continuously`)"),
        ("ready\nready", "3:1: `ready` can be used only once in a block (put all of it into one)"),
        (
            "prometheus {\n tls x\n}",
            "3:2: metrics over TLS are not offered (remove `tls`; put a proxy in front if the endpoint must be protected)",
        ),
        ("prometheus {\n runtime_metrics\n}", "3:2: `runtime_metrics` does nothing (remove it)"),
        ("pprof :6053 {\n block 1\n}", "2:1: `pprof` does nothing (remove it)"),
        ("reload 1s", "2:8: `1s` is out of range (write a duration of 2s or more)"),
        ("reload 10s 500ms", "2:12: `500ms` is out of range (write a duration of 1s or more)"),
        ("reload 10s 1s 1s", "2:15: `reload` takes fewer arguments (write `reload [INTERVAL [JITTER]]`)"),
        ("reload\nreload 10s", "3:1: only the first `reload` of a block counts (remove one of them)"),
        ("bufsize 100", "2:9: 100 is out of range (write a number from 512 to 4096)"),
        (
            "timeouts",
            "2:1: `timeouts` says nothing (write `read`, `write` or `idle` with a duration on lines between braces)",
        ),
        ("timeouts {\n read 0\n}", "3:7: `0` is out of range (write a duration from 1s to 86400s)"),
        ("timeouts {\n raed 5s\n}", "3:2: `timeouts` has no option `raed` (did you mean `read`?)"),
        ("debug on", "2:7: `debug` takes no arguments (write `debug`)"),
        ("loop {\n}", "2:1: `loop` has no options in braces (remove the braces and what is between them)"),
    ]);
}

#[test]
fn bind_lines() {
    let bind = good("bind 169.254.20.10 10.0.0.10\nbind eth0 {\n except fe80::1 10.1.1.1\n}").bind;
    let texts = |words: &[corefile::Token]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(texts(&bind[0].addresses), ["169.254.20.10", "10.0.0.10"]);
    assert_eq!(
        (texts(&bind[1].addresses), texts(&bind[1].except)),
        (vec!["eth0".into()], vec!["fe80::1".into(), "10.1.1.1".into()])
    );
    bad(&[
        (
            "bind",
            "2:1: `bind` needs an address (write `bind 169.254.20.10`, several addresses, or the name of an interface)",
        ),
        ("bind 1.1.1.1 {\n excpt x\n}", "3:2: `bind` has no option `excpt` (did you mean `except`?)"),
        ("bind 1.1.1.1 {\n except\n}", "3:2: `except` needs more arguments (write `except ADDRESS|INTERFACE...`)"),
    ]);
}

#[test]
fn logs_errors_and_order_of_addresses() {
    let rules = good("log\nlog a b \"{type}\" {\n class denial error\n}\nlog c {\n class all\n}").log;
    assert_eq!(rules.iter().map(|rule| rule.name.to_string()).collect::<Vec<_>>(), [".", "a.", "b.", "c."]);
    assert_eq!(rules[2].format, front::format::Format::compile("{type}"));
    assert!(!rules[1].classes.contain(front::format::ReplyClass::Success) && rules[3].classes == log::Classes::ALL);
    let errors = good("errors stdout {\n consolidate 5m \".* i/o timeout$\" warning show_first\n consolidate 1s x\n}")
        .errors
        .unwrap();
    assert_eq!((errors.consolidate[0].severity, errors.consolidate[0].show_first), (Severity::Warning, true));
    assert_eq!((errors.consolidate[1].severity, errors.consolidate[1].duration), (Severity::Error, SECOND));
    let balance = |text: &str| good(text).loadbalance.unwrap();
    assert_eq!(balance("loadbalance"), Loadbalance::RoundRobin { prefer: vec![] });
    let Loadbalance::RoundRobin { prefer } = balance("loadbalance round_robin {\n prefer 10.0.0.0/8 fd00::/8\n}")
    else {
        panic!("round_robin");
    };
    assert_eq!(prefer.len(), 2);
    let weighted = |reload| Loadbalance::Weighted(Weighted { file: "/w".into(), reload });
    assert_eq!(balance("loadbalance weighted /w"), weighted(30 * SECOND));
    assert_eq!(balance("loadbalance weighted /w {\n reload 0s\n}"), weighted(Duration::ZERO));
    bad(&[
        (
            "log \"{type}\"",
            "2:5: a single argument is a name, not a format (write a name before the format: `log . \"...\"`)",
        ),
        ("log {\n class good\n}", "3:8: `good` is not known here (write `all`, `denial`, `error` or `success`)"),
        (
            "errors stderr",
            "2:8: errors cannot be written to `stderr` (write `errors` or `errors stdout`; both write to standard output)",
        ),
        ("errors {\n stacktrace\n}", "3:2: `stacktrace` does nothing (remove it)"),
        (
            "errors {\n consolidate 5m (\n}",
            "3:17: this is not a regular expression: unclosed group (patterns are RE2 expressions of at most 10000 characters, found anywhere in the message; quote those with spaces)",
        ),
        (
            "errors {\n consolidate 5m x loud\n}",
            "3:19: `loud` is not known here (write `warning`, `error`, `info` or `debug`)",
        ),
        ("loadbalance weighted", "2:1: `loadbalance` needs more arguments (write `loadbalance weighted FILE`)"),
        (
            "loadbalance weighted /w {\n prefer 10.0.0.0/8\n}",
            "3:2: `prefer` belongs to `loadbalance round_robin` (remove it)",
        ),
        ("loadbalance robin", "2:13: `robin` is not known here (write `round_robin` or `weighted`)"),
        (
            "loadbalance {\n prefer 10.0.0.1\n}",
            "3:9: `10.0.0.1` is not an address block (write a block such as `10.0.0.0/8`)",
        ),
    ]);
}

#[test]
fn unknown_directives() {
    let have = "dnslet has timeouts, reload, bufsize, bind, debug, ready, health, pprof, prometheus, errors, log, loadbalance, aaaa, autopath, cache, loop, forward, whoami";
    assert_eq!(read("forwrd . 1\nkubernetes cluster.local\nexample.com:53 {\n errors\n}\nqwertyuiop").1, [
        "2:1: unknown directive `forwrd` (did you mean `forward`?)".to_owned(),
        format!("3:1: `kubernetes` is a CoreDNS plugin that dnslet does not have (remove it; {have})"),
        "4:1: unknown directive `example.com:53` (this looks like the start of another block; is the `}` before it missing?)".to_owned(),
        format!("7:1: unknown directive `qwertyuiop` ({have})"),
    ]);
    for name in ["hosts", "template", "rewrite", "dns64", "dnstap", "trace", "metadata", "acl"] {
        let found = read(name).1;
        assert!(found[0].contains("is a CoreDNS plugin that dnslet does not have"), "{found:?}");
    }
}
