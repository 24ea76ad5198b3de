//! The package on a machine of its own: installed, restarted, killed, booted and purged under load. Figures are printed:
//! `-- --nocapture` shows them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::guest::load::{Load, Report};
use super::guest::{Guest, NAME};
use crate::support::time;

/// The most that a service may be exposed, by systemd's own account.
const EXPOSURE: f64 = 2.5;
/// What a worker has read and not answered when its process is killed: one batch.
const BATCH: usize = 64;

/// What the other tests here stand on: a systemd that boots, reboots, and has a DNS server outside.
#[test]
fn a_guest_boots_reboots_and_resolves() {
    let mut guest = Guest::boot();
    let asks = format!("dig +short {NAME}");
    assert_eq!(guest.run(&asks), "10.96.7.7\n");
    guest.write("/srv/kept", "as it was");
    guest.reboot();
    assert_eq!((guest.run("cat /srv/kept"), guest.run(&asks)), ("as it was".to_owned(), "10.96.7.7\n".to_owned()));
}

#[test]
fn the_package_serves_through_restarts_reloads_and_deaths() {
    take_precedence();
    let guest = installed();
    assert_eq!(guest.run(&format!("dig +short @127.0.0.1 {NAME}")), "10.96.7.7\n");
    let status = guest.run("systemctl show --property StatusText --value dnslet");
    assert_eq!(status, "answers at 127.0.0.1:53\n");
    println!("exposure {}", exposure(&guest));

    let report = under_load(&guest, || (0..3).for_each(|_| drop(guest.run("systemctl restart dnslet"))));
    println!("three restarts: {report}");
    assert_eq!((report.lost().len(), report.refused.len()), (0, 0));

    let report = under_load(&guest, || {
        guest.run("systemctl reload dnslet");
        until_said(&guest, 1, "Reloading complete");
    });
    println!("reload: {report}");
    assert_eq!((report.lost().len(), report.refused.len()), (0, 0));

    for signal in ["STOP", "KILL"] {
        let mut took = Duration::ZERO;
        let report = under_load(&guest, || took = replaced(&guest, signal));
        println!("SIG{signal} of the keeper, another one serves after {took:?}: {report}");
        assert!(report.lost().len() <= BATCH && report.refused.is_empty(), "{report}");
    }
    assert_eq!(guest.run("systemctl show --property Result --value dnslet"), "success\n");
}

#[test]
fn it_is_there_before_who_resolves_and_says_nothing_but_that() {
    let mut guest = installed();
    guest.reboot();
    assert_eq!(guest.run(&format!("dig +short @127.0.0.1 {NAME}")), "10.96.7.7\n");
    let since = |unit: &str| {
        let text = guest.run(&format!("systemctl show --property ActiveEnterTimestampMonotonic --value {unit}"));
        text.trim().parse::<u64>().expect("microseconds")
    };
    let [began, socket, service, lookups] =
        ["system.slice", "dnslet.socket", "dnslet.service", "nss-lookup.target"].map(since);
    println!("after systemd: socket {} µs, service {} µs", socket - began, service - began);
    assert!(socket < service && service <= lookups);
    let said = guest.run("journalctl --boot --unit dnslet.service --unit dnslet.socket --output cat");
    assert!(!["WARN", "ERROR", "rror:", "panicked"].iter().any(|word| said.contains(word)), "{said}");
    assert_eq!(guest.run("journalctl --boot --unit dnslet.service -p warning --output cat --quiet"), "");
}

#[test]
fn a_start_without_upstreams_is_tried_again_while_queries_wait() {
    let guest = installed();
    guest.run("systemctl stop dnslet.service");
    guest.write("/etc/resolv.conf", "");
    guest.tries("systemctl start dnslet.service");
    until_said(&guest, 1, "no nameservers found");
    let asked = guest.enter(|| {
        std::thread::scope(|scope| {
            let query = scope.spawn(|| guest.run(&format!("dig +short +tries=1 +time=20 @127.0.0.1 {NAME}")));
            until_said(&guest, 3, "no nameservers found");
            guest.write("/etc/resolv.conf", &format!("nameserver {}\n", super::guest::OUTSIDE));
            query.join().expect("dig ends")
        })
    });
    assert_eq!(asked, "10.96.7.7\n");
}

#[test]
fn purged_it_leaves_nothing() {
    let guest = installed();
    let files = "find / -xdev -name '*dnslet*'";
    assert!(guest.run(files).contains("/usr/bin/dnslet"));
    guest.run("DEBIAN_FRONTEND=noninteractive dpkg --purge dnslet");
    assert_eq!(guest.run(files), "");
    assert_eq!(guest.run("cat /etc/resolv.conf"), format!("nameserver {}\n", super::guest::OUTSIDE));
    assert_eq!(guest.run("ss --no-header --listening --udp --tcp --numeric"), "");
    assert_eq!(guest.run("systemctl list-units --all --no-legend 'dnslet*'"), "");
}

/// Other work of this machine gives way to this process and to what it starts, where it may ask for that: with less, a busy
/// machine's queues run full, and the figures are those of the machine.
fn take_precedence() {
    let this = std::process::id().to_string();
    let _ = Command::new("chrt").args(["--rr", "--all-tasks", "--pid", "1", &this]).status();
}

/// A guest with the package, as dpkg leaves it.
fn installed() -> Guest {
    let guest = Guest::boot();
    guest.install(package(), "/srv/package.deb");
    let began = time::now();
    guest.run("DEBIAN_FRONTEND=noninteractive dpkg --install /srv/package.deb");
    println!("installed and serving after {:?}", began.elapsed());
    assert_eq!(guest.run("systemctl is-active dnslet.socket dnslet.service"), "active\nactive\n");
    guest
}

/// The package as `make deb` lays it out, with the binary that is tested: the one that is shipped takes minutes to build.
pub fn package() -> &'static Path {
    static PACKAGE: OnceLock<PathBuf> = OnceLock::new();
    PACKAGE.get_or_init(|| {
        let home = Path::new(env!("CARGO_MANIFEST_DIR"));
        let package = home.join("target/guest/dnslet.deb");
        let options = format!("DEB=--profile dev --fast --output {}", package.display());
        let mut make = Command::new("make");
        make.args(["deb", "PROGRAM=true", &options]).current_dir(home);
        let output = make.output().expect("apt-get install make");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        package
    })
}

fn exposure(guest: &Guest) -> f64 {
    let printed = guest.run("systemd-analyze security --no-pager dnslet.service");
    let line = printed.lines().find(|line| line.contains("Overall exposure level")).expect("a sum");
    let figure = line.split_whitespace().find_map(|word| word.parse().ok()).expect("a figure");
    assert!(figure <= EXPOSURE, "{printed}");
    figure
}

/// Five thousand queries a second from the guest itself, from a second before the work to a second after it.
fn under_load(guest: &Guest, work: impl FnOnce()) -> Report {
    let server = SocketAddr::from(([127, 0, 0, 1], 53));
    let sending = Load::heavy(guest.host.clone(), &[server]).start();
    time::pass(Duration::from_secs(1));
    work();
    time::pass(Duration::from_secs(1));
    sending.stop()
}

/// Sends the keeper a signal and waits until another one serves; says how long that took.
fn replaced(guest: &Guest, signal: &str) -> Duration {
    let main = || guest.run("systemctl show --property MainPID --value dnslet.service").trim().to_owned();
    let before = main();
    let began: Instant = time::now();
    guest.run(&format!("kill -{signal} {before}"));
    time::until("another keeper", || {
        let (code, _) = guest.tries("systemctl is-active --quiet dnslet.service");
        (main() != before && code == Some(0)).then(|| began.elapsed())
    })
}

/// Waits until the service has logged the text so many times.
fn until_said(guest: &Guest, times: usize, text: &str) {
    let said = || guest.run("journalctl --unit dnslet.service --output cat --no-pager").matches(text).count();
    time::until(&format!("{text:?} in the journal"), || (said() >= times).then_some(()));
}
