//! `dnslet host` where somebody is in charge of resolv.conf: nobody, systemd-resolved and NetworkManager, each in a Debian
//! that runs it.

use std::net::SocketAddr;

use super::guest::Guest;
use crate::support::process::Process;
use crate::support::program::assert_has;
use crate::support::{peers, time};

/// The servers outside that know [`ZONE`], one for each network that the guest may be in.
const FIRST: &str = "198.18.0.3";
const SECOND: &str = "198.18.0.4";
const ZONE: &str = "site.test";

/// The Corefile of a machine: programs of this host, and whatever servers it is told.
const COREFILE: &str =
    ". {\n    bind 127.0.0.1\n    log\n    errors\n    cache 30\n    forward . /etc/resolv.conf\n}\n";
const UNIT: &str = "[Service]\nExecStart=/usr/bin/dnslet -conf /etc/dnslet/Corefile\n\
                    ExecStartPost=-+/usr/bin/dnslet host renew\n";

/// What `stat` says of resolv.conf, and what is in it.
pub const LOOK: &str = "stat -c '%a %u %g %F %N' /etc/resolv.conf; cat /etc/resolv.conf";

/// A machine with dnslet installed and not started.
struct Machine {
    guest: Guest,
    first: Option<Process>,
    _second: Process,
}

impl Machine {
    fn with(packages: &[&str]) -> Machine {
        let guest = Guest::with(packages);
        guest.install(env!("CARGO_BIN_EXE_dnslet"), "/usr/bin/dnslet");
        guest.write("/etc/dnslet/Corefile", COREFILE);
        guest.write("/etc/systemd/system/dnslet.service", UNIT);
        guest.run("systemctl daemon-reload");
        let [first, second] = [FIRST, SECOND].map(|address| {
            guest.outside.run(|| {
                let command = ["address", "add", &format!("{address}/24"), "dev", "eth0"];
                assert!(std::process::Command::new("ip").args(command).status().unwrap().success());
                let zone =
                    "@ 5 IN SOA ns host 1 3600 600 86400 10\n@ 5 IN NS ns\nns 5 A 192.0.2.53\n* 5 A 192.0.2.80\n";
                let zones = [(ZONE, format!("$ORIGIN {ZONE}.\n{zone}"))];
                peers::knot(&[SocketAddr::new(address.parse().unwrap(), 53)], &zones)
            })
        });
        Machine { guest, first: Some(first), _second: second }
    }

    fn start(&self) {
        self.guest.run("systemctl start dnslet");
        time::until("dnslet to answer", || {
            let (_, said) = self.host("status");
            said.contains("answers    127.0.0.1 over UDP and TCP").then_some(())
        });
    }

    /// Resolves a name as programs do, and tells whether dnslet was asked for it.
    fn asks_dnslet(&self, name: &str) -> bool {
        let name = format!("{name}.{ZONE}");
        let said = self.guest.run(&format!("getent hosts {name}"));
        assert!(said.starts_with("192.0.2.80"), "{said}");
        self.guest.run("journalctl --sync");
        self.guest.run("journalctl -u dnslet -o cat --no-pager").contains(&format!("IN {name}. "))
    }

    /// The exit code of `dnslet host`, and what it prints.
    fn host(&self, word: &str) -> (Option<i32>, String) {
        self.guest.tries(&format!("dnslet host {word}"))
    }

    fn done(&self, word: &str, parts: &[&str]) {
        let (code, said) = self.host(word);
        assert_eq!(code, Some(0), "{word}: {said}");
        assert_has(&said, parts);
    }

    fn refused(&self, before: &str, parts: &[&str]) {
        let (code, said) = self.host("enable");
        assert_eq!((code, self.guest.run(LOOK).as_str()), (Some(1), before), "{said}");
        assert_has(&said, parts);
    }

    fn upstreams_are(&self, servers: &str) {
        let line = format!("upstreams are now those of /etc/resolv.conf: {servers}\n");
        time::until("dnslet to follow", || {
            self.guest.run("journalctl -u dnslet -o cat --no-pager").contains(&line).then_some(())
        });
    }

    /// From before to behind: what is the same whoever is in charge. `change` brings the machine into the network of the
    /// server it is given.
    fn walk(&mut self, manager: &str, already: &str, change: impl Fn(&Guest, &str)) {
        let before = self.guest.run(LOOK);
        self.refused(&before, &["no dnslet answers at 127.0.0.1 port 53", "systemctl start dnslet"]);
        assert_eq!(self.host("status").0, Some(1));
        self.done("renew", &["nothing to renew"]);
        self.start();
        assert!(!self.asks_dnslet("before"));
        self.done("enable", &["names 127.0.0.1 first, and behind it 198.18.0.3"]);
        self.done("enable", &[already]);
        let asked = format!("in charge  {manager}\nin front   127.0.0.1 is asked first\nanswers    127.0.0.1 over UDP");
        self.done("status", &[&asked]);
        assert!(self.asks_dnslet("enabled"));
        self.guest.run("systemctl stop dnslet");
        assert!(!self.asks_dnslet("away"), "the server behind dnslet answers");
        assert_eq!(self.host("status").0, Some(1));
        self.start();
        self.done("renew", &["127.0.0.1 first already"]);
        assert!(self.asks_dnslet("back"));
        change(&self.guest, SECOND);
        self.upstreams_are("198.18.0.4:53");
        self.first = None;
        assert!(self.asks_dnslet("moved"), "and no server of before is there");
        self.done("disable", &[]);
        change(&self.guest, FIRST);
        assert_eq!(self.guest.run(LOOK), before);
        self.done("disable", &["nothing to take back"]);
        assert_eq!(self.guest.run("find /etc -name '*dnslet*' ! -path '/etc/dnslet' ! -name dnslet.service"), "");
    }
}

#[test]
fn a_plain_file_has_dnslet_first_and_comes_back() {
    let mut machine = Machine::with(&[]);
    let write = |guest: &Guest, server: &str| {
        // As people edit it: the line they find, whoever wrote the file.
        guest.run(&format!("sed -i 's/^nameserver 198.*/nameserver {server}/' /etc/resolv.conf"));
    };
    machine.guest.write("/etc/resolv.conf", &format!("# by hand\nnameserver {FIRST}\noptions ndots:2\n"));
    machine.guest.run("chmod 664 /etc/resolv.conf && chgrp adm /etc/resolv.conf");
    machine.walk("nobody: /etc/resolv.conf is a plain file", "names 127.0.0.1 first already", write);
}

#[test]
fn systemd_resolved_asks_dnslet_first_and_its_own_servers_again() {
    let mut machine = Machine::with(&["systemd-resolved", "libnss-resolve"]);
    let change = |guest: &Guest, server: &str| {
        guest.run(&format!("resolvectl dns eth0 {server}"));
    };
    machine.guest.run("ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf");
    machine.guest.run(&format!("resolvectl dns eth0 {FIRST}"));
    assert_has(&machine.guest.run("cat /etc/nsswitch.conf"), &["resolve [!UNAVAIL=return] dns"]);
    machine.walk("systemd-resolved", "systemd-resolved asks 127.0.0.1 first already", change);
}

#[test]
fn networkmanager_leaves_the_file_to_dnslet_and_takes_it_back() {
    let mut machine = Machine::with(&["network-manager"]);
    let change = |guest: &Guest, server: &str| {
        guest.run(&format!("nmcli connection modify net ipv4.dns {server} && nmcli connection up net"));
    };
    let address = "ipv4.method manual ipv4.addresses 198.18.0.2/24 ipv6.method ignore";
    machine.guest.run(&format!("nmcli connection add type ethernet con-name net ifname eth0 {address}"));
    let dnsmasq = "/etc/NetworkManager/conf.d/dns.conf";
    change(&machine.guest, FIRST);
    machine.guest.write(dnsmasq, "[main]\ndns=dnsmasq\n");
    machine.guest.run("systemctl restart NetworkManager");
    machine.refused(&machine.guest.run(LOOK), &["NetworkManager runs a dnsmasq", "dns=default"]);
    machine.guest.run(&format!("rm {dnsmasq} && systemctl restart NetworkManager"));
    change(&machine.guest, FIRST);
    assert_has(&machine.guest.run("cat /etc/resolv.conf"), &["# Generated by NetworkManager\n", FIRST]);
    machine.walk("NetworkManager", "first already, and NetworkManager leaves it alone", change);
}

#[test]
fn systemd_resolved_resolves_after_a_reboot_before_dnslet_is_there() {
    let mut machine = Machine::with(&["systemd-resolved", "libnss-resolve"]);
    machine.guest.run("ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf");
    machine.guest.run(&format!("resolvectl dns eth0 {FIRST}"));
    machine.start();
    machine.done("enable", &["127.0.0.1 first"]);
    machine.guest.reboot();
    assert!(!machine.asks_dnslet("early"));
    machine.start();
    let said = machine.guest.run("journalctl -b -u dnslet -o cat --no-pager");
    assert_has(&said, &["it asks 127.0.0.1 first again, not 198.18.0.3"]);
    assert!(machine.asks_dnslet("late"));
}

#[test]
fn a_file_that_a_program_writes_is_left_to_it_and_what_it_undoes_is_said() {
    let machine = Machine::with(&[]);
    let guest = &machine.guest;
    let of_the_lease = format!("nameserver {FIRST}\n");
    guest.write("/etc/resolv.conf", &of_the_lease);
    machine.start();
    // Nothing of dhclient but its name is looked at.
    guest.run("cp /bin/sleep /run/dhclient && systemd-run --unit dhclient /run/dhclient infinity");
    machine.refused(&guest.run(LOOK), &["dhclient runs", "`prepend domain-name-servers 127.0.0.1;`"]);
    guest.write("/etc/resolv.conf", &format!("nameserver 127.0.0.1\n{of_the_lease}"));
    machine.done("enable", &["names 127.0.0.1 first already"]);
    machine.done("status", &["in charge  dhclient runs", "127.0.0.1 is asked first"]);
    guest.run("systemctl stop dhclient");

    guest.write("/etc/resolv.conf", &of_the_lease);
    machine.done("enable", &["names 127.0.0.1 first, and behind it 198.18.0.3"]);
    guest.write("/etc/resolv.conf", &of_the_lease);
    for word in ["renew", "status"] {
        let (code, said) = machine.host(word);
        assert_eq!(code, Some(1), "{said}");
        assert_has(&said, &["was written by somebody else since dnslet host enable"]);
    }
    machine.done("enable", &["names 127.0.0.1 first"]);
    machine.done("disable", &[]);
    assert_eq!(guest.run("cat /etc/resolv.conf"), of_the_lease);
    guest.write("/etc/resolv.conf", &format!("# Created by cloud-init on instance boot\n{of_the_lease}"));
    machine.refused(&guest.run(LOOK), &["written by cloud-init", "99-disable-network-config.cfg"]);
}

#[test]
fn another_address_is_remembered() {
    let machine = Machine::with(&[]);
    let guest = &machine.guest;
    let before = format!("nameserver {FIRST}\n");
    guest.write("/etc/resolv.conf", &before);
    guest.write("/etc/dnslet/Corefile", &COREFILE.replace("127.0.0.1", "127.0.0.9"));
    guest.run("systemctl start dnslet");
    time::until("dnslet to answer", || {
        guest.tries("dnslet host status -localip 127.0.0.9").1.contains("answers    127.0.0.9 over UDP").then_some(())
    });
    machine.done("enable -localip 127.0.0.9", &["names 127.0.0.9 first, and behind it 198.18.0.3"]);
    machine.done("renew", &["127.0.0.9 first already"]);
    machine.done("status", &["127.0.0.9 is asked first"]);
    assert!(machine.asks_dnslet("elsewhere"));
    machine.done("disable", &[]);
    assert_eq!(guest.run("cat /etc/resolv.conf"), before);
}

#[test]
fn what_cannot_be_changed_is_said_with_the_fix_and_stays() {
    let machine = Machine::with(&[]);
    let guest = &machine.guest;
    guest.write("/etc/resolv.conf", &format!("nameserver {FIRST}\n"));
    machine.start();
    let before = guest.run(LOOK);
    let (code, said) = guest.tries("setpriv --reuid 65534 --clear-groups dnslet host enable");
    assert_eq!(code, Some(1));
    assert_has(&said, &["run it as root"]);
    let (code, said) = machine.host("enable -localip 127.0.0.9");
    assert_eq!(code, Some(1));
    assert_has(&said, &["no dnslet answers at 127.0.0.9", "-localip"]);
    assert_has(&machine.host("").1, &["say one of: dnslet host enable"]);

    guest.run("chattr +i /etc/resolv.conf");
    machine.refused(&before, &["/etc/resolv.conf cannot be changed: it is immutable", "chattr -i"]);
    guest.run("chattr -i /etc/resolv.conf && mount --bind /etc/resolv.conf /etc/resolv.conf");
    machine.refused(&before, &["it is a mount of its own, as in containers", "docker run --dns"]);
    guest.run("umount /etc/resolv.conf && mount --bind /etc /etc && mount -o remount,bind,ro /etc");
    machine.refused(&before, &["it is on a read-only file system"]);
    guest.run("umount /etc");

    guest.run("sed -i '1i # Generated by resolvconf' /etc/resolv.conf");
    machine.refused(&guest.run(LOOK), &["is generated by resolvconf", "/etc/resolvconf.conf"]);
    guest
        .run("mkdir /run/resolvconf && mv /etc/resolv.conf /run/resolvconf && ln -s /run/resolvconf/resolv.conf /etc/");
    machine.refused(&guest.run(LOOK), &["is a link to /run/resolvconf/resolv.conf"]);
    guest.run("rm /etc/resolv.conf");
    let (code, said) = machine.host("enable");
    assert_eq!(code, Some(1));
    assert_has(&said, &["cannot be read", "nameserver ADDRESS"]);
    assert_eq!(guest.run("find /etc -name '*before-dnslet*'"), "");
}
