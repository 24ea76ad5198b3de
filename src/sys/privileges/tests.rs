use super::super::process::figures;
use super::super::testing::alone;
use super::*;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

/// What follows a label in the status of this thread.
fn status(label: &str) -> String {
    let text = fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(label)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{label} in {text}")).trim().to_owned()
}

fn parent() -> u32 {
    u32::try_from(getppid().as_raw()).unwrap()
}

/// Nothing is left, and nothing comes back.
fn assert_powerless() {
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status(set), "0000000000000000", "{set}");
    }
    assert_eq!(status("NoNewPrivs"), "1");
    assert_eq!(prctl::get_pdeathsig().unwrap(), Some(Signal::SIGKILL));
    // Of this thread only: the C library would ask the test's other thread, which has given up nothing, to do the same.
    // SAFETY: numbers, and a list of one group that outlives the call.
    let (groups, root) = unsafe {
        let groups: [libc::gid_t; 1] = [1];
        let groups = Errno::result(libc::syscall(libc::SYS_setgroups, 1, groups.as_ptr()));
        (groups, Errno::result(libc::syscall(libc::SYS_setresuid, 0, 0, 0)))
    };
    assert_eq!(groups, Err(Errno::EPERM));
    assert_eq!(root.is_ok(), Uid::current().is_root());
}

/// The user namespace has every number and the process may take any of them.
fn may_be_anybody() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap();
    Uid::effective().is_root() && map.split_whitespace().last().is_some_and(|count| count == "4294967295")
}

#[test]
fn nothing_is_left() {
    if !alone("sys::privileges::tests::nothing_is_left", &[]) {
        return;
    }
    let (before, anybody) = ((Uid::current().as_raw(), Gid::current().as_raw()), may_be_anybody());
    let dropped = drop(Some((65532, 65533)), parent()).unwrap();
    let (ids, stayed) = if anybody { ((65532, 65533), None) } else { (before, Some(Stayed::OutOfReach)) };
    assert_eq!(dropped, Dropped { ids, stayed, bounded: anybody });
    assert_powerless();
    if anybody {
        assert_eq!(status("Uid"), "65532\t65532\t65532\t65532");
        assert_eq!(status("Gid"), "65533\t65533\t65533\t65533");
        assert_eq!((status("Groups"), status("CapBnd")), (String::new(), "0000000000000000".to_owned()));
        assert!(!prctl::get_dumpable().unwrap());
        assert_eq!(dropped.to_string(), "uid 65532, gid 65533, no capabilities");
    }
    // What the metrics show of this process does not suffer.
    let figures = figures();
    for figure in [figures.open_fds, figures.max_fds, figures.resident_bytes, figures.threads, figures.network_sent] {
        assert!(figure.is_some(), "{figures:?}");
    }
    assert!(figures.cpu_seconds.is_some() && figures.start_seconds.is_some(), "{figures:?}");
}

#[test]
fn root_of_a_namespace_with_one_user_stays_who_it_is() {
    let test = "sys::privileges::tests::root_of_a_namespace_with_one_user_stays_who_it_is";
    if !alone(test, &["unshare", "--map-root-user"]) {
        return;
    }
    let dropped = drop(Some((65532, 65532)), parent()).unwrap();
    let why = dropped.stayed.expect("no other user is there");
    assert_eq!((dropped.ids, dropped.bounded), ((0, 0), true));
    assert!(dropped.to_string().ends_with(&format!("(-user is without effect: {why})")), "{dropped}");
    assert_eq!(status("CapBnd"), "0000000000000000");
    assert_powerless();
}

#[test]
fn a_child_that_its_parent_could_not_end_stays_who_it_is() {
    let without_kill = ["unshare", "--map-root-user", "setpriv", "--bounding-set", "-kill"];
    // As root no namespace has to stand in the way of the change.
    let through = if Uid::effective().is_root() { &without_kill[2..] } else { &without_kill[..] };
    if !alone("sys::privileges::tests::a_child_that_its_parent_could_not_end_stays_who_it_is", through) {
        return;
    }
    let dropped = drop(Some((65532, 65532)), parent()).unwrap();
    assert_eq!((dropped.stayed, dropped.bounded), (Some(Stayed::OutOfReach), true));
    assert_powerless();
}

#[test]
fn without_a_user_to_change_to_only_the_rest_goes() {
    if !alone("sys::privileges::tests::without_a_user_to_change_to_only_the_rest_goes", &["unshare", "--map-root-user"])
    {
        return;
    }
    let dropped = drop(None, parent()).unwrap();
    assert_eq!(dropped, Dropped { ids: (0, 0), stayed: None, bounded: true });
    assert_powerless();
}

#[test]
fn a_process_whose_parent_is_gone_does_not_go_on() {
    if !alone("sys::privileges::tests::a_process_whose_parent_is_gone_does_not_go_on", &[]) {
        return;
    }
    assert!(drop(None, parent() + 1).unwrap_err().to_string().ends_with("is gone"));
}

/// Three processes: this one, a parent that is killed, and its child that must go with it.
#[test]
fn the_child_dies_with_its_parent() {
    const ROLE: &str = "DNSLET_TEST_ROLE";
    let name = "sys::privileges::tests::the_child_dies_with_its_parent";
    let itself = |role: &str| {
        let mut run = Command::new(std::env::current_exe().unwrap());
        run.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(ROLE, role);
        run
    };
    match std::env::var(ROLE).as_deref() {
        Ok("parent") => {
            let mut child = itself("child").spawn().unwrap();
            child.wait().unwrap();
        }
        Ok(_) => {
            drop(None, parent()).unwrap();
            writeln!(io::stdout(), "ready").unwrap();
            // Ends only by a signal: the pipe has its writing end in this process as well.
            let (mut reader, _writer) = io::pipe().unwrap();
            reader.read_exact(&mut [0]).unwrap();
        }
        Err(_) => {
            let (mut printed, theirs) = UnixStream::pair().unwrap();
            printed.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let mut parent = itself("parent").stdout(OwnedFd::from(theirs)).spawn().unwrap();
            let mut text = String::new();
            while !text.contains("ready\n") {
                let mut part = [0; 256];
                let length = printed.read(&mut part).unwrap();
                assert!(length > 0, "the child ended early: {text}");
                text += &String::from_utf8_lossy(&part[..length]);
            }
            parent.kill().unwrap();
            parent.wait().unwrap();
            // The child holds the other end as long as it lives.
            assert_eq!(printed.read(&mut [0]).expect("the child outlived its parent"), 0);
        }
    }
}

#[test]
fn users_are_read_by_name_and_by_number() {
    assert_eq!(user("65532"), Ok((65532, 65532)));
    assert_eq!(user("65532:7"), Ok((65532, 7)));
    assert_eq!(user("root"), Ok((0, 0)));
    assert_eq!(user("0"), Ok((0, 0)));
    assert_eq!(user("root:root"), Ok((0, 0)));
    for (text, part) in [("nobody-here", "user \"nobody-here\""), ("0:nobody-here", "group \"nobody-here\"")] {
        assert!(user(text).unwrap_err().contains(part));
    }
    for text in ["", ":", "4294967295", "4294967296", "-1", "0:", "0:4294967295"] {
        assert!(user(text).is_err(), "{text}");
    }
}
