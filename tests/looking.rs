//! `dnslet status` and `dnslet top`, as an operator sees them.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use nix::sys::signal::Signal;

use crate::support::Agent;
use crate::support::process::{Directory, Process};
use crate::support::program::{assert_has, dnslet};

/// Answers every connection with these octets, and then does nothing more for as long as it is held, or hangs up.
fn endpoint(octets: impl Fn(usize) -> Vec<u8> + Send + 'static, hold: bool) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("a bound socket");
    let count = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&count);
    thread::spawn(move || {
        let mut held = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let number = counting.fetch_add(1, Ordering::SeqCst);
            // The asker may have gone.
            let _ = stream.read(&mut [0; 512]);
            let _ = stream.write_all(&octets(number));
            if hold {
                held.push(stream);
            }
        }
    });
    (address, count)
}

fn page(samples: &str) -> Vec<u8> {
    format!("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n{samples}").into_bytes()
}

#[test]
fn status_tells_what_was_asked_and_how_things_stand() {
    let (agent, up) = Agent::beside_upstream("cache 30\n forward . {once}");
    let (metrics, to) = (agent.metrics_address().to_string(), up.address().to_string());
    for name in ["ttl300.status.test.", "ttl300.status.test.", "nx-60-60.status.test.", "servfail.status.test."] {
        agent.ask_a(name);
    }
    let (code, screen, complaint) = dnslet(&["status", "-metrics-listen-address", &metrics]);
    assert_eq!((code, complaint.as_str()), (Some(0), ""), "{screen}");
    assert_has(
        &screen,
        &[
            &format!("dnslet {}, metrics at {metrics}, up ", env!("CARGO_PKG_VERSION")),
            "\nqueries      4, 25.0 % of lookups answered from the cache\n",
            "NOERROR 2, ",
            "NXDOMAIN 1, SERVFAIL 1\n",
            "\nupstream     3 queries, 0.75 for each query of a client\n",
            &format!("\nupstreams    {to} up, "),
            "\nflights      0 of ",
            "\nmemory       cache 0.0 MiB of ",
            "\nready        yes, configuration on disk valid\n",
        ],
    );
    assert!(!screen.contains("walks") && !screen.contains("node "), "nothing of what is not in use:\n{screen}");
    assert_eq!(agent.metric("dnslet_upstream_queries_total", &[("to", &to)]), 3.0);
}

#[test]
fn status_finds_the_endpoint_that_the_corefile_names() {
    let agent = Agent::root("whoami");
    let corefile = agent.directory.path().join("Corefile");
    let (code, screen, complaint) = dnslet(&["status", "-conf", corefile.to_str().expect("a path of letters")]);
    assert_eq!(code, Some(0), "{complaint}");
    assert_has(&screen, &[&format!("metrics at {}, up ", agent.metrics_address())]);
}

#[test]
fn top_prints_a_line_for_each_interval() {
    let (agent, _up) = Agent::beside_upstream("cache 30\n forward . {once}");
    let metrics = agent.metrics_address().to_string();
    let flags = ["top", "-n", "2", "-interval", "200ms", "-metrics-listen-address", &metrics];
    let (code, lines, complaint) = dnslet(&flags);
    assert_eq!((code, complaint.as_str()), (Some(0), ""), "{lines}");
    assert_eq!(lines.lines().count(), 2, "{lines}");
    for line in lines.lines() {
        assert_has(line, &["queries 0.0/s, hits -, upstream 0.0/s (- a query), saved 0.0/s, p50 -, p99 -, "]);
    }
    assert!(!lines.contains('\x1b'), "a file is no terminal: {lines:?}");
}

#[test]
fn top_goes_on_over_a_restart_and_an_agent_that_is_gone() {
    let at = |start: u32, queries: u32| {
        page(&format!(
            "dnslet_workers 1\nprocess_start_time_seconds {start}\n\
             coredns_dns_requests_total{{server=\"s\",planet=\"x\"}} {queries}\nnonsense{{ 5\n"
        ))
    };
    let pages = move |number: usize| match number {
        0 => at(100, 1000),
        1 => at(100, 1000),
        2 => at(200, 0),
        3 => b"HTTP/1.0 503 Service Unavailable\r\n\r\n".to_vec(),
        _ => at(200, 1_000_000),
    };
    let (address, _) = endpoint(pages, false);
    let flags = ["top", "-n", "4", "-interval", "100ms", "-metrics-listen-address", &address.to_string()];
    let (code, lines, complaint) = dnslet(&flags);
    assert_eq!(code, Some(0), "{complaint}");
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines[0].starts_with("queries 0.0/s, ") && !lines[0].ends_with("started anew"), "{lines:?}");
    assert!(lines[1].starts_with("queries 0.0/s, ") && lines[1].ends_with("started anew"), "{lines:?}");
    let gone = format!("{address}: no agent answers there: \"HTTP/1.0 503 Service Unavailable\"");
    assert_eq!(lines[2], gone);
    assert!(!lines[3].starts_with("queries 0.0/s, "), "{lines:?}");
}

/// `top` of this agent for as long as nobody ends it: alone, or inside this shell line, where it is `"$@"`. Whoever started
/// the tests may ignore interrupts, and programs inherit that.
fn endless_top(agent: &Agent, shell: Option<&str>) -> Process {
    let mut command = Command::new("env");
    command.args(["--default-signal=INT"]);
    if let Some(line) = shell {
        command.args(["sh", "-c", line, "sh"]);
    }
    command.args([env!("CARGO_BIN_EXE_dnslet"), "top", "-interval", "100ms", "-metrics-listen-address"]);
    command.arg(agent.metrics_address().to_string());
    Process::start("dnslet top", command, Directory::new())
}

#[test]
fn top_ends_when_nobody_reads_any_more() {
    let agent = Agent::root("whoami");
    let mut top = endless_top(&agent, Some("{ \"$@\"; echo \"ended with $?\" >&2; } | head -n 1"));
    top.wait();
    assert_has(&top.log(), &["queries ", "ended with 0\n"]);
}

#[test]
fn top_ends_when_it_is_told_to() {
    let agent = Agent::root("whoami");
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut top = endless_top(&agent, None);
        top.wait_for_log("queries ");
        top.signal(signal);
        let status = top.wait();
        assert_eq!(status.signal(), Some(signal as i32), "{status}");
    }
}

#[test]
fn what_is_no_agent_is_told_in_a_sentence() {
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("a bound socket");
    let (nonsense, _) = endpoint(|_| vec![b'x'; 100], false);
    let (other, _) = endpoint(|_| page("go_goroutines 5\n"), false);
    let (missing, _) = endpoint(|_| b"HTTP/1.1 404 Not Found\r\n\r\n".to_vec(), false);
    let (silent, _) = endpoint(|_| Vec::new(), true);
    let (unfinished, _) = endpoint(|_| page("dnslet_workers 1\n"), true);
    let (endless, _) = endpoint(|_| page(&"a 1\n".repeat(5 << 20)), false);
    for (address, why) in [
        (nobody, "nobody listens there"),
        (nonsense, "no agent answers there: \"xxxxxxxx"),
        (other, "no agent answers there: there is no dnslet_workers"),
        (missing, "no agent answers there: \"HTTP/1.1 404 Not Found\""),
        (silent, "no whole answer within 2 s"),
        (unfinished, "no whole answer within 2 s"),
        (endless, "no agent answers there: more than 16 MiB"),
    ] {
        for command in ["status", "top"] {
            let (code, said, complaint) = dnslet(&[command, "-metrics-listen-address", &address.to_string()]);
            assert_eq!((code, said.as_str()), (Some(1), ""), "{command} {why}");
            assert_has(&complaint, &[&format!("dnslet: no agent shows its numbers; {address}: {why}")]);
        }
    }
}

/// Whoever answers at the endpoint does not get at the terminal.
#[test]
fn what_an_endpoint_says_is_shown_and_not_obeyed() {
    let escape = "\x1b]0;owned\x07\x1b[2J";
    let samples = format!(
        "dnslet_workers 1\ncoredns_build_info{{version=\"{escape}\"}} 1\ndnslet_upstream_up{{to=\"{escape}\\n{}\"}} 1\n\
         coredns_dns_requests_total 1e308\ncoredns_dns_responses_total{{rcode=\"\u{9b}5m\"}} 1e308\n\
         dnslet_flights -7\ndnslet_misses_in_flight -1e308\nprocess_start_time_seconds -1e308\n\
         dnslet_upstream_rtt_seconds{{to=\"{escape}\"}} 1e308\ndnslet_cache_bytes 1e308\n",
        "x".repeat(1 << 20)
    );
    let (address, _) = endpoint(move |_| page(&samples), false);
    let address = address.to_string();
    for arguments in [&["status"][..], &["top", "-n", "1", "-interval", "100ms"]] {
        let (code, screen, _) = dnslet(&[arguments, &["-metrics-listen-address", &address]].concat());
        assert_eq!(code, Some(0), "{screen:?}");
        assert!(!screen.contains(|c: char| c.is_control() && c != '\n'), "{screen:?}");
        assert!(screen.lines().all(|line| line.chars().count() < 150), "{screen}");
        assert!(!screen.contains("-7") && !screen.contains("inf") && !screen.contains("NaN"), "{screen}");
    }
    let (_, screen, _) = dnslet(&["status", "-metrics-listen-address", &address]);
    assert_has(&screen, &["dnslet \\u{1b}]0;owned\\u{7}", "\nflights      0 of -, queries waiting 0 of -\n"]);
}

#[test]
fn flags_of_top_are_its_own() {
    for (arguments, part) in [
        (&["top", "-n", "0"][..], "'0' for '-n <COUNT>'"),
        (&["top", "-interval", "1ms"], "at least 100ms"),
        (&["top", "-intervall", "1s"], "the nearest one is -interval "),
        (&["status", "-n", "2"], "unknown flag -n"),
        (&["top", "now"], "extra command line argument \"now\""),
        (&["status", "-metrics-listen-address="], "say where the metrics of the agent are"),
    ] {
        let (code, said, complaint) = dnslet(arguments);
        assert_eq!((code, said.as_str()), (Some(1), ""), "{arguments:?}");
        assert_has(&complaint, &[part]);
    }
    assert_has(&dnslet(&["top", "-h"]).1, &["dnslet top [flags]", "-n <COUNT>", "-interval <DURATION>"]);
    let usage = dnslet(&["-h"]).1;
    assert_has(&usage, &["dnslet status [flags]", "dnslet top [flags]"]);
    assert!(!usage.contains("-interval <"), "it is no flag of a start");
}

#[test]
fn what_cannot_be_written_is_a_failure_unless_nobody_reads() {
    let agent = Agent::root("whoami");
    let (metrics, directory) = (agent.metrics_address().to_string(), &agent.directory);
    let corefile = directory.path().join("Corefile").display().to_string();
    let bad = directory.write("bad", ". {\n nonsense\n}\n").display().to_string();
    let run = |output: Stdio, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dnslet"));
        command.args(arguments).stdout(output).stderr(Stdio::piped());
        let output = command.spawn().and_then(Child::wait_with_output).expect("the built binary");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    };
    let healthy = ["-metrics-listen-address", metrics.as_str()];
    for (arguments, code) in [
        (&[&["status"], &healthy[..]].concat()[..], 0),
        (&[&["top", "-n", "1", "-interval", "100ms"], &healthy[..]].concat(), 0),
        (&["explain", "www.example.org.", "-ns", "shop", "-conf", &corefile], 0),
        (&["check", "-conf", &corefile], 0),
        (&["check", "-conf", &bad], 1),
        (&["doctor", "-localip", "192.0.2.1"], 1),
        (&["-h"], 0),
        (&["-plugins"], 0),
    ] {
        let full = File::options().write(true).open("/dev/full").expect("a device that takes nothing");
        let (lost, complaint) = run(full.into(), arguments);
        assert_eq!(lost, Some(1), "{arguments:?}: {complaint}");
        assert_has(&complaint, &["dnslet: what was asked cannot be written: No space left on device"]);
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let (gone, complaint) = run(writer.into(), arguments);
        assert_eq!(gone, Some(code), "{arguments:?}: {complaint}");
        assert!(!complaint.contains("cannot be written"), "{arguments:?}: {complaint}");
    }
}
