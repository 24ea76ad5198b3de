//! What is typed on a host with the package.

use super::page::{Page, Place};
use crate::deploy::guest::Guest;
use crate::deploy::vm::package;

#[test]
fn what_is_typed_on_a_host_succeeds() {
    for page in Page::with(Place::Vm) {
        let guest = Guest::boot();
        let package_name = concat!("/srv/dnslet_", env!("CARGO_PKG_VERSION"), "-1_amd64.deb");
        guest.install(package(1), package_name);
        if page.path != "README.md" {
            guest.run(&format!("DEBIAN_FRONTEND=noninteractive dpkg --install {package_name}"));
        }
        guest.write("/srv/typed", &page.script(Place::Vm, |_| true));
        println!("{}", guest.run("cd /srv && DEBIAN_FRONTEND=noninteractive bash typed"));
    }
}
