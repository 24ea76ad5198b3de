//! What the facts mean: facts in, sentences out.

mod port;
mod rules;
mod upstreams;

use std::net::IpAddr;

use super::{Examined, RESOLV_CONF, RESOLVED_CONF};
use crate::dns::Protocol;
use crate::node::diagnosis::{Ipv6, Unseen};
use crate::observe::probe::Failure;
use crate::sys::process::PortOf;

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) verdict: Verdict,
    pub(super) text: String,
    /// What to do.
    pub(super) advice: Option<String>,
}

/// What a line says about the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// Works, but not as it could, or not for long.
    Warning,
    /// Somebody gets no answer, or not from here.
    Problem,
    /// Could not be seen.
    Skipped,
}

impl Verdict {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Problem => "problem",
            Verdict::Skipped => "skipped",
        }
    }
}

/// Everything there is to say, from the interface up to what clients see.
pub(super) fn findings(seen: &Examined) -> Vec<Finding> {
    let parts = [
        unset,
        interface,
        addresses,
        rules::rules,
        rules::tracking,
        port::port,
        answers,
        upstreams::upstreams,
        resolv_conf,
        kernel,
        metrics,
    ];
    parts.iter().flat_map(|part| part(seen)).collect()
}

fn ok(text: String) -> Finding {
    Finding { verdict: Verdict::Ok, text, advice: None }
}

fn warning(text: String, advice: &str) -> Finding {
    Finding { verdict: Verdict::Warning, text, advice: Some(advice.to_owned()) }
}

fn problem(text: String, advice: &str) -> Finding {
    Finding { verdict: Verdict::Problem, text, advice: Some(advice.to_owned()) }
}

fn skipped(what: &str, why: &Unseen) -> Finding {
    let text = match why {
        Unseen::Forbidden => format!("{what}: to see that takes root (CAP_NET_ADMIN)"),
        Unseen::Failed(why) => format!("{what}: {why}"),
    };
    Finding { verdict: Verdict::Skipped, text, advice: None }
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    match items.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

fn unset(seen: &Examined) -> Vec<Finding> {
    let advice = "give its address; who starts an agent in a pod creates the Service before";
    seen.unset.iter().map(|unset| problem(unset.brief(), advice)).collect()
}

fn interface(seen: &Examined) -> Vec<Finding> {
    let name = &seen.link;
    let finding = match &seen.facts.link {
        Err(why) => skipped(&format!("interface {name}"), why),
        Ok(Some(link)) if link.kind.as_deref() != Some("dummy") => {
            let kind = link.kind.as_deref().unwrap_or("network card");
            problem(
                format!("interface {name} is a {kind} of somebody else: the agent leaves it alone"),
                "give the agent another name with -interfacename, or remove that interface",
            )
        }
        Ok(Some(link)) if !link.up => problem(
            format!("interface {name} is down: packets to its addresses get no answer"),
            &format!("a running agent brings it up within a second; by hand: ip link set {name} up"),
        ),
        Ok(Some(_)) => ok(format!("interface {name} is a dummy link and up")),
        Ok(None) if seen.facts.places.values().any(|places| !places.is_empty()) => {
            ok(format!("there is no interface {name}, the addresses are elsewhere"))
        }
        Ok(None) => ok(format!("there is no interface {name}: an agent with -localip makes it when it starts")),
    };
    vec![finding]
}

fn addresses(seen: &Examined) -> Vec<Finding> {
    if seen.facts.addresses.is_empty() {
        let text = "the addresses of the cache are not known: none are in rules or on the interface".to_owned();
        return vec![warning(text, "say which they should be, as in: dnslet doctor -localip 169.254.20.10")];
    }
    let of = |address: &IpAddr| {
        let places = seen.facts.places.get(address).map(Vec::as_slice).unwrap_or_default();
        match (places, seen.facts.kernel.ipv6) {
            ([], _) if address.is_ipv4() && address.is_loopback() => {
                ok(format!("address {address} is on lo, as all of 127.0.0.0/8"))
            }
            ([], Ipv6::Absent) if address.is_ipv6() => problem(
                format!("address {address} cannot be used: this kernel has no IPv6"),
                "leave IPv6 addresses out of -localip on this node",
            ),
            ([], Ipv6::Off) if address.is_ipv6() => problem(
                format!("address {address} cannot be used: IPv6 is switched off"),
                &format!(
                    "sysctl -w net.ipv6.conf.{}.disable_ipv6=0, or leave IPv6 addresses out of -localip",
                    seen.link
                ),
            ),
            ([], _) => problem(
                format!("address {address} is on no interface: queries to it leave this node"),
                "an agent with it in -localip puts it there (with CAP_NET_ADMIN); its log says why if it did not",
            ),
            ([place], _) => ok(format!("address {address} is on {place}")),
            (places, _) => warning(
                format!("address {address} is on more than one interface: {}", list(places)),
                "remove it from those that are not the agent's: ip address del",
            ),
        }
    };
    seen.facts.addresses.iter().map(of).collect()
}

fn answers(seen: &Examined) -> Vec<Finding> {
    let of = |address: &IpAddr| {
        let (mut good, mut bad, mut foreign) = (Vec::new(), Vec::new(), Vec::new());
        for answer in seen.answers.iter().filter(|answer| answer.address == *address) {
            let over = if answer.protocol == Protocol::Udp { "UDP" } else { "TCP" };
            match &answer.result {
                Ok(took) => good.push(format!("over {over} in {:.1} ms", took.as_secs_f64() * 1000.0)),
                Err(Failure::Foreign) => foreign.push(format!("over {over}")),
                Err(why) => bad.push(format!("over {over}: {why}")),
            }
        }
        for words in [&mut good, &mut bad, &mut foreign] {
            words.sort_unstable_by(|one, other| other.cmp(one));
        }
        let answered = (!good.is_empty()).then(|| ok(format!("a query to {address} is answered {}", list(good))));
        let advice = "who should answer is told above: if that is the agent, see its log; if nobody, start it";
        let failed = (!bad.is_empty()).then(|| problem(format!("a query to {address} fails {}", list(bad)), advice));
        let elsewhere = (!foreign.is_empty()).then(|| {
            let text = format!("a query to {address} is answered {} by another server, not by dnslet", list(foreign));
            warning(
                text,
                "clients have answers, from the cluster's DNS or whoever listens there, and no cache; see above",
            )
        });
        answered.into_iter().chain(elsewhere).chain(failed)
    };
    seen.facts.addresses.iter().flat_map(of).collect()
}

fn resolv_conf(seen: &Examined) -> Vec<Finding> {
    let [first, behind] = &seen.resolv_conf;
    let ours = |servers: &[std::net::SocketAddr]| {
        servers.iter().find(|server| seen.facts.addresses.contains(&server.ip())).map(|server| server.ip())
    };
    let stub = "127.0.0.53".parse::<IpAddr>().ok();
    let Some(servers) = first else {
        return vec![warning(format!("{RESOLV_CONF} cannot be read"), "forward needs servers given by address then")];
    };
    let alone = |servers: &[std::net::SocketAddr]| servers.iter().all(|one| seen.facts.addresses.contains(&one.ip()));
    let finding = if let Some(address) = ours(servers).filter(|_| !alone(servers)) {
        ok(format!("{RESOLV_CONF} names {address}, the cache, and others that an agent forwards to"))
    } else if let Some(address) = ours(servers) {
        warning(
            format!("{RESOLV_CONF} names {address}, the cache: an agent that forwards to this file asks itself"),
            "let forward name the real servers, or a file that does; the agent refuses a circle that it can see",
        )
    } else if servers.iter().any(|server| Some(server.ip()) == stub) {
        match behind.as_deref().map(|servers| ours(servers).filter(|_| alone(servers))) {
            Some(Some(address)) => problem(
                format!("{RESOLV_CONF} names systemd-resolved, which asks {address}, the cache: that can be a circle"),
                "take the address out of systemd-resolved (resolvectl dns), or let forward name the real servers",
            ),
            Some(None) => ok(format!("{RESOLV_CONF} names systemd-resolved, and {RESOLVED_CONF} other servers")),
            None => warning(
                format!("{RESOLV_CONF} names 127.0.0.53, and what systemd-resolved asks cannot be seen from here"),
                &format!("let forward use {RESOLVED_CONF} of the node"),
            ),
        }
    } else if let Some(own) = servers.iter().find(|server| server.ip().is_loopback()) {
        warning(
            format!("{RESOLV_CONF} names {}, a program on this node", own.ip()),
            "make sure that it does not ask the cache in turn",
        )
    } else if servers.is_empty() {
        warning(format!("{RESOLV_CONF} names no server"), "an agent that forwards to this file does not start")
    } else {
        ok(format!("{RESOLV_CONF} names {}, not the cache", list(servers.iter().map(|server| server.ip()))))
    };
    vec![finding]
}

fn kernel(seen: &Examined) -> Vec<Finding> {
    let kernel = &seen.facts.kernel;
    let mut found = Vec::new();
    if let (Some(release), Some(ends)) = (&kernel.release, kernel.ends_tables) {
        found.push(match ends {
            true => ok(format!("kernel {release} can remove the rules when the agent dies (5.12 and later)")),
            false => warning(
                format!("kernel {release} cannot remove rules of nf_tables when the agent dies (5.12 and later can)"),
                "the agent uses iptables here, if iptables-restore is installed",
            ),
        });
    }
    if kernel.dummy == Some(false) {
        found.push(ok("the kernel has no dummy links: the addresses go on lo, which works as well".to_owned()));
    }
    found
}

fn metrics(seen: &Examined) -> Vec<Finding> {
    let Some((address, listeners)) = &seen.metrics else { return Vec::new() };
    let held = listeners.iter().any(|one| one.transport == PortOf::Tcp);
    let (ip, port) = (address.ip(), address.port());
    let host = if ip.is_unspecified() { "127.0.0.1".to_owned() } else { ip.to_string() };
    match held {
        true => vec![ok(format!("metrics are at http://{host}:{port}/metrics; dnslet_node_* tell the same over time"))],
        false => Vec::new(),
    }
}
