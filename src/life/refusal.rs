//! What to tell the operator when the kernel refuses a listening socket.

use crate::sys::process::{PortOf, holder_of};
use crate::sys::sockopt;

/// A sentence with the address, the reason and what to do.
pub(super) fn explain(error: &sockopt::Error, transport: PortOf) -> String {
    explain_with(error, transport, holder_of(error.address, transport))
}

fn explain_with(error: &sockopt::Error, transport: PortOf, holder: Option<String>) -> String {
    let (word, address) = match transport {
        PortOf::Udp => ("udp", error.address),
        PortOf::Tcp => ("tcp", error.address),
    };
    let reason = match error.errno() {
        Some(libc::EADDRINUSE) => match holder {
            Some(holder) => {
                format!("the address is in use by {holder}: stop it, or listen elsewhere (bind, or the port)")
            }
            None => "the address is in use, by whom cannot be seen from here: `ss -lnptu` as root tells".to_owned(),
        },
        Some(libc::EACCES) if address.port() < 1024 => format!(
            "port {} needs privileges: start as root or with CAP_NET_BIND_SERVICE (setcap cap_net_bind_service=+ep, or \
             the capability in the pod's securityContext), or use a port from 1024 up",
            address.port()
        ),
        Some(libc::EADDRNOTAVAIL) => "no interface of this host has the address".to_owned(),
        Some(libc::EMFILE | libc::ENFILE) => "too many open files: raise the limit (ulimit -n, LimitNOFILE)".to_owned(),
        Some(libc::EAFNOSUPPORT) => "this host has no such address family".to_owned(),
        _ => format!("{}: {}", error.step, error.cause),
    };
    format!("cannot listen on {word} {address}: {reason}")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn told(errno: i32, holder: Option<&str>) -> String {
        let error = sockopt::Error {
            step: sockopt::Step::Bind,
            address: "192.0.2.1:53".parse().unwrap(),
            cause: io::Error::from_raw_os_error(errno),
        };
        explain_with(&error, PortOf::Udp, holder.map(str::to_owned))
    }

    #[test]
    fn each_common_cause_says_what_to_do() {
        for (errno, holder, part) in [
            (libc::EADDRINUSE, Some("nsd (pid 7)"), "in use by nsd (pid 7)"),
            (libc::EADDRINUSE, None, "ss -lnptu"),
            (libc::EACCES, None, "CAP_NET_BIND_SERVICE"),
            (libc::EADDRNOTAVAIL, None, "no interface"),
            (libc::EMFILE, None, "LimitNOFILE"),
            (libc::EINVAL, None, "bind: Invalid argument"),
        ] {
            let text = told(errno, holder);
            assert!(text.starts_with("cannot listen on udp 192.0.2.1:53: ") && text.contains(part), "{text}");
        }
    }
}
