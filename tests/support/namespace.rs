//! Private network namespaces: a test that needs port 53, or counters of its own, runs itself again inside one.

use std::process::Command;

/// Set for the second run of a test.
const INSIDE: &str = "DNSLET_TEST_NAMESPACE";

/// Says whether this is the run inside the namespace. Outside, runs the named test inside one (user, network and mount, no
/// privileges needed), passes on what it prints, and fails if it fails.
#[track_caller]
pub fn entered(test: &str) -> bool {
    entered_by(&[], test)
}

/// The same by way of another program, which starts the one it is given.
#[track_caller]
pub fn entered_by(program: &[&str], test: &str) -> bool {
    entered_with(program, &["--map-root-user"], test)
}

/// The same as the user that these flags of unshare make: without any, as who runs the test.
#[track_caller]
pub fn entered_with(program: &[&str], flags: &[&str], test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("ip: apt-get install iproute2");
        assert!(up.success(), "the loopback interface comes up");
        return true;
    }
    let itself = std::env::current_exe().expect("a test binary has a path");
    // Debian keeps what sets up networks out of an ordinary user's PATH.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let words = [program, &["unshare"]].concat();
    let output = Command::new(words[0])
        .args(&words[1..])
        .args(flags)
        .arg("--net")
        .arg("--mount")
        .arg(itself)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .env("PATH", path)
        .output()
        .expect("unshare: apt-get install util-linux");
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "inside the namespace:\n{printed}\n{errors}");
    assert!(printed.contains("1 passed"), "no test is called {test}:\n{printed}\n{errors}");
    print!("{printed}");
    false
}

/// Gives the namespace's loopback interface one more address.
#[track_caller]
pub fn add_address(address: &str) {
    let added =
        Command::new("ip").args(["address", "add", address, "dev", "lo"]).status().expect("ip was there before");
    assert!(added.success(), "{address} on the loopback interface");
}

/// Shows the file at another path, inside the namespace only.
#[track_caller]
pub fn mount_over(file: &std::path::Path, at: &str) {
    let mounted = Command::new("mount").arg("--bind").arg(file).arg(at).status().expect("mount: apt-get install mount");
    assert!(mounted.success(), "{} over {at}", file.display());
}

/// A counter of the namespace's own protocol statistics, e.g. ("Udp", "NoPorts"): datagrams for a closed port.
pub fn counter(protocol: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/net/snmp").expect("a mounted /proc");
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with(&format!("{protocol}:"))).collect();
    let column = lines[0].split(' ').position(|word| word == name).expect("a counter of that name");
    lines[1].split(' ').nth(column).expect("as many values as names").parse().expect("a number")
}
