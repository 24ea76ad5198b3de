//! Debian's dig as a client: what a person would see.

use std::net::SocketAddr;
use std::process::Command;

/// Runs dig against the server and returns what it prints.
#[track_caller]
pub fn dig(server: SocketAddr, arguments: &[&str]) -> String {
    let output = Command::new("dig")
        .arg(format!("@{}", server.ip()))
        .args(["-p", &server.port().to_string(), "+tries=1", "+time=10"])
        .args(arguments)
        .output()
        .expect("dig is missing: apt-get install bind9-dnsutils");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "dig {arguments:?}: {printed}{}", String::from_utf8_lossy(&output.stderr));
    printed
}

/// The answers only, one per line, in the order they came.
#[track_caller]
pub fn short(server: SocketAddr, arguments: &[&str]) -> Vec<String> {
    let printed = dig(server, &[&["+short"], arguments].concat());
    printed.lines().map(str::to_owned).collect()
}
