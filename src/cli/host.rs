//! `host`: makes the programs of this machine ask dnslet, says whether they do, and takes it back.
//!
//! Who writes `/etc/resolv.conf` decides how (`manager`): a plain file gets dnslet's address in front of its servers
//! (`plain`); so does NetworkManager's, which is told to leave the file alone (`networkmanager`); systemd-resolved is told
//! whom to ask (`resolved`). The servers that were there stand behind, so that a machine whose dnslet is away asks those.
//! Every change is one rename of a complete file (`files`): whenever the power goes, one of the two is there whole.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use super::flags::Flags;
use crate::dns::Protocol;
use crate::observe::probe;

mod files;
mod manager;
mod networkmanager;
mod plain;
mod resolved;
mod services;
mod status;
mod text;

use files::Root;
use manager::{InCharge, RESOLV_CONF};

/// How long dnslet may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where programs ask: resolv.conf has no word for another port.
const PORT: u16 = 53;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Enable,
    Disable,
    /// What the service does at each start.
    Renew,
    Status,
}

/// What is asked for.
#[derive(Debug)]
pub(super) struct Host {
    action: Action,
    /// Where dnslet listens, if that is said.
    given: Option<IpAddr>,
}

/// Lines that say what was done, or why not and what to do.
type Done = Result<Vec<String>, String>;

impl Host {
    /// The error is a sentence for the operator.
    pub(super) fn new(flags: &Flags, words: &[String]) -> Result<Host, String> {
        let action = match words {
            [word] if word == "enable" => Action::Enable,
            [word] if word == "disable" => Action::Disable,
            [word] if word == "renew" => Action::Renew,
            [word] if word == "status" => Action::Status,
            _ => return Err("say one of: dnslet host enable, disable, renew or status".to_owned()),
        };
        if flags.dns_port != PORT {
            return Err("-dns.port: programs ask port 53, and resolv.conf has no word for another".to_owned());
        }
        let given = flags.localip.as_ref().and_then(|list| list.ips.first().copied());
        Ok(Host { action, given })
    }
}

/// Does it, a line for each thing that was done. Failure if it could not be done; of `status`, if programs do not ask
/// dnslet, or it does not answer.
pub(super) fn host(host: &Host) -> ExitCode {
    let runtime = match super::runtime() {
        Ok(runtime) => runtime,
        Err(code) => return code,
    };
    let root = Root::real();
    let address = host.given.or_else(|| told(&root)).unwrap_or(Ipv4Addr::LOCALHOST.into());
    let answers = || runtime.block_on(answers(address));
    let done = match host.action {
        Action::Status => {
            let (report, well) = status::status(&root, address, &answers());
            return super::say(&report, if well { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        _ if !nix::unistd::Uid::effective().is_root() => {
            Err("that changes files below /etc: run it as root (sudo dnslet host ...)".to_owned())
        }
        Action::Renew if !is_enabled(&root) && plain::is_replaced(&root, address) => {
            Err(plain::replaced(manager::of(&root).err()))
        }
        Action::Renew if !is_enabled(&root) => {
            Ok(vec!["nothing to renew: this machine was not made to ask dnslet".to_owned()])
        }
        Action::Enable | Action::Renew => root.lock().and_then(|_held| enable(&root, address, answers)),
        Action::Disable => root.lock().and_then(|_held| disable(&root)),
    };
    match done {
        Ok(lines) => super::say(&lines.iter().map(|line| format!("{line}\n")).collect::<String>(), ExitCode::SUCCESS),
        Err(why) => {
            super::complain(&why);
            ExitCode::FAILURE
        }
    }
}

fn enable(root: &Root, address: IpAddr, answers: impl Fn() -> Result<(), String>) -> Done {
    let manager = match manager::of(root) {
        Err(_) if plain::names_first(root, address) => None,
        found => Some(found.and_then(able).map_err(|why| format!("nothing was changed: {why}"))?),
    };
    answers().map_err(|why| silent(address, &why))?;
    match manager {
        // Another program does, told so by its own means.
        None => Ok(vec![format!("{RESOLV_CONF} names {address} first already")]),
        Some(InCharge::Nobody) => plain::enable(root, address),
        Some(InCharge::NetworkManager) => networkmanager::enable(root, address),
        Some(InCharge::Resolved) => resolved::enable(root, address),
    }
}

/// Whether dnslet can be put in front of it.
fn able(manager: InCharge) -> Result<InCharge, String> {
    if manager == InCharge::NetworkManager {
        networkmanager::check()?;
    }
    Ok(manager)
}

/// Where dnslet listens, as an earlier `enable` has written it down.
fn told(root: &Root) -> Option<IpAddr> {
    plain::told(root).or_else(|| resolved::told(root))
}

fn is_enabled(root: &Root) -> bool {
    plain::is_ours(root) || root.exists(networkmanager::DROP_IN) || root.exists(resolved::DROP_IN)
}

/// Looks for what each of the ways may have left, whoever is in charge by now.
fn disable(root: &Root) -> Done {
    let mut lines = plain::disable(root)?;
    lines.extend(networkmanager::release(root)?);
    lines.extend(resolved::release(root)?);
    if lines.is_empty() {
        lines.push("nothing to take back: this machine was not made to ask dnslet".to_owned());
    }
    Ok(lines)
}

/// Asks over both transports. The error says over which there was no answer, and why.
async fn answers(address: IpAddr) -> Result<(), String> {
    let at = SocketAddr::new(address, PORT);
    let ask = |protocol| probe::ask(at, protocol, PATIENCE, None);
    let (udp, tcp) = tokio::join!(ask(Protocol::Udp), ask(Protocol::Tcp));
    let why: Vec<String> = [("UDP", udp), ("TCP", tcp)]
        .into_iter()
        .filter_map(|(over, result)| result.err().map(|why| format!("over {over}: {why}")))
        .collect();
    if why.is_empty() { Ok(()) } else { Err(why.join(", ")) }
}

fn silent(address: IpAddr, why: &str) -> String {
    format!(
        "nothing was changed: no dnslet answers at {address} port {PORT} ({why}); start it first \
         (systemctl start dnslet), or say where it listens with -localip"
    )
}
