//! Giving up what the process that reads packets does not need: its user, every capability, and every way to get them
//! back.

#![allow(unsafe_code)]

use std::fmt;
use std::io;

use nix::errno::Errno;
use nix::sys::{prctl, signal::Signal};
use nix::unistd::{Gid, Group, Uid, User, getppid, getresgid, setgroups, setresgid, setresuid};

/// What [`drop`] left: no capability in any set that counts, no way to gain one, and these ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The user and group this process runs as.
    pub ids: (u32, u32),
    /// Why they are not the ones that were asked for.
    pub stayed: Option<Stayed>,
    /// The bounding set is empty too. It stays as it was for a process that has no CAP_SETPCAP to begin with, and no
    /// harm is in that: nothing that is executed from here on gains anything.
    pub bounded: bool,
}

/// Why a process kept its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stayed {
    /// It has no CAP_SETUID and CAP_SETGID.
    Forbidden,
    /// It has no CAP_KILL, so its parent has none either and could not end a child of another user, even by dying.
    OutOfReach,
    /// The user or the group has no number in this user namespace.
    Unmapped,
}

/// Gives up privileges, for good, and ties this process to its parent. For a process with one thread: capabilities,
/// no_new_privs and the signal belong to threads.
///
/// `user` is a uid and a gid to change to, as [`user`] reads them. Where the process may not change, it stays and the
/// rest is done all the same. `parent` is the process that started this one: the kernel kills this one (SIGKILL) when
/// the thread that started it dies. The kernel asks whether the dying parent may signal its child, and a parent of another
/// user may not without CAP_KILL: a process that was started without it stays who it is.
///
/// A process that changed its user is not dumpable: nobody but root with CAP_SYS_PTRACE reads its memory, traces it or
/// lists its descriptors in /proc. It stays so; what this crate reads about its own process stays readable.
///
/// # Errors
/// The parent is gone already, or the kernel refuses what every process may do. Whoever gets an error must not go on.
pub fn drop(user: Option<(u32, u32)>, parent: u32) -> io::Result<Dropped> {
    // Before the user changes: CAP_SETPCAP goes with it.
    let bounded = clear_bounding_set()?;
    let stayed = user.and_then(|user| change_to(user).err());
    clear_ambient_set()?;
    clear_capabilities()?;
    prctl::set_no_new_privs()?;
    // Changing the user resets it.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if u32::try_from(getppid().as_raw()) != Ok(parent) {
        return Err(io::Error::other(format!("process {parent}, which started this one, is gone")));
    }
    Ok(Dropped { ids: (Uid::effective().as_raw(), Gid::effective().as_raw()), stayed, bounded })
}

/// Reads `NAME`, `UID`, `NAME:GROUP` or `UID:GID`. Names are looked up in /etc/passwd and /etc/group; numbers need no
/// such file. Without a group it is the user's own, and for a number that no file lists the same number.
///
/// # Errors
/// A sentence: no such user or group.
pub fn user(text: &str) -> Result<(u32, u32), String> {
    let unknown =
        |what: &str, name: &str| format!("there is no {what} \"{name}\" on this system; a number always works");
    let (name, group) = text.split_once(':').map_or((text, None), |(name, group)| (name, Some(group)));
    let listed = match number(name) {
        Some(uid) => User::from_uid(Uid::from_raw(uid)),
        None => User::from_name(name),
    };
    // A file that cannot be read lists nobody.
    let (uid, own) = match (listed, number(name)) {
        (Ok(Some(user)), _) => (user.uid.as_raw(), user.gid.as_raw()),
        (_, Some(uid)) => (uid, uid),
        (_, None) => return Err(unknown("user", name)),
    };
    let gid = match group.map(|group| (group, number(group))) {
        None => own,
        Some((_, Some(gid))) => gid,
        Some((group, None)) => match Group::from_name(group) {
            Ok(Some(group)) => group.gid.as_raw(),
            _ => return Err(unknown("group", group)),
        },
    };
    Ok((uid, gid))
}

/// A user's or group's number. The highest means "no change" to the kernel, and is none.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number| *number != u32::MAX)
}

/// Changes every id of the process, or none of them (it may have lost groups it was a member of).
fn change_to((uid, gid): (u32, u32)) -> Result<(), Stayed> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    let why = |error| if error == Errno::EINVAL { Stayed::Unmapped } else { Stayed::Forbidden };
    if (Uid::effective(), Gid::effective()) == (uid, gid) && !Uid::effective().is_root() {
        return Ok(());
    }
    if !has_kill() {
        return Err(Stayed::OutOfReach);
    }
    let before = getresgid().map_err(why)?;
    setgroups(&[]).map_err(why)?;
    setresgid(gid, gid, gid).map_err(why)?;
    setresuid(uid, uid, uid).map_err(|error| {
        // Allowed, as going the other way was a moment ago.
        let _ = setresgid(before.real, before.effective, before.saved);
        why(error)
    })
}

/// Empties the bounding set; false where that is not allowed.
fn clear_bounding_set() -> io::Result<bool> {
    for capability in 0.. {
        // The first number the kernel does not know ends the list.
        match control(libc::PR_CAPBSET_READ, capability) {
            Err(Errno::EINVAL) => break,
            Ok(0) => continue,
            read => read?,
        };
        match control(libc::PR_CAPBSET_DROP, capability) {
            Err(Errno::EPERM) => return Ok(false),
            dropped => dropped?,
        };
    }
    Ok(true)
}

fn clear_ambient_set() -> io::Result<()> {
    match control(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong) {
        // A kernel before 4.3 has no such set.
        Ok(_) | Err(Errno::EINVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// `_LINUX_CAPABILITY_VERSION_3` of this thread: each set has two words.
const CAPABILITIES: [u32; 2] = [0x2008_0522, 0];

/// Whether CAP_KILL is in the effective set.
fn has_kill() -> bool {
    /// The number of CAP_KILL.
    const KILL: u32 = 5;
    // Effective, permitted, inheritable; the low words first.
    let mut sets = [[0u32; 3]; 2];
    // SAFETY: the header has the layout of its version, and the sets are as many words as that version writes. The kernel
    // writes to a header of an unknown version only, and this one is known since 2.6.26.
    let result = unsafe { libc::syscall(libc::SYS_capget, CAPABILITIES.as_ptr(), sets.as_mut_ptr()) };
    result == 0 && sets[0][0] >> KILL & 1 == 1
}

/// Empties the effective, permitted and inheritable sets. The C library has no call for it.
fn clear_capabilities() -> io::Result<()> {
    let none = [[0u32; 3]; 2];
    // SAFETY: as above, but that the sets are read.
    let result = unsafe { libc::syscall(libc::SYS_capset, CAPABILITIES.as_ptr(), none.as_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// prctl(2) for options that take numbers only.
fn control(option: libc::c_int, argument: libc::c_ulong) -> nix::Result<libc::c_int> {
    let none: libc::c_ulong = 0;
    // SAFETY: none of the options used here reads or writes memory of ours.
    Errno::result(unsafe { libc::prctl(option, argument, none, none, none) })
}

impl fmt::Display for Dropped {
    /// For example `uid 0, gid 0, no capabilities`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (uid, gid) = self.ids;
        write!(f, "uid {uid}, gid {gid}, no capabilities")?;
        match self.stayed {
            None => Ok(()),
            Some(stayed) => write!(f, " (-user is without effect: {stayed})"),
        }
    }
}

impl fmt::Display for Stayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stayed::Forbidden => "to change it takes CAP_SETUID and CAP_SETGID",
            Stayed::OutOfReach => "its parent has no CAP_KILL, and could not end it then",
            Stayed::Unmapped => "this user namespace has no such user or group",
        })
    }
}

#[cfg(test)]
mod tests;
