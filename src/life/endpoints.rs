//! The HTTP endpoints, kept open over reloads.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use crate::observe::http::{Endpoint, Page, Pages, health_page, metrics_page, ready_page};
use crate::observe::{Readiness, Registry, Sockets};
use crate::plugins::setting::ready::Monitor;

/// What an endpoint shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shows {
    /// `/metrics`.
    Metrics,
    /// `/health`.
    Health,
    /// `/ready`.
    Ready(Monitor),
}

impl Shows {
    fn path(&self) -> &'static str {
        match self {
            Shows::Metrics => "/metrics",
            Shows::Health => "/health",
            Shows::Ready(_) => "/ready",
        }
    }
}

/// The endpoints a configuration asks for. One address may show several things.
pub(super) type Wanted = BTreeMap<SocketAddr, BTreeSet<Shows>>;

/// Sockets for addresses that were not open before, ready to be taken over.
#[derive(Debug)]
pub(super) struct Prepared {
    listeners: Vec<(SocketAddr, TcpListener)>,
    /// One sentence for each endpoint that could not be had. None is a reason to leave a node without DNS.
    pub(super) warnings: Vec<String>,
}

impl Prepared {
    /// What was had.
    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.listeners.iter().map(|(address, _)| *address)
    }
}

/// The open endpoints.
#[derive(Debug)]
pub(super) struct Endpoints {
    open: BTreeMap<SocketAddr, Endpoint>,
    registry: Arc<Registry>,
    readiness: Arc<Readiness>,
    sockets: Arc<Sockets>,
}

impl Endpoints {
    /// None is open yet.
    pub(super) fn new(registry: Arc<Registry>, readiness: Arc<Readiness>, sockets: Arc<Sockets>) -> Endpoints {
        Endpoints { open: BTreeMap::new(), registry, readiness, sockets }
    }

    /// Gets sockets for what is wanted and not open. Nothing that is open changes. As with DNS, an address may get its
    /// interface later.
    pub(super) fn prepare(
        &self,
        wanted: &Wanted,
        mut listen: impl FnMut(SocketAddr) -> Result<TcpListener, String>,
    ) -> Prepared {
        let mut prepared = Prepared { listeners: Vec::new(), warnings: Vec::new() };
        for address in self.missing(wanted) {
            match listen(address) {
                Ok(listener) => prepared.listeners.push((address, listener)),
                Err(sentence) => {
                    let pages: Vec<&str> = wanted[&address].iter().map(Shows::path).collect();
                    let pages = pages.join(" and ");
                    prepared.warnings.push(format!("{sentence}; DNS is served, and {pages} there once it is free"));
                }
            }
        }
        prepared
    }

    /// Takes the prepared sockets over, gives open endpoints their new pages, closes what is no longer wanted. Must be
    /// called inside a runtime.
    pub(super) fn apply(&mut self, wanted: &Wanted, prepared: Prepared) {
        self.open.retain(|address, _| wanted.contains_key(address));
        for (address, endpoint) in &self.open {
            endpoint.set_pages(self.pages(&wanted[address]));
        }
        for (address, listener) in prepared.listeners {
            match Endpoint::start(listener, self.pages(&wanted[&address]), &self.registry) {
                Ok(endpoint) => drop(self.open.insert(address, endpoint)),
                Err(error) => tracing::error!("cannot serve HTTP on {address}: {error}"),
            }
        }
    }

    /// Where the open ones are.
    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.open.keys().copied()
    }

    /// What is wanted and not open.
    pub(super) fn missing(&self, wanted: &Wanted) -> Vec<SocketAddr> {
        wanted.keys().filter(|address| !self.open.contains_key(address)).copied().collect()
    }

    fn pages(&self, shows: &BTreeSet<Shows>) -> Pages {
        shows.iter().fold(Pages::new(), |pages, show| {
            let page: Page = match show {
                Shows::Metrics => metrics_page(&self.registry),
                Shows::Health => health_page(&self.sockets),
                Shows::Ready(monitor) => ready_page(&self.readiness, &self.sockets, *monitor == Monitor::UntilReady),
            };
            pages.with(show.path(), page)
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    fn endpoints() -> Endpoints {
        Endpoints::new(Registry::new(1), Arc::new(Readiness::new()), Arc::new(Sockets::new()))
    }

    fn free_port() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    fn listen(address: SocketAddr) -> Result<TcpListener, String> {
        let listener = TcpListener::bind(address).map_err(|error| format!("cannot listen on {address}: {error}"))?;
        listener.set_nonblocking(true).map_err(|error| error.to_string())?;
        Ok(listener)
    }

    fn wanted(address: SocketAddr, shows: &[Shows]) -> Wanted {
        Wanted::from([(address, shows.iter().copied().collect())])
    }

    async fn status(address: SocketAddr, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        text.split(' ').nth(1).map(str::to_owned)
    }

    #[test]
    fn an_open_endpoint_gets_new_pages_and_an_unwanted_one_closes() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut endpoints, address) = (endpoints(), free_port());
            for (shows, ready) in
                [(&[Shows::Metrics][..], "404"), (&[Shows::Metrics, Shows::Ready(Monitor::UntilReady)], "200")]
            {
                let wanted = wanted(address, shows);
                let prepared = endpoints.prepare(&wanted, listen);
                endpoints.apply(&wanted, prepared);
                assert_eq!(status(address, "/metrics").await.as_deref(), Some("200"));
                assert_eq!(status(address, "/ready").await.as_deref(), Some(ready));
            }
            let prepared = endpoints.prepare(&Wanted::new(), listen);
            endpoints.apply(&Wanted::new(), prepared);
            while status(address, "/metrics").await.is_some() {}
        });
    }

    #[test]
    fn a_port_that_is_held_is_missing_until_it_is_free() {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let (endpoints, address) = (endpoints(), holder.local_addr().unwrap());
        let wanted = wanted(address, &[Shows::Metrics, Shows::Health]);
        let prepared = endpoints.prepare(&wanted, listen);
        let said = &prepared.warnings[0];
        assert!(said.contains(&address.to_string()) && said.contains("/metrics and /health there once"), "{said}");
        assert_eq!((prepared.addresses().count(), endpoints.missing(&wanted)), (0, vec![address]));
        drop(holder);
        assert!(endpoints.prepare(&wanted, listen).addresses().eq([address]));
    }
}
