//! What the server asks for.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};

use crate::life::channel::{Reply, Request, Serving};
use crate::life::options::Configuration;
use crate::life::pidfile::Pidfile;
use crate::sys::clock;

use super::holdings::{Use, cannot_pass, sharer};
use super::tending::Tending;
use super::{Keeper, output};

impl Keeper<'_> {
    /// Answers a request of the server. One that cannot be read, or cannot be answered, costs the server its life: the
    /// two no longer understand each other. The error is the keeper's own end.
    pub(super) async fn answer(&mut self, request: io::Result<Request>) -> Result<()> {
        let done = match request {
            Ok(Request::Dns { address, workers }) => self.grant(address, Use::Dns, workers),
            Ok(Request::Http(address)) => self.grant(address, Use::Http, 0),
            Ok(Request::Serving(serving)) => {
                self.serves(serving).await?;
                self.reply(&Reply::Done)
            }
            Ok(Request::Faulty(fault)) => {
                self.account.fault = fault;
                self.reply(&Reply::Done)
            }
            Ok(Request::Keep(last)) => {
                self.last = last;
                self.reply(&Reply::Done)
            }
            Ok(Request::Recall) => self.reply(&Reply::Recalled(self.last.clone())),
            Ok(Request::Write(text)) => self.reply(&self.write(&text)),
            Ok(Request::Leaving(code)) => {
                if let Some(child) = &mut self.child {
                    child.leaving = Some(code);
                }
                self.reply(&Reply::Done)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            tracing::error!("the server is ended: {error} on the line to it");
            self.pass_on(nix::sys::signal::Signal::SIGKILL);
        }
        Ok(())
    }

    fn grant(&mut self, address: SocketAddr, purpose: Use, workers: usize) -> io::Result<()> {
        let Some(child) = &self.child else { return Ok(()) };
        let is_more = self.holdings.are_full() && !self.holdings.holds(address, purpose);
        if workers > self.options.workers || is_more {
            // No server of ours asks for that.
            let refused = "more sockets than an agent of this configuration has use for".to_owned();
            return child.requests.tell(&Reply::Refused(refused));
        }
        // Asked once: the search reads every socket of the machine, and the next server is waited for by queries.
        let is_first = purpose == Use::Dns && !self.holdings.holds(address, purpose);
        let sharer = if is_first { sharer(address) } else { None };
        match self.holdings.claim(address, purpose, workers) {
            Ok(held) => {
                self.account.claimed(address, None);
                let granted = child.requests.grant(held.absent, sharer.as_deref(), &held.descriptors());
                granted.or_else(|error| child.requests.tell(&Reply::Refused(cannot_pass(&error))))
            }
            Err(sentence) => {
                self.account.claimed(address, Some(&sentence));
                child.requests.tell(&Reply::Refused(sentence))
            }
        }
    }

    /// A configuration is in force. The first one also puts the node in order. Waits until clients are no longer brought
    /// to an address that it leaves out: its sockets are closed next.
    async fn serves(&mut self, serving: Serving) -> Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        if self.stopping {
            // A reload that was under way: nobody is to come here for it.
            return Ok(());
        }
        if !child.serves {
            child.serves = true;
            self.pace.serves(clock::now());
            self.watchdog.replaced();
        }
        if self.pidfile.is_none() {
            let written = self.options.pidfile.clone().map(Pidfile::write).transpose();
            self.pidfile = written.context("cannot write the pidfile")?;
        }
        if let Some(node) = &self.options.node {
            let tending = match &mut self.tending {
                Some(tending) => tending,
                none => none.insert(Tending::start(node, self.options.dns_port).context("cannot tend the node")?),
            };
            tending.follow(serving.cluster.clone());
        }
        self.holdings.keep(&serving.listens, &serving.http);
        self.account.serves_without(&[serving.missing.as_slice(), &serving.missing_http].concat());
        self.holdings.say_unread(&[serving.listens.as_slice(), &serving.http].concat());
        let probed = probed(&serving.listens, self.options);
        let leaves_out = !self.watchdog.up().is_subset(&probed);
        self.watchdog.watch(&probed);
        self.probes.watch(probed);
        if self.may_probe() {
            self.probes.ask_all(clock::now());
        }
        self.serving = Some(serving);
        self.steer();
        if let Some(tending) = self.tending.as_ref().filter(|_| leaves_out)
            && !tending.has_caught_up().await
        {
            tracing::warn!("the rules of an address that is served no more are still there; its clients get no answer");
        }
        Ok(())
    }

    fn write(&self, text: &str) -> Reply {
        let Configuration::Template(template) = &self.options.configuration else { return Reply::Done };
        let Some(path) = &template.output else { return Reply::Done };
        match output::write_if_changed(path, text) {
            Ok(()) => Reply::Done,
            Err(error) => Reply::Refused(format!(
                "cannot write {}: {error}; the Corefile is used from memory, the file does not show it",
                path.display()
            )),
        }
    }

    fn reply(&self, reply: &Reply) -> io::Result<()> {
        self.child.as_ref().map_or(Ok(()), |child| child.requests.tell(reply))
    }
}

/// The addresses to ask: those that are listened on, and the node's own where a wildcard serves them.
fn probed(listens: &[SocketAddr], options: &crate::life::options::Options) -> BTreeSet<SocketAddr> {
    let own = options.node.iter().flat_map(|node| &node.desired.addresses);
    let own = own.map(|ip| SocketAddr::new(*ip, options.dns_port)).filter(|address| serves(listens, *address));
    listens.iter().copied().chain(own).collect()
}

/// Whether what is sent to the address reaches one of these listeners.
pub(super) fn serves(listens: &[SocketAddr], address: SocketAddr) -> bool {
    let wildcard = |listen: &SocketAddr| match listen.ip() {
        IpAddr::V4(ip) => ip.is_unspecified() && address.is_ipv4(),
        IpAddr::V6(ip) => ip.is_unspecified(),
    };
    listens.iter().any(|listen| listen.port() == address.port() && (*listen == address || wildcard(listen)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_serves_the_addresses_of_its_families() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        for (listen, at, expected) in [
            ("169.254.20.10:53", "169.254.20.10:53", true),
            ("169.254.20.10:53", "10.96.0.10:53", false),
            ("0.0.0.0:53", "10.96.0.10:53", true),
            ("0.0.0.0:1053", "10.96.0.10:53", false),
            ("0.0.0.0:53", "[fd00::10]:53", false),
            ("[::]:53", "[fd00::10]:53", true),
            ("[::]:53", "10.96.0.10:53", true),
        ] {
            assert_eq!(serves(&[address(listen)], address(at)), expected, "{listen} {at}");
        }
    }
}
