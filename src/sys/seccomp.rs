//! The system calls that are left to the process that reads packets.
//!
//! Everything that is not in the lists of [`calls`] fails: with EPERM, so that it reads as what it is, and with ENOSYS
//! for the few calls that C libraries try before an older one they can do with. Nothing kills the process: a library
//! that tries something unusual goes on without it. Refusals are reported to the kernel's audit log where it is on.
//!
//! What serves queries is allowed whatever its arguments are. The kernel knows that from the filter and skips it for
//! such calls (since 5.11), so they cost nothing. Arguments are looked at only where a call is rare and some of its
//! uses are dangerous.

#![allow(unsafe_code)]

use std::io;

use nix::sys::prctl;
use seccompiler::sock_filter;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod calls;

/// What became of [`confine`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confined {
    /// The filter is in force, in every thread.
    Yes,
    /// There is none, and why.
    Unsupported(&'static str),
}

/// Takes every system call that serving does not need away from this process, all its threads, and what they start.
/// There is no way back. Sets no_new_privs, which the kernel wants for it.
///
/// # Errors
/// errno as it is. The process may then be confined less than it should be, or not at all.
pub fn confine() -> io::Result<Confined> {
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return Ok(Confined::Unsupported("there is no list of system calls for this processor"));
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    {
        prctl::set_no_new_privs()?;
        // The second one still needs the call that installs it, so the one that takes away more comes last.
        for filter in [calls::absent(), calls::allowed(std::process::id())] {
            match install(&filter) {
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => {
                    return Ok(Confined::Unsupported(
                        "the kernel has no filters for system calls (CONFIG_SECCOMP_FILTER)",
                    ));
                }
                result => result?,
            }
        }
        Ok(Confined::Yes)
    }
}

/// Installs the filter in all threads.
fn install(filter: &[sock_filter]) -> io::Result<()> {
    // Kernels before 5.16 slow a filtered process down with measures against code that it does not trust. This one runs
    // no code but its own. Kernels before 4.17 do not know the flag, those before 4.14 no log.
    let every_thread = libc::SECCOMP_FILTER_FLAG_TSYNC;
    let logged = every_thread | libc::SECCOMP_FILTER_FLAG_LOG;
    let mut result = Ok(());
    for flags in [logged | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW, logged, every_thread] {
        result = install_with(flags, filter);
        if !result.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL)) {
            break;
        }
    }
    result
}

fn install_with(flags: libc::c_ulong, filter: &[sock_filter]) -> io::Result<()> {
    let length = u16::try_from(filter.len()).expect("the compiler of filters checked the length");
    let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut().cast() };
    // SAFETY: the program points at `length` instructions of the layout the kernel reads (both types are its
    // sock_filter); it copies and never writes them.
    match unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) } {
        0 => Ok(()),
        thread if thread > 0 => Err(io::Error::other(format!("thread {thread} has a filter of its own"))),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests;
