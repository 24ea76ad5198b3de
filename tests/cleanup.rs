//! `dnslet cleanup`, as an operator sees it.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use crate::support::namespace::{add_address, entered};
use crate::support::program::dnslet;

/// The exit code, and the lines on standard output and standard error.
fn cleanup(arguments: &[&str]) -> (Option<i32>, Vec<String>, Vec<String>) {
    let (code, told, complaint) = dnslet(&[&["cleanup"], arguments].concat());
    let lines = |text: String| text.lines().map(str::to_owned).collect();
    (code, lines(told), lines(complaint))
}

fn shell(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().expect("a shell");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let install = "apt-get install iptables nftables util-linux";
    assert!(output.status.success(), "{line}: {err} (if a program is missing: {install})");
    out.into_owned()
}

#[test]
fn what_was_left_is_removed_and_listed_and_then_there_is_nothing() {
    if !entered("cleanup::what_was_left_is_removed_and_listed_and_then_there_is_nothing") {
        return;
    }
    shell("mount -t tmpfs tmpfs /run");
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("iptables/notrack.v4.rules");
    shell(&format!("iptables-nft-restore --noflush {}", rules.display()));
    shell("nft add table inet dnslet");
    shell(
        "iptables-legacy -t raw -I OUTPUT -p udp -s 10.96.0.10 --sport 53 -m comment \
         --comment 'NodeLocal DNS Cache: skip conntrack' -j NOTRACK",
    );
    shell("iptables-nft -A INPUT -s 192.0.2.1 -j DROP");
    shell("ip addr add 10.96.0.10/32 dev lo scope host");
    add_address("192.0.2.7/32");

    let (code, removed, errors) = cleanup(&["-localip", "169.254.20.10,10.96.0.10", "-conf", "/nowhere"]);
    assert_eq!((code, errors), (Some(0), Vec::new()), "{removed:#?}");
    for line in [
        "removed table inet dnslet",
        "removed chain DNSLET-PREROUTING in iptables-nft raw",
        "removed chain DNSLET-FALLBACK in iptables-nft nat",
        "removed 10.96.0.10 from lo",
    ] {
        assert!(removed.iter().any(|removed| removed == line), "{line}: {removed:#?}");
    }
    let ours =
        removed.iter().filter(|line| line.starts_with("removed node-cache's rule in iptables-legacy raw: OUTPUT "));
    assert_eq!(ours.count(), 1, "{removed:#?}");
    let left = shell("iptables-nft-save; iptables-legacy-save; nft list tables; ip addr");
    assert!(!left.contains("DNSLET") && !left.contains("NodeLocal") && !left.contains("inet dnslet"), "{left}");
    assert!(left.contains("192.0.2.1/32 -j DROP") && left.contains("192.0.2.7"), "{left}");

    let nothing = vec!["nothing to remove".to_owned()];
    assert_eq!(cleanup(&[]), (Some(0), nothing.clone(), Vec::new()));
    assert_eq!(cleanup(&["-localip=10.96.0.10"]), (Some(0), nothing, Vec::new()));
}

#[test]
fn what_could_not_be_removed_is_an_error() {
    if !entered("cleanup::what_could_not_be_removed_is_an_error") {
        return;
    }
    shell("mount -t tmpfs tmpfs /run");
    for variant in ["nft", "legacy"] {
        shell(&format!(
            "iptables-{variant} -t raw -I OUTPUT -p udp -s 10.96.0.10 --sport 53 -m comment \
             --comment 'NodeLocal DNS Cache: skip conntrack' -j NOTRACK"
        ));
    }
    let lock = File::create("/run/xtables.lock").expect("a private directory");
    lock.try_lock().expect("nobody else has it");
    let (code, removed, errors) = cleanup(&[]);
    assert_eq!((code, removed.len(), errors.len()), (Some(1), 1, 1), "{removed:#?} {errors:#?}");
    assert!(
        errors[0].starts_with("dnslet: rules of iptables-legacy ") && errors[0].contains("xtables lock"),
        "{errors:?}"
    );
    drop(lock);
    assert_eq!(cleanup(&[]).0, Some(0));
}
