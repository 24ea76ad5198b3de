//! The package on a machine of its own.

use super::guest::{Guest, NAME};

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
