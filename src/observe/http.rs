//! The HTTP endpoints: fixed pages, each made anew per request by a function.
//!
//! Sockets are bound by whoever starts the agent. A reload changes what an endpoint shows without closing it, so a
//! scrape or a liveness check in between is answered.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{future, io};

use arc_swap::ArcSwap;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics::Counter;
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::readiness::{Readiness, Verdict};
use super::registry::Registry;
use super::sockets::Sockets;
use super::{Exposition, counters};
use crate::sys::clock;

/// Connections an endpoint keeps open at once; more are closed.
const MAX_CONNECTIONS: usize = 64;

/// How long a request's head may take, and how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may live, so that a client that does not read its answer gives its place back.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// How long to wait when the process has no descriptor left for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const PLAIN: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One listening address and its pages. Dropped, it closes the socket and its connections.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    pages: Arc<ArcSwap<Pages>>,
    accepting: JoinHandle<()>,
}

/// What an endpoint shows, by path. Every other path is 404.
#[derive(Clone, Default)]
pub struct Pages(BTreeMap<String, Page>);

/// Makes one page. It runs on the thread of the endpoints and must not wait.
pub type Page = Arc<dyn Fn() -> Reply + Send + Sync>;

/// A page, made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The media type.
    pub content_type: &'static str,
    /// The text.
    pub body: String,
}

impl Endpoint {
    /// Serves `pages` on a bound, listening socket, as a task of the runtime this is called on.
    ///
    /// # Errors
    /// If the socket cannot be made non-blocking or registered with the runtime.
    pub fn start(listener: TcpListener, pages: Pages, registry: &Registry) -> io::Result<Endpoint> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let pages = Arc::new(ArcSwap::from_pointee(pages));
        let refused = registry.counter(&counters::HTTP_REFUSED, &[]);
        let accepting = tokio::spawn(accept(listener, Arc::clone(&pages), refused));
        Ok(Endpoint { address, pages, accepting })
    }

    /// The address that is served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Shows other pages from the next request on.
    pub fn set_pages(&self, pages: Pages) {
        self.pages.store(Arc::new(pages));
    }

    /// Closes the socket and its connections; afterwards the address is free.
    pub async fn stop(mut self) {
        self.accepting.abort();
        // The only outcome is that the task was aborted.
        let _ = (&mut self.accepting).await;
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Pages {
    /// No page.
    pub fn new() -> Pages {
        Pages::default()
    }

    /// Adds a page, or replaces the one at this path.
    pub fn with(mut self, path: &str, page: Page) -> Pages {
        self.0.insert(path.to_owned(), page);
        self
    }

    /// Whether there is nothing to show.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Reply {
    /// Plain text.
    pub fn plain(status: u16, body: impl Into<String>) -> Reply {
        Reply { status, content_type: PLAIN, body: body.into() }
    }
}

/// `/metrics`.
pub fn metrics_page(registry: &Arc<Registry>) -> Page {
    let registry = Arc::clone(registry);
    Arc::new(move || Reply { status: 200, content_type: PROMETHEUS, body: registry.render() })
}

/// `/health`: `OK`, or 503 and a sentence once the agent's own sockets stay silent. While the agent shuts down it is
/// still alive.
pub fn health_page(sockets: &Arc<Sockets>) -> Page {
    let sockets = Arc::clone(sockets);
    Arc::new(move || match sockets.health(clock::now()) {
        Ok(()) => Reply::plain(200, "OK"),
        Err(sentence) => Reply::plain(503, sentence),
    })
}

/// `/ready`: `OK`, or 503 with the parts that are not ready, joined by commas, then a line for each with the reason.
/// With `latch` the page that said `OK` once says it until the agent shuts down.
pub fn ready_page(readiness: &Arc<Readiness>, sockets: &Arc<Sockets>, latch: bool) -> Page {
    let (readiness, sockets) = (Arc::clone(readiness), Arc::clone(sockets));
    let was_ready = AtomicBool::new(false);
    Arc::new(move || match ready(&readiness, &sockets) {
        Verdict::ShuttingDown => Reply::plain(503, "Shutting down"),
        Verdict::Ready => {
            was_ready.store(latch, Ordering::Relaxed);
            Reply::plain(200, "OK")
        }
        Verdict::Waiting(_) if was_ready.load(Ordering::Relaxed) => Reply::plain(200, "OK"),
        Verdict::Waiting(parts) => {
            let names: Vec<&str> = parts.iter().map(|(part, _)| part.as_str()).collect();
            let reasons: String = parts.iter().map(|(part, reason)| format!("\n{part}: {reason}")).collect();
            Reply::plain(503, names.join(",") + &reasons)
        }
    })
}

/// Adds what the pages say to a scrape.
pub fn expose_health(readiness: &Readiness, sockets: &Sockets, into: &mut Exposition) {
    sockets.expose(into);
    let ready = ready(readiness, sockets) == Verdict::Ready;
    into.gauge(&counters::READY, &[], f64::from(u8::from(ready)));
}

/// The parts and the sockets together.
fn ready(readiness: &Readiness, sockets: &Sockets) -> Verdict {
    let mut parts = match readiness.verdict() {
        Verdict::ShuttingDown => return Verdict::ShuttingDown,
        Verdict::Ready => Vec::new(),
        Verdict::Waiting(parts) => parts,
    };
    parts.extend(sockets.ready());
    if parts.is_empty() { Verdict::Ready } else { Verdict::Waiting(parts) }
}

async fn accept(listener: tokio::net::TcpListener, pages: Arc<ArcSwap<Pages>>, refused: Counter) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok(_) if connections.len() >= MAX_CONNECTIONS => refused.increment(1),
            Ok((stream, _)) => {
                connections.spawn(timeout(CONNECTION_TIMEOUT, converse(stream, Arc::clone(&pages))));
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Serves one connection; what goes wrong on it is the client's affair.
async fn converse(stream: TcpStream, pages: Arc<ArcSwap<Pages>>) {
    let service = service_fn(|request: Request<Incoming>| {
        future::ready(Ok::<_, Infallible>(respond(&pages.load(), request.method(), request.uri().path())))
    });
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn respond(pages: &Pages, method: &Method, path: &str) -> Response<Full<Bytes>> {
    let allowed = method == Method::GET || method == Method::HEAD;
    let reply = match pages.0.get(path) {
        None => Reply::plain(404, "404 page not found\n"),
        Some(_) if !allowed => Reply::plain(405, "Method Not Allowed\n"),
        Some(page) => page(),
    };
    let mut response = Response::new(Full::new(Bytes::from(reply.body)));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(reply.content_type));
    if reply.status == 405 {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::Protocol;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn run_async<T>(task: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(task)
    }

    fn start(pages: Pages) -> (Arc<Registry>, Endpoint) {
        let registry = Registry::new(1);
        let pages = pages.with("/metrics", metrics_page(&registry));
        let endpoint = Endpoint::start(TcpListener::bind("127.0.0.1:0").unwrap(), pages, &registry).unwrap();
        (registry, endpoint)
    }

    /// The whole response, head and body.
    async fn request(endpoint: &Endpoint, line: &str) -> String {
        let mut stream = TcpStream::connect(endpoint.address()).await.unwrap();
        stream.write_all(format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[test]
    fn pages_methods_and_paths() {
        run_async(async {
            let (_registry, endpoint) = start(Pages::new());
            let got = request(&endpoint, "GET /metrics?x=1").await;
            assert!(got.starts_with("HTTP/1.1 200 OK\r\n"), "{got}");
            assert!(got.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{got}");
            assert!(got.contains("\ncoredns_panics_total 0\n"), "{got}");
            let head = request(&endpoint, "HEAD /metrics").await;
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
            let post = request(&endpoint, "POST /metrics").await;
            assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("allow: GET, HEAD\r\n"), "{post}");
            assert!(request(&endpoint, "GET /metrics/").await.starts_with("HTTP/1.1 404 "));
        });
    }

    #[test]
    fn health_and_ready_tell_what_the_sockets_answer() {
        run_async(async {
            let (sockets, readiness) = (Arc::new(Sockets::new()), Arc::new(Readiness::new()));
            let listen = "127.0.0.1:53".parse().unwrap();
            sockets.watch(&[listen]);
            readiness.unready("upstreams", "none answers");
            let pages = Pages::new()
                .with("/health", health_page(&sockets))
                .with("/ready", ready_page(&readiness, &sockets, false))
                .with("/latched", ready_page(&readiness, &sockets, true));
            let (_registry, endpoint) = start(pages);
            assert!(request(&endpoint, "GET /health").await.ends_with("\r\n\r\nOK"));
            sockets.record(listen, Protocol::Udp, clock::now(), Ok(Duration::ZERO));
            let ready = request(&endpoint, "GET /ready").await;
            assert!(ready.starts_with("HTTP/1.1 503 "), "{ready}");
            let body = "upstreams,tcp://127.0.0.1:53\nupstreams: none answers\ntcp://127.0.0.1:53: not asked yet";
            assert!(ready.ends_with(body), "{ready}");
            sockets.record(listen, Protocol::Tcp, clock::now(), Ok(Duration::ZERO));
            assert!(request(&endpoint, "GET /latched").await.starts_with("HTTP/1.1 503 "));
            readiness.ready("upstreams");
            for path in ["/ready", "/latched"] {
                assert!(request(&endpoint, &format!("GET {path}")).await.ends_with("\r\n\r\nOK"));
            }
            readiness.unready("upstreams", "none answers");
            assert!(request(&endpoint, "GET /ready").await.ends_with("\nupstreams: none answers"));
            assert!(request(&endpoint, "GET /latched").await.ends_with("\r\n\r\nOK"), "it was ready once");
            readiness.shutting_down();
            for path in ["/ready", "/latched"] {
                assert!(request(&endpoint, &format!("GET {path}")).await.ends_with("\r\n\r\nShutting down"));
            }
            for _ in 0..3 {
                sockets.record(listen, Protocol::Tcp, clock::now(), Err(super::super::probe::Failure::Silence));
            }
            let health = request(&endpoint, "GET /health").await;
            assert!(health.starts_with("HTTP/1.1 503 ") && health.contains("over tcp did not answer 3 probes"));
        });
    }

    #[test]
    fn new_pages_show_on_the_same_connection() {
        run_async(async {
            let page = |text: &'static str| -> Page { Arc::new(move || Reply::plain(200, text)) };
            let (_registry, endpoint) = start(Pages::new().with("/", page("old")));
            let mut stream = TcpStream::connect(endpoint.address()).await.unwrap();
            for wanted in ["old", "new"] {
                stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
                let mut got = Vec::new();
                while !got.ends_with(wanted.as_bytes()) {
                    assert_ne!(stream.read_buf(&mut got).await.unwrap(), 0, "closed");
                }
                endpoint.set_pages(Pages::new().with("/", page("new")));
            }
        });
    }

    #[test]
    fn connections_are_bounded_and_a_stop_frees_the_address() {
        run_async(async {
            let (registry, endpoint) = start(Pages::new());
            let address = endpoint.address();
            let mut held = Vec::new();
            for _ in 0..MAX_CONNECTIONS {
                let mut stream = TcpStream::connect(address).await.unwrap();
                // An answer shows that this connection has its place.
                stream.write_all(b"GET /none HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
                stream.read_u8().await.unwrap();
                held.push(stream);
            }
            let mut one_more = TcpStream::connect(address).await.unwrap();
            assert_eq!(one_more.read(&mut [0; 1]).await.unwrap(), 0, "closed at once");
            assert!(registry.render().contains("\ndnslet_http_connections_refused_total 1\n"));
            endpoint.stop().await;
            assert!(TcpStream::connect(address).await.is_err());
        });
    }
}
