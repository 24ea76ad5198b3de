//! The package on a machine of its own: installed, restarted, killed, booted and purged under load. Figures are printed:
//! `-- --nocapture` shows them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use super::guest::load::{Load, Report, Sending};
use super::guest::{Guest, NAME, OUTSIDE};
use super::host::LOOK;
use super::turn::turn;
use crate::support::program::assert_has;
use crate::support::time;

/// The most that a service may be exposed, by systemd's own account.
const EXPOSURE: f64 = 2.5;
/// What a worker has read and not answered when its process is killed: one batch.
const BATCH: usize = 64;

const COREFILE: &str = "/etc/dnslet/Corefile";
const BOTH: &str = "dnslet.socket dnslet.service";
const INSTALL: &str = "DEBIAN_FRONTEND=noninteractive dpkg --install";

#[test]
fn the_package_serves_through_restarts_reloads_upgrades_and_deaths() {
    let _turn = turn();
    let guest = installed();
    assert_eq!(asked(&guest), "10.96.7.7\n");
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

    guest.install(package(2), "/srv/next.deb");
    let report = under_load(&guest, || drop(guest.run(&format!("{INSTALL} /srv/next.deb"))));
    println!("upgrade: {report}");
    assert_eq!(guest.run("dpkg-query --show --showformat '${Version}' dnslet"), "0.1.0-2");
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
    let _turn = turn();
    let mut guest = installed();
    guest.reboot();
    assert_eq!(asked(&guest), "10.96.7.7\n");
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

    // With /var on a file server, which the network comes before.
    let mount = "[Unit]\nWants=network.target\n[Mount]\nWhat=192.0.2.1:/var\nWhere=/var\nType=nfs\n";
    guest.write("/run/systemd/system/var.mount", mount);
    guest.run("systemctl daemon-reload");
    assert_has(&guest.run("systemctl show --property After dnslet.service"), &["var.mount"]);
    let units = format!("{BOTH} dnslet-retry.timer dnslet-retry.service");
    assert_eq!(guest.tries(&format!("systemd-analyze verify --man=no {units}")), (Some(0), String::new()));
}

#[test]
fn a_fault_that_stays_turns_clients_away_until_it_is_mended() {
    let _turn = turn();
    let guest = installed();
    guest.run("dnslet host enable");
    let good = guest.run(&format!("cat {COREFILE}"));
    guest.write(COREFILE, &good.replace("cache {", "cash {"));
    guest.tries("systemctl restart dnslet.service");
    until_is(&guest, "failed failed");
    assert_has(&guest.tries(&format!("dig +tries=1 @127.0.0.1 {NAME}")).1, &["connection refused"]);
    // Sooner than a program gives up on a server that says nothing, which is after five seconds.
    assert_has(&guest.run(&format!("timeout 4 getent hosts {NAME}")), &["10.96.7.7"]);
    guest.write(COREFILE, &good);
    until_is(&guest, "active active");
    assert_eq!(asked(&guest), "10.96.7.7\n");

    guest.write("/etc/resolv.conf", "");
    guest.tries("systemctl restart dnslet.service");
    until_is(&guest, "failed failed");
    guest.write("/etc/resolv.conf", &format!("nameserver {OUTSIDE}\n"));
    until_is(&guest, "active active");
    assert_eq!(asked(&guest), "10.96.7.7\n");

    // Who stops it while it is tried again means it.
    guest.write(COREFILE, "");
    guest.tries("systemctl restart dnslet.service");
    until_is(&guest, "failed failed");
    guest.run(&format!("systemctl stop {BOTH}"));
    assert_eq!(guest.tries("systemctl is-active dnslet-retry.timer").1, "inactive\n");
}

#[test]
fn a_resolver_that_is_there_keeps_its_port() {
    let _turn = turn();
    let mut guest = Guest::boot();
    let program = "systemd-socket-activate --listen 0.0.0.0:53 sleep infinity";
    let unit = format!("[Service]\nExecStart={program}\n[Install]\nWantedBy=multi-user.target\n");
    guest.write("/etc/systemd/system/resolver.service", &unit);
    guest.run("systemctl enable --now resolver.service");
    time::until("the port to be held", || guest.run("ss -Hltn").contains("0.0.0.0:53").then_some(()));
    for number in [1, 2] {
        guest.install(package(number), "/srv/package.deb");
        let said = guest.run(&format!("{INSTALL} /srv/package.deb 2>&1"));
        if number == 1 {
            assert_has(&said, &["port 53 of 127.0.0.1 is held by", "systemd-socket", "systemctl enable --now dnslet"]);
        }
        assert_eq!(guest.tries(&format!("systemctl is-enabled {BOTH}")).1, "disabled\ndisabled\n");
        assert_eq!(guest.tries(&format!("systemctl is-active {BOTH}")).1, "inactive\ninactive\n");
    }
    guest.reboot();
    assert_eq!(guest.tries(&format!("systemctl is-active resolver {BOTH}")).1, "active\ninactive\ninactive\n");
    guest.run(&format!("systemctl disable --now resolver; systemctl enable --now {BOTH}"));
    assert_eq!(asked(&guest), "10.96.7.7\n");
    it_leaves_nothing(&guest);
}

/// Removed and purged, with programs made to ask it before: a resolv.conf that is a file, and one that is a link.
fn it_leaves_nothing(guest: &Guest) {
    guest.run("mkdir /run/NetworkManager && cp /etc/resolv.conf /run/NetworkManager");
    for link in [false, true] {
        if link {
            guest.run("ln -sf /run/NetworkManager/resolv.conf /etc/resolv.conf");
            guest.run(&format!("{INSTALL} /srv/package.deb"));
        }
        let before = guest.run(LOOK);
        guest.run("dnslet host enable");
        assert_ne!(guest.run(LOOK), before);
        guest.run("dpkg --remove dnslet");
        assert_eq!(guest.run(LOOK), before);
        purge(guest);
    }
}

fn purge(guest: &Guest) {
    let files = "find / -xdev -name '*dnslet*'";
    assert!(guest.run(files).contains("/etc/dnslet"), "a removal leaves the configuration");
    guest.run("DEBIAN_FRONTEND=noninteractive dpkg --purge dnslet");
    assert_eq!(guest.run(files), "");
    assert_eq!(guest.run("ss --no-header --listening --udp --tcp --numeric"), "");
    assert_eq!(guest.run("systemctl list-units --all --no-legend 'dnslet*'"), "");
}

/// What dnslet answers.
fn asked(guest: &Guest) -> String {
    guest.run(&format!("dig +short @127.0.0.1 {NAME}"))
}

/// A guest with the package, as dpkg leaves it.
fn installed() -> Guest {
    let guest = Guest::boot();
    guest.install(package(1), "/srv/package.deb");
    let began = time::now();
    guest.run(&format!("{INSTALL} /srv/package.deb"));
    println!("installed and serving after {:?}", began.elapsed());
    assert_eq!(guest.run(&format!("systemctl is-active {BOTH}")), "active\nactive\n");
    guest
}

/// The package as `make deb` lays it out, in its first or second revision: with the binary that is shipped if that has been
/// built, as `make test-deploy` does, else with the one of these tests.
pub fn package(revision: usize) -> &'static Path {
    static PACKAGES: [OnceLock<PathBuf>; 2] = [OnceLock::new(), OnceLock::new()];
    PACKAGES[revision - 1].get_or_init(|| {
        let home = Path::new(env!("CARGO_MANIFEST_DIR"));
        let package = home.join(format!("target/guest/dnslet-{revision}.deb"));
        let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
        let shipped = home.join("target").join(&target).join("dist/dnslet").exists();
        let profile = if shipped { format!("dist --target {target}") } else { "dev".to_owned() };
        println!("revision {revision} of profile {profile}");
        let output = package.display();
        let options = format!("DEB=--profile {profile} --fast --deb-revision {revision} --output {output}");
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
    let sending = start_first(Load::heavy(guest.host.clone(), &[server]));
    time::pass(Duration::from_secs(1));
    work();
    time::pass(Duration::from_secs(1));
    sending.stop()
}

/// Starts a load whose threads other work of this machine gives way to, where it may be asked to: on a busy machine, queries
/// that are sent late, all at once, are no load of this rate. Threads are of the class of the thread that starts them.
fn start_first(load: Load) -> Sending {
    let first = || {
        let this = nix::unistd::gettid().to_string();
        let _ = Command::new("chrt").args(["--rr", "--pid", "1", &this]).status();
        load.start()
    };
    thread::scope(|scope| scope.spawn(first).join().expect("a load starts"))
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

/// Waits until the socket and the service are in these states.
fn until_is(guest: &Guest, states: &str) {
    let are = || guest.tries(&format!("systemctl is-active {BOTH}")).1.trim().replace('\n', " ");
    time::until(&format!("the units to be {states}"), || (are() == states).then_some(()));
}
