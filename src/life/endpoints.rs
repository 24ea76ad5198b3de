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
    /// Whether a start or reload fails without it. Metrics are no reason to leave a node without DNS.
    fn required(self) -> bool {
        self != Shows::Metrics
    }
}

/// The endpoints a configuration asks for. One address may show several things.
pub(super) type Wanted = BTreeMap<SocketAddr, BTreeSet<Shows>>;

/// Sockets for addresses that were not open before, ready to be taken over.
#[derive(Debug)]
pub(super) struct Prepared {
    listeners: Vec<(SocketAddr, TcpListener)>,
    /// One sentence for each endpoint that could not be had and is not required.
    pub(super) warnings: Vec<String>,
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
    /// interface later. The error is a sentence for the operator.
    pub(super) fn prepare(
        &self,
        wanted: &Wanted,
        mut listen: impl FnMut(SocketAddr) -> Result<TcpListener, String>,
    ) -> Result<Prepared, String> {
        let mut prepared = Prepared { listeners: Vec::new(), warnings: Vec::new() };
        for (address, shows) in wanted.iter().filter(|(address, _)| !self.open.contains_key(address)) {
            match listen(*address) {
                Ok(listener) => prepared.listeners.push((*address, listener)),
                Err(sentence) if shows.iter().any(|show| show.required()) => return Err(sentence),
                Err(sentence) => prepared.warnings.push(format!("{sentence}; metrics are not served there")),
            }
        }
        Ok(prepared)
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

    fn pages(&self, shows: &BTreeSet<Shows>) -> Pages {
        shows.iter().fold(Pages::new(), |pages, show| {
            let (path, page): (&str, Page) = match show {
                Shows::Metrics => ("/metrics", metrics_page(&self.registry)),
                Shows::Health => ("/health", health_page(&self.sockets)),
                Shows::Ready(monitor) => {
                    ("/ready", ready_page(&self.readiness, &self.sockets, *monitor == Monitor::UntilReady))
                }
            };
            pages.with(path, page)
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
                let prepared = endpoints.prepare(&wanted, listen).unwrap();
                endpoints.apply(&wanted, prepared);
                assert_eq!(status(address, "/metrics").await.as_deref(), Some("200"));
                assert_eq!(status(address, "/ready").await.as_deref(), Some(ready));
            }
            let prepared = endpoints.prepare(&Wanted::new(), listen).unwrap();
            endpoints.apply(&Wanted::new(), prepared);
            while status(address, "/metrics").await.is_some() {}
        });
    }

    #[test]
    fn metrics_do_without_a_port_and_health_does_not() {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let (endpoints, address) = (endpoints(), holder.local_addr().unwrap());
        let prepared = endpoints.prepare(&wanted(address, &[Shows::Metrics]), listen).unwrap();
        assert!(prepared.warnings[0].contains("metrics are not served there"), "{:?}", prepared.warnings);
        let error = endpoints.prepare(&wanted(address, &[Shows::Metrics, Shows::Health]), listen).unwrap_err();
        assert!(error.contains(&address.to_string()), "{error}");
    }
}
