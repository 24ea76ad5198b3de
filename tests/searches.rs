//! The search lists of `autopath`: where they come from, what is said about them, and that an edit is used.

use crate::support::process::Directory;
use crate::support::program::{assert_has, dnslet};
use crate::support::wire::{CNAME, NOERROR};
use crate::support::{Agent, Upstream};

/// An agent whose search list is a file with this text.
fn with_list(text: &str) -> (Agent, Upstream) {
    let (plan, up) = (Agent::plan(), Upstream::start());
    plan.directory().write("stub.conf", text);
    let lines = format!("cache\n    autopath ./stub.conf\n    forward . {}", up.address());
    (plan.root(&lines).start(), up)
}

#[track_caller]
fn refused_for(list: Option<&str>, reason: &str) {
    let plan = Agent::plan().root("cache\n    autopath ./stub.conf\n    whoami");
    if let Some(text) = list {
        plan.directory().write("stub.conf", text);
    }
    let mut agent = plan.launch();
    assert_eq!(agent.wait().code(), Some(1));
    let log = agent.log();
    assert!(log.contains(reason), "{log}");
}

#[test]
fn a_list_that_is_named_must_be_there_at_start() {
    refused_for(None, "cannot read the search list in ./stub.conf: No such file");
    refused_for(
        Some("nameserver 192.0.2.1\n"),
        "no search list in ./stub.conf: autopath needs a line `search DOMAIN...`",
    );
    refused_for(Some("search a..b\n"), "no search list in ./stub.conf");
}

#[test]
fn an_edited_list_is_used_and_one_that_is_broken_is_not() {
    let plan = Agent::plan();
    plan.directory().write("stub.conf", "search a.test b.test\n");
    plan.directory().write("other.conf", "search a.test\n");
    let block = |zone, file| plan.block(zone, &format!("cache\n    autopath ./{file}\n    whoami"));
    let corefile = block(".", "stub.conf") + &block("a.test", "other.conf");
    let mut agent = plan.corefile(&corefile).start();
    agent.directory.write("stub.conf", "nameserver 192.0.2.1\n");
    agent.wait_for_log("no search list in ./stub.conf");
    agent.directory.write("stub.conf", "# nothing but a remark\n");
    // All files are read together: the news of this one shows that the other was read again.
    agent.directory.write("other.conf", "search b.a.test\n");
    agent.wait_for_log("the search list is now that of ./other.conf: b.a.test.");
    agent.directory.write("stub.conf", "search c.test d..test B.test\n");
    agent.wait_for_log("the search list is now that of ./stub.conf: c.test. b.test.");
    agent.wait_for_log("of the search list in ./stub.conf is left out: `d..test`");
    let log = agent.log();
    assert_eq!(log.matches("[ERROR] plugin/autopath: no search list in ./stub.conf").count(), 1, "told once: {log}");
    std::fs::remove_file(agent.directory.path().join("stub.conf")).unwrap();
    agent.wait_for_log("cannot read the search list in ./stub.conf");
    agent.directory.write("stub.conf", "domain e.test\n");
    agent.wait_for_log("the search list is now that of ./stub.conf: e.test.");
    let log = agent.log();
    assert!(!log.contains("Reloading"), "the Corefile did not change: {log}");
}

/// `x.a.test` does not exist, and no other is missing: the first reply leads to the second name of the list.
#[test]
fn a_walk_follows_the_list_of_the_file() {
    let (mut agent, up) = with_list("search a.test b.test\n");
    up.change("ttl300.a.test.", "nx-300-300");
    let led_to = |agent: &Agent| {
        let reply = agent.ask_a("ttl300.a.test.");
        assert_eq!((reply.rcode, reply.answers[0].kind), (NOERROR, CNAME));
        reply.answers[1].name.clone()
    };
    assert_eq!(led_to(&agent), "ttl300.b.test.");
    agent.directory.write("stub.conf", "search a.test c.test b.test\n");
    agent.wait_for_log("the search list is now that of ./stub.conf: a.test. c.test. b.test.");
    assert_eq!(led_to(&agent), "ttl300.c.test.", "what was kept for the old list is not used");
    agent.directory.write("stub.conf", "search\n");
    agent.wait_for_log("no search list in ./stub.conf");
    assert_eq!(led_to(&agent), "ttl300.c.test.");
    agent.directory.write("stub.conf", "search a.test\n");
    agent.wait_for_log("the search list is now that of ./stub.conf: a.test.\n");
    assert_eq!(led_to(&agent), "ttl300.", "the last name is the one without a suffix");
    assert_eq!(agent.ask_a("ttl300.z.test.").answers.len(), 1, "other names are not walked");
    assert_eq!(up.count("ttl300.a.test."), 1);
}

/// A reload with a list that cannot be used changes nothing.
#[test]
fn a_reload_without_its_list_is_refused() {
    let (mut agent, up) = with_list("search a.test\n");
    let corefile = agent.directory.path().join("Corefile");
    let text = std::fs::read_to_string(&corefile).unwrap();
    agent.directory.write("Corefile", &text.replace("./stub.conf", "./missing.conf"));
    agent.signal(nix::sys::signal::Signal::SIGHUP);
    agent.wait_for_log("Restart failed: cannot read the search list in ./missing.conf");
    agent.ask_a("ttl300.still.test.");
    assert_eq!(up.count("ttl300.still.test."), 1, "the old configuration serves");
}

/// What a start refuses is a warning of `check`: the file may be there where the agent runs.
#[test]
fn check_tells_of_files_that_a_start_would_miss() {
    let directory = Directory::new();
    let lines = "cache\n autopath a.test /nonexistent/stub.conf\n forward . /nonexistent/resolv.conf";
    let corefile = directory.write("Corefile", &format!(". {{\n {lines}\n}}\n"));
    let (code, said, complaints) = dnslet(&["check", "-conf", &corefile.display().to_string()]);
    assert_eq!((code, said.trim()), (Some(0), "ok"), "{complaints}");
    assert_has(
        &complaints,
        &[
            "warning: cannot read /nonexistent/resolv.conf: No such file",
            "warning: cannot read the search list in /nonexistent/stub.conf: No such file",
        ],
    );
}

#[test]
fn check_refuses_upstreams_that_are_the_agent_itself_as_a_start_does() {
    let directory = Directory::new();
    let upstreams = directory.write("resolv.conf", "nameserver 127.0.0.9\n");
    let corefile = format!(". {{\n bind 127.0.0.9\n forward . {}\n}}\n", upstreams.display());
    let corefile = directory.write("Corefile", &corefile);
    let (code, said, complaints) = dnslet(&["check", "-conf", &corefile.display().to_string()]);
    assert_eq!((code, said.trim()), (Some(1), ""), "{complaints}");
    assert_has(
        &complaints,
        &["names 127.0.0.9:53, where this agent itself listens, and nobody else: queries would go in circles"],
    );
}
