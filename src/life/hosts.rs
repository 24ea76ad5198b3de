//! Host names among the upstreams: routes in, the addresses of every host they name out. A name is asked for when a
//! configuration is loaded, and not again before the next one is.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::dns::convert::Outgoing;
use crate::dns::header::Count;
use crate::dns::{Class, Name, Protocol, Rcode, Type};
use crate::resolve::accept;
use crate::routes::Routes;
use crate::sys::clock;
use crate::upstream::spec::{MAX_UPSTREAMS, Policy, PoolSpec, Target};
use crate::upstream::{Address, Ask, Pool, Transport, Upstreams};

use super::last::Known;
use super::pools::specs;
use super::resolvconf::{self, Own};

/// How long all of it may take: while a reload waits, so do signals.
const PATIENCE: Duration = Duration::from_secs(2);

/// Who is asked where a line has no `resolver`.
const MACHINE: &str = "/etc/resolv.conf";

/// A host, and whom to ask for it; nobody: the nameservers of this machine.
type Question = (Name, Vec<Address>);

/// The addresses of hosts, as they were when the configuration was loaded.
#[derive(Debug, Clone, Default)]
pub(super) struct Hosts(HashMap<Question, Vec<IpAddr>>);

impl Hosts {
    /// Asks for every host the routes name and whose addresses are not known, all at once. The error is a sentence for
    /// the operator.
    pub(super) async fn resolve(routes: &Routes, own: &Own, known: &Known) -> Result<Hosts, String> {
        let deadline = clock::now() + PATIENCE;
        let mut lookups = JoinSet::new();
        let mut ports: HashMap<Question, Vec<u16>> = HashMap::new();
        let mut found = Vec::new();
        for (question, port, transport) in specs(routes).flat_map(questions) {
            if ports.contains_key(&question) {
                // Asked for by another line.
            } else if let Some(addresses) = known.get(&key(&question)) {
                found.push((question.clone(), addresses.clone()));
            } else {
                let (pool, asked) = resolvers(&question, own)?;
                lookups.spawn(look_up(question.clone(), pool, asked, deadline));
            }
            let ports = ports.entry(question).or_default();
            // Nobody here answers over TLS, so only classic DNS can come back.
            ports.extend((transport == Transport::Plain).then_some(port));
        }
        while let Some(done) = lookups.join_next().await {
            found.push(done.map_err(|error| format!("a lookup ended early: {error}"))??);
        }
        let mut hosts = HashMap::new();
        for (question, addresses) in found {
            let sockets = ports[&question].iter().flat_map(|port| addresses.iter().map(|ip| (*ip, *port).into()));
            if let Some(socket) = sockets.into_iter().find(|socket| own.holds(*socket)) {
                return Err(format!(
                    "forward: {} has the address {socket}, where this agent itself listens: queries would go in circles",
                    question.0
                ));
            }
            hosts.insert(question, addresses);
        }
        Ok(Hosts(hosts))
    }

    /// All of them, for one who is not to ask again.
    pub(super) fn known(&self) -> Known {
        self.0.iter().map(|(question, addresses)| (key(question), addresses.clone())).collect()
    }

    /// The upstreams that a host of this line stands for; those that `source_address` can reach, where it is set.
    pub(super) fn upstreams(&self, spec: &PoolSpec, name: &Name, port: u16, transport: Transport) -> Vec<Address> {
        let reachable = |ip: &&IpAddr| spec.source_address.is_none_or(|source| source.is_ipv4() == ip.is_ipv4());
        let certificate = (transport == Transport::Tls && spec.tls.server_name.is_none())
            .then(|| name.to_string().trim_end_matches('.').to_owned());
        let upstream =
            |ip: &IpAddr| Address { transport, server_name: certificate.clone(), ..Address::plain((*ip, port).into()) };
        self.addresses(spec, name).iter().filter(reachable).map(upstream).collect()
    }

    /// What the hosts of this line contribute, to go after an error; empty where it names none.
    pub(super) fn account(&self, spec: &PoolSpec) -> String {
        let of = |(question, ..): (Question, u16, Transport)| {
            let addresses = self.addresses(spec, &question.0).iter().map(IpAddr::to_string);
            format!("; {} is {} (says {})", question.0, addresses.collect::<Vec<_>>().join(" "), shown(&question.1))
        };
        questions(spec).map(of).collect()
    }

    fn addresses(&self, spec: &PoolSpec, name: &Name) -> &[IpAddr] {
        self.0.get(&(name.clone(), spec.resolvers.clone())).map_or(&[], Vec::as_slice)
    }
}

fn questions(spec: &PoolSpec) -> impl Iterator<Item = (Question, u16, Transport)> {
    spec.targets.iter().filter_map(|target| match target {
        Target::Host { name, port, transport } => Some(((name.clone(), spec.resolvers.clone()), *port, *transport)),
        Target::Address(_) | Target::File(_) => None,
    })
}

/// A pool of those to ask, and how they are called in an error. It is not counted among the upstreams, and not checked.
fn resolvers((name, given): &Question, own: &Own) -> Result<(Arc<Pool>, String), String> {
    let fail = |reason: String| format!("forward: cannot resolve {name}: {reason}");
    let mut addresses = given.clone();
    if addresses.is_empty() {
        addresses = resolvconf::read(Path::new(MACHINE), own).map_err(|error| fail(error.to_string()))?;
        addresses.truncate(MAX_UPSTREAMS);
    }
    let spec = PoolSpec {
        policy: Policy::Sequential,
        max_fails: 0,
        failover: vec![Rcode::SERVFAIL, Rcode::REFUSED, Rcode::NOTIMP],
        ..PoolSpec::default()
    };
    let pool = Pool::new(&spec, &addresses, &Upstreams::new()).map_err(|error| fail(error.to_string()))?;
    let list: Vec<String> = addresses.iter().map(Address::to_string).collect();
    let from = if given.is_empty() { format!("{MACHINE}: ") } else { String::new() };
    Ok((pool, format!("{from}{}", list.join(" "))))
}

fn key((name, resolvers): &Question) -> String {
    format!("{name} {}", shown(resolvers))
}

fn shown(resolvers: &[Address]) -> String {
    if resolvers.is_empty() {
        return MACHINE.to_owned();
    }
    resolvers.iter().map(Address::to_string).collect::<Vec<_>>().join(" ")
}

/// All addresses of a host, IPv4 first; one of the two types is enough.
async fn look_up(
    question: Question,
    pool: Arc<Pool>,
    asked: String,
    deadline: Instant,
) -> Result<(Question, Vec<IpAddr>), String> {
    let name = &question.0;
    let (v4, v6) = tokio::join!(ask(&pool, name, Type::A, deadline), ask(&pool, name, Type::AAAA, deadline));
    let addresses: Vec<IpAddr> = [&v4, &v6].into_iter().flatten().flatten().copied().collect();
    if !addresses.is_empty() {
        return Ok((question, addresses));
    }
    let reason = v4.err().or(v6.err()).unwrap_or_else(|| "it has no A or AAAA record".to_owned());
    Err(format!("forward: cannot resolve {name} (asked {asked}): {reason}"))
}

async fn ask(pool: &Pool, name: &Name, qtype: Type, deadline: Instant) -> Result<Vec<IpAddr>, String> {
    let query = Outgoing::plain(name.as_wire(), qtype, Class::IN).to_wire(0);
    let ask = Ask { query: &query, client: Protocol::Udp, budget: deadline, deadline, awaited: &AtomicBool::new(true) };
    let exchanged = pool.exchange(ask).await.map_err(|failure| failure.to_string())?;
    let response = accept(&query, &exchanged.wire).map_err(|mismatch| mismatch.text().to_owned())?;
    if response.rcode() != Rcode::NOERROR {
        return Err(response.rcode().to_string());
    }
    let answers = response.records().take_while(|(section, _)| *section == Count::Answer).map(|(_, record)| record);
    let data = answers.filter(|record| record.rtype == qtype).map(|record| &response.wire()[record.rdata..record.end]);
    // Blocklists answer with `0.0.0.0`, where a query would reach this machine.
    Ok(data.filter_map(address).filter(|ip| !ip.is_unspecified() && !ip.is_multicast()).collect())
}

/// RDATA of an A or AAAA record.
fn address(data: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(data).ok().map(IpAddr::from);
    v4().or_else(|| <[u8; 16]>::try_from(data).ok().map(IpAddr::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_stands_for_all_its_addresses() {
        let name = Name::parse("dns.example.net").unwrap();
        let addresses = ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse().unwrap());
        let hosts = Hosts(HashMap::from([((name.clone(), Vec::new()), addresses.to_vec())]));
        let shown = |spec: &PoolSpec, transport: Transport| {
            let upstreams = hosts.upstreams(spec, &name, transport.default_port(), transport);
            upstreams.iter().map(Address::to_string).collect::<Vec<_>>()
        };
        let mut spec = PoolSpec::default();
        assert_eq!(shown(&spec, Transport::Plain), ["192.0.2.1:53", "[2001:db8::1]:53"]);
        let certified = ["tls://192.0.2.1:853 (dns.example.net)", "tls://[2001:db8::1]:853 (dns.example.net)"];
        assert_eq!(shown(&spec, Transport::Tls), certified);
        spec.source_address = Some("192.0.2.9".parse().unwrap());
        assert_eq!(shown(&spec, Transport::Plain), ["192.0.2.1:53"]);
        spec.tls.server_name = Some("other.example".to_owned());
        assert_eq!(shown(&spec, Transport::Tls), ["tls://192.0.2.1:853"], "the pool adds `tls_servername`");
    }
}
