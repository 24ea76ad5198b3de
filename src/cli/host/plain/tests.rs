use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use super::*;

const US: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const BEFORE: &str = "# by hand\nnameserver 192.0.2.1\nsearch corp.example\n";

/// A machine that is a directory.
struct Machine(PathBuf);

impl Machine {
    fn new(name: &str) -> Machine {
        let path = std::env::temp_dir().join(format!("dnslet-host-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("etc")).unwrap();
        fs::write(path.join("etc/resolv.conf"), BEFORE).unwrap();
        fs::set_permissions(path.join("etc/resolv.conf"), fs::Permissions::from_mode(0o640)).unwrap();
        Machine(path)
    }

    fn root(&self) -> Root {
        Root::at(&self.0)
    }

    fn etc(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.join("etc")).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn file(&self) -> PathBuf {
        self.0.join("etc/resolv.conf")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_was_there_comes_back_as_the_same_file() {
    let machine = Machine::new("back");
    let inode = fs::metadata(machine.file()).unwrap().ino();
    assert_eq!(enable(&machine.root(), US).unwrap().len(), 2);
    let text = fs::read_to_string(machine.file()).unwrap();
    assert!(
        text.ends_with("nameserver 127.0.0.1\nnameserver 192.0.2.1\nsearch corp.example\noptions timeout:1\n"),
        "{text}"
    );
    assert_eq!(fs::metadata(machine.file()).unwrap().mode() & 0o777, 0o644, "everybody may read it");
    assert_eq!(enable(&machine.root(), US).unwrap(), ["/etc/resolv.conf names 127.0.0.1 first already"]);
    assert_eq!(machine.etc(), ["resolv.conf", "resolv.conf.before-dnslet"]);
    assert_eq!(disable(&machine.root()).unwrap(), ["/etc/resolv.conf is what it was before"]);
    let metadata = fs::metadata(machine.file()).unwrap();
    assert_eq!((metadata.ino(), metadata.mode() & 0o777), (inode, 0o640));
    assert_eq!(fs::read_to_string(machine.file()).unwrap(), BEFORE);
    assert_eq!(machine.etc(), ["resolv.conf"]);
    assert!(disable(&machine.root()).unwrap().is_empty());
}

#[test]
fn a_link_comes_back_as_a_link() {
    let machine = Machine::new("link");
    fs::rename(machine.file(), machine.0.join("etc/servers")).unwrap();
    symlink("servers", machine.file()).unwrap();
    enable(&machine.root(), US).unwrap();
    assert!(fs::read_link(machine.file()).is_err(), "a file of its own, and what the link led to is as it was");
    assert_eq!(fs::read_to_string(machine.0.join("etc/servers")).unwrap(), BEFORE);
    disable(&machine.root()).unwrap();
    assert_eq!(fs::read_link(machine.file()).unwrap(), PathBuf::from("servers"));
}

#[test]
fn an_end_between_two_steps_leaves_nothing_that_the_next_cannot_finish() {
    let machine = Machine::new("between");
    keep(&machine.root()).unwrap();
    assert_eq!(fs::read_to_string(machine.file()).unwrap(), BEFORE, "both names are of one file");
    let lines = disable(&machine.root()).unwrap();
    assert!(lines[0].starts_with("removed "), "{lines:?}");
    assert_eq!(machine.etc(), ["resolv.conf"]);
    keep(&machine.root()).unwrap();
    fs::write(machine.0.join("etc/.resolv.conf.dnslet"), "half of a fi").unwrap();
    enable(&machine.root(), US).unwrap();
    disable(&machine.root()).unwrap();
    assert_eq!((fs::read_to_string(machine.file()).unwrap().as_str(), machine.etc().len()), (BEFORE, 1));
}

#[test]
fn what_somebody_else_wrote_since_stays() {
    let machine = Machine::new("since");
    enable(&machine.root(), US).unwrap();
    fs::write(machine.file(), "nameserver 127.0.0.1\nnameserver 192.0.2.2\n").unwrap();
    assert!(!is_replaced(&machine.root(), US), "dnslet is asked first all the same");
    fs::write(machine.file(), "nameserver 192.0.2.2\n").unwrap();
    assert!(is_replaced(&machine.root(), US));
    let lines = disable(&machine.root()).unwrap();
    assert!(lines[0].contains("written by somebody else since: it stays"), "{lines:?}");
    assert_eq!(fs::read_to_string(machine.file()).unwrap(), "nameserver 192.0.2.2\n");
    assert_eq!(machine.etc(), ["resolv.conf"]);
}

#[test]
fn one_at_a_time_changes_something() {
    let machine = Machine::new("lock");
    fs::create_dir(machine.0.join("run")).unwrap();
    let held = machine.root().lock().unwrap();
    let other = fs::File::open(machine.0.join("run/dnslet-host.lock")).unwrap();
    assert!(matches!(other.try_lock(), Err(fs::TryLockError::WouldBlock)));
    drop(held);
    other.try_lock().unwrap();
}

#[test]
fn where_dnslet_listens_is_remembered_and_may_change() {
    let machine = Machine::new("moved");
    let elsewhere = "127.0.0.9".parse().unwrap();
    enable(&machine.root(), elsewhere).unwrap();
    assert_eq!(told(&machine.root()), Some(elsewhere));
    enable(&machine.root(), US).unwrap();
    let text = fs::read_to_string(machine.file()).unwrap();
    assert_eq!(text::servers(&text), ["127.0.0.1", "192.0.2.1"], "dnslet is not behind itself");
}

#[test]
fn where_the_kept_file_is_gone_dnslet_is_taken_out() {
    let machine = Machine::new("gone");
    enable(&machine.root(), US).unwrap();
    fs::remove_file(machine.0.join("etc/resolv.conf.before-dnslet")).unwrap();
    disable(&machine.root()).unwrap();
    assert_eq!(fs::read_to_string(machine.file()).unwrap(), "nameserver 192.0.2.1\nsearch corp.example\n");
}
