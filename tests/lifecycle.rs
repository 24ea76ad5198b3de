//! Start and stop of the built binary: the command line, refusals to start, signals, exit codes.

use std::net::{TcpListener, UdpSocket};
use std::process::{Command, Output};

use nix::sys::signal::Signal;

use crate::support::address::Address;
use crate::support::agent::{Plan, http_get};
use crate::support::client::Udp;
use crate::support::namespace;
use crate::support::process::{kill, stop};
use crate::support::wire::*;
use crate::support::{Agent, Query, Upstream, time};

/// Runs the program to its end.
fn output(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dnslet")).args(arguments).output().expect("the built binary")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The exit code and everything printed by an agent that does not get as far as serving.
#[track_caller]
fn refusal(plan: Plan) -> (Option<i32>, String) {
    let mut agent = plan.launch();
    let code = agent.wait().code();
    (code, agent.log())
}

#[track_caller]
fn assert_refused(plan: Plan, parts: &[&str]) {
    let (code, log) = refusal(plan);
    assert_eq!(code, Some(1), "{log}");
    for part in parts {
        assert!(log.contains(part), "{part:?} is missing in:\n{log}");
    }
}

#[test]
fn help_groups_every_flag_of_node_cache() {
    let output = output(&["-h"]);
    let help = text(&output.stdout);
    assert!(output.status.success());
    for heading in ["Configuration:", "Kubernetes template and ConfigMap:", "Serving:", "Metrics, logs and process:"] {
        assert!(help.lines().any(|line| line == heading), "{heading} is missing in:\n{help}");
    }
    for flag in [
        "localip",
        "conf",
        "corefile",
        "basecorefile",
        "kubednscm",
        "upstreamsvc",
        "setupinterface",
        "interfacename",
        "setupiptables",
        "skipteardown",
        "syncinterval",
        "metrics-listen-address",
        "prometheus-listen-address",
        "health-port",
        "reloadwithsignal",
        "dns.port",
        "pidfile",
        "quiet",
        "version",
        "plugins",
    ] {
        assert!(help.contains(&format!(" -{flag} ")), "-{flag} is missing in:\n{help}");
    }
}

#[test]
fn version_and_plugins_do_nothing_else() {
    let version = output(&["-version", "-conf", "/nonexistent"]);
    assert!(version.status.success());
    assert!(text(&version.stdout).starts_with("dnslet-"), "{version:?}");
    let plugins = output(&["--plugins"]);
    assert!(plugins.status.success());
    let names = text(&plugins.stdout);
    for name in ["bind", "cache", "forward", "loop", "prometheus", "reload", "whoami"] {
        assert!(names.lines().any(|line| line.trim() == format!("dns.{name}")), "{name} is missing in:\n{names}");
    }
}

#[test]
fn a_misspelt_flag_names_the_nearest_and_stray_words_are_refused() {
    for (arguments, part) in [
        (&["-locallip", "127.0.0.1"][..], "the nearest one is -localip"),
        (&["-conf"], "-conf needs a value"),
        (&["Corefile"], "extra command line argument \"Corefile\""),
        (&["-syncinterval=often"], "for example 60, 60s or 1m"),
        (&["-localip", "127.0.0.1"], "there is no Corefile"),
    ] {
        let output = output(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(text(&output.stderr).contains(part), "{arguments:?}: {}", text(&output.stderr));
    }
}

#[test]
fn check_prints_every_fault_or_ok() {
    let plan = Agent::plan();
    let good = plan.directory().write("good", ". {\n    forward . 192.0.2.1\n}\n");
    let ok = output(&["check", "-conf", &good.display().to_string()]);
    assert_eq!((ok.status.code(), text(&ok.stdout).trim()), (Some(0), "ok"), "{}", text(&ok.stderr));
    let bad = plan
        .directory()
        .write("bad", ".:53 {\n    forwad . 192.0.2.1\n    cache nonsense {\n        succes 1\n    }\n}\n");
    let output = output(&["check", "-conf", &bad.display().to_string()]);
    let printed = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    for part in ["forwad", "`forward`", "succes", "bad:2", "2 errors"] {
        assert!(printed.contains(part), "{part:?} is missing in:\n{printed}");
    }
}

#[test]
fn the_corefile_can_come_from_standard_input() {
    let plan = Agent::plan();
    let file = plan.directory().write("text", "a.test {\n    whoami\n    nonsense\n}\n");
    let mut command = Command::new(env!("CARGO_BIN_EXE_dnslet"));
    let command = command.args(["check", "-conf", "stdin"]).stdin(std::fs::File::open(file).unwrap());
    let output = command.output().expect("the built binary");
    assert!(text(&output.stdout).contains("`nonsense`"), "{output:?}");
}

#[test]
fn a_bad_corefile_stops_the_start_with_every_fault() {
    assert_refused(
        Agent::plan().corefile(".:5300 {\n    forwad . 192.0.2.1\n    bufsize 1\n}\n"),
        &["forwad", "bufsize", "Corefile:2"],
    );
    assert_refused(
        Agent::plan().corefile(". {\n    forward . /nonexistent/resolv.conf\n}\n"),
        &["/nonexistent/resolv.conf"],
    );
}

#[test]
fn what_does_nothing_is_pointed_out_at_the_start() {
    let agent = Agent::root("whoami\n    pprof");
    let log = agent.log();
    let line = log.lines().find(|line| line.contains("`pprof` does nothing"));
    assert!(line.is_some_and(|line| line.starts_with("[WARNING] ") && line.contains("Corefile:")), "{log}");
}

#[test]
fn a_missing_corefile_names_the_file() {
    let output = output(&["-conf", "/nonexistent/Corefile"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot read /nonexistent/Corefile: No such file"), "{output:?}");
}

#[test]
fn a_port_in_use_names_who_holds_it() {
    let plan = Agent::plan();
    let holder = UdpSocket::bind((plan.ip(), 5300)).unwrap();
    let pid = std::process::id();
    assert_refused(plan.root("whoami"), &["in use", &holder.local_addr().unwrap().to_string(), &format!("pid {pid}")]);
    let plan = Agent::plan();
    let _holder = TcpListener::bind((plan.ip(), 5300)).unwrap();
    assert_refused(plan.root("whoami"), &["in use", &format!("pid {pid}")]);
}

#[test]
fn a_port_that_can_be_shared_is_shared_with_a_warning() {
    let plan = Agent::plan();
    let text = plan.block(".", "whoami");
    let first = plan.corefile(&text).start();
    let mut second = Agent::plan().corefile(&text).launch();
    second.wait_for_log(&format!("{} is served by dnslet (pid {}) too", first.dns(), first.pid()));
}

#[test]
fn no_usable_upstream_stops_the_start() {
    let plan = Agent::plan();
    let empty = plan.directory().write("resolv.conf", "search corp.test\n");
    assert_refused(plan.root(&format!("forward . {}", empty.display())), &["no nameservers found in"]);
    let plan = Agent::plan();
    let ourselves = plan.directory().write("resolv.conf", &format!("nameserver {}:5300\n", plan.ip()));
    assert_refused(plan.root(&format!("forward . {}", ourselves.display())), &["where this agent itself listens"]);
}

#[test]
fn a_missing_service_address_names_its_variable() {
    let plan = Agent::plan();
    let base = plan.directory().write("Corefile.base", ". {\n    forward . __PILLAR__CLUSTER__DNS__\n}\n");
    let plan = plan.arguments(&["-basecorefile", &base.display().to_string(), "-upstreamsvc", "kube-dns-upstream"]);
    assert_refused(plan, &["KUBE_DNS_UPSTREAM_SERVICE_HOST is not set"]);
}

#[test]
fn start_lists_the_zones_unless_told_not_to() {
    let plan = Agent::plan();
    let ip = plan.ip().to_string();
    let mut agent = plan.root("whoami").start();
    agent.wait_for_log("dnslet-");
    assert!(agent.log().contains(&format!(".:5300 on {ip}")), "{}", agent.log());
    let mut agent = Agent::plan().root("whoami").arguments(&["-quiet"]).start();
    agent.wait_for_log("dnslet-");
    assert!(!agent.log().contains(":5300 on"), "{}", agent.log());
}

#[test]
fn the_server_has_no_privileges_and_a_dead_one_is_replaced_on_the_same_sockets() {
    let agent = Agent::root("whoami");
    let (first, client) = (agent.server(), agent.udp());
    let status = std::fs::read_to_string(format!("/proc/{first}/status")).expect("the server runs");
    for line in ["CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1"] {
        assert!(status.contains(line), "{line} in:\n{status}");
    }
    kill(first, Signal::SIGKILL);
    client.ask(&Query::new("still.here.test.", A));
    assert_ne!(agent.server(), first);
    assert!(agent.log().contains("the server ended (signal: 9 (SIGKILL))"), "{}", agent.log());
    wait_for_restart(&agent, "died");
}

/// The keeper tells the next server what happened to the one before.
#[track_caller]
fn wait_for_restart(agent: &Agent, reason: &str) {
    let restarts = || agent.metric("dnslet_server_restarts_total", &[("reason", reason)]);
    time::until("the restart in the metrics", || (restarts() == 1.0).then_some(()));
}

#[test]
fn an_address_that_came_later_is_not_called_missing_again() {
    if !namespace::entered("lifecycle::an_address_that_came_later_is_not_called_missing_again") {
        return;
    }
    let plan = Agent::plan();
    let more = "a.test:5300 {\n    bind 192.0.2.77\n    whoami\n}\n";
    let text = plan.block(".", "whoami") + more;
    let agent = plan.corefile(&text).start();
    let lines = |part| agent.log().matches(part).count();
    assert_eq!(lines("no interface has 192.0.2.77:5300 yet"), 1, "{}", agent.log());
    namespace::add_address("192.0.2.77/32");
    kill(agent.server(), Signal::SIGKILL);
    time::until("the next server", || (lines("Running configuration") == 2).then_some(()));
    assert_eq!(lines("no interface has 192.0.2.77:5300 yet"), 1, "{}", agent.log());
}

#[test]
fn a_silent_server_is_ended_and_replaced() {
    let plan = Agent::plan();
    let health = format!("health {}:8080", plan.ip());
    let agent = plan.root(&format!("whoami\n    {health}")).start();
    let probed = || agent.metrics().contains("dnslet_listener_up{").then_some(());
    time::until("the first probe", probed);
    let first = agent.server();
    stop(first);
    let client = agent.udp();
    client.send(&Query::new("waits.test.", A).bytes());
    assert!(client.receive(time::PATIENCE).is_some(), "the next server answers what waited");
    assert_ne!(agent.server(), first);
    wait_for_restart(&agent, "wedged");
    assert_eq!(agent.metric("dnslet_server_restarts_total", &[("reason", "died")]), 0.0, "one cause is counted once");
}

#[test]
fn the_server_ends_with_its_keeper() {
    let mut agent = Agent::root("whoami");
    let server = agent.server();
    agent.signal(Signal::SIGKILL);
    agent.wait();
    time::until("the server's end", || (!std::path::Path::new(&format!("/proc/{server}")).exists()).then_some(()));
}

#[test]
fn a_server_that_was_not_replied_to_makes_way_for_one_that_is() {
    let mut agent = Agent::root("whoami");
    let server = agent.server();
    agent.signal(Signal::SIGSTOP);
    kill(server, Signal::SIGHUP);
    agent.wait_for_log("the line to the keeper is broken");
    agent.signal(Signal::SIGCONT);
    time::until("another server", || (agent.server() != server).then_some(()));
    agent.ask_a("still.here.test.");
}

#[test]
fn a_restarted_server_reads_standard_input_again() {
    let plan = Agent::plan();
    let text = plan.directory().write("text", &plan.block(".", "whoami"));
    let mut agent = plan.launch_with_stdin(&text);
    let dns = agent.dns();
    agent.wait_until_serving(dns);
    kill(agent.server(), Signal::SIGKILL);
    agent.ask_a("still.here.test.");
}

#[test]
fn one_address_in_use_does_not_stop_the_others() {
    let plan = Agent::plan();
    let taken = Address::fresh();
    let holder = UdpSocket::bind((taken.ip(), 5300)).unwrap();
    let corefile = plan.block(".", &format!("bind {}\n    whoami", taken.ip()));
    let mut agent = plan.corefile(&corefile).start();
    agent.wait_for_log("the other addresses are served");
    drop(holder);
    agent.wait_for_log("an address that was in use is free and served");
    Udp::to((taken.ip(), 5300).into()).ask(&Query::new("there.test.", A));
}

#[test]
fn json_logs_are_one_object_a_line() {
    let mut agent = Agent::plan().root("whoami").arguments(&["-log-format", "json"]).start();
    agent.wait_for_log("SHA512");
    let log = agent.log();
    assert!(log.lines().all(|line| line.starts_with('{') && line.ends_with('}')), "{log}");
}

#[test]
fn terminate_drains_and_exits_0_without_its_pidfile() {
    let (plan, up) = (Agent::plan(), Upstream::start());
    let pidfile = plan.directory().path().join("pid");
    let arguments = ["-pidfile", &pidfile.display().to_string()];
    let mut agent = plan.root(&format!("forward . {}", up.address())).arguments(&arguments).start();
    let written = time::until("the pidfile", || std::fs::read_to_string(&pidfile).ok().filter(|text| !text.is_empty()));
    assert_eq!(written, format!("{}\n", agent.pid()));
    let client = agent.udp();
    let query = Query::new("slow-300.stop.test.", A);
    client.send(&query.bytes());
    up.wait_for("slow-300.stop.test.", 1);
    agent.signal(Signal::SIGTERM);
    assert!(client.receive(time::PATIENCE).is_some(), "a query in progress is answered");
    assert_eq!(agent.wait().code(), Some(0), "{}", agent.log());
    assert!(!pidfile.exists());
    assert!(agent.log().contains("SIGTERM: Shutting down servers then terminating"), "{}", agent.log());
}

#[test]
fn lameduck_answers_on_and_a_second_interrupt_leaves_at_once() {
    let plan = Agent::plan();
    let health = format!("health {}:8080 {{\n lameduck 1h\n}}", plan.ip());
    let mut agent = plan.root(&format!("whoami\n{health}")).start();
    agent.signal(Signal::SIGINT);
    agent.wait_for_log("Going into lameduck mode for 1h0m0s");
    agent.ask_a("still.here.test.");
    assert_eq!(http_get((agent.ip(), 8080).into(), "/health").expect("health answers on").0, 200);
    agent.signal(Signal::SIGINT);
    assert_eq!(agent.wait().code(), Some(2), "{}", agent.log());
}

#[test]
fn quit_leaves_at_once_with_0() {
    let mut agent = Agent::root("whoami");
    agent.signal(Signal::SIGQUIT);
    assert_eq!(agent.wait().code(), Some(0));
}

#[test]
fn an_upgrade_signal_does_not_end_the_process() {
    let mut agent = Agent::root("whoami");
    agent.signal(Signal::SIGUSR2);
    agent.wait_for_log("SIGUSR2");
    agent.ask_a("still.here.test.");
}

#[test]
fn an_upstream_that_is_ourselves_stops_the_start() {
    let plan = Agent::plan();
    let own = format!("forward . {}:5300", plan.ip());
    assert_refused(plan.root(&own), &["this upstream is this server itself"]);
}

/// Two agents that forward to each other; the first looks for loops.
fn circle(arguments: &[&str]) -> (Agent, Agent) {
    let (first, second) = (Agent::plan(), Agent::plan());
    let forward = |to: &Plan| format!("forward . {}:5300", to.ip());
    let (out, back) = (forward(&second), forward(&first));
    let second = second.root(&back).start();
    (first.root(&format!("loop\n    {out}")).arguments(arguments).launch(), second)
}

#[test]
fn a_forwarding_loop_is_logged_and_answered_with_servfail() {
    let (mut agent, _other) = circle(&[]);
    agent.wait_for_log("plugin/loop: Loop");
    let reply = agent.ask(&Query::new("x.test.", A).edns(1232));
    assert_eq!(reply.rcode, SERVFAIL);
    assert!(!reply.errors().is_empty(), "an extended error says why");
    assert_eq!(agent.log().matches("plugin/loop: Loop").count(), 1, "{}", agent.log());
    assert_eq!(agent.metric("dnslet_forwarding_loops_total", &[]), 1.0);
    agent.check_alive();
}

#[test]
fn a_forwarding_loop_ends_the_process_only_when_asked() {
    let (mut agent, _other) = circle(&["-exit-on-loop"]);
    assert_eq!(agent.wait().code(), Some(1));
    assert!(agent.log().contains("plugin/loop: Loop"), "{}", agent.log());
}
