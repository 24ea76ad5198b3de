//! Requests and replies: paths to objects, over HTTP.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use super::super::kinds::{KINDS, Kind};
use super::discovery;
use super::refusal::Refusal;
use super::store::{Change, Key, Store};

type Body = BoxBody<Bytes, Infallible>;

/// Serves until it is told to stop.
pub fn serve(listener: TcpListener, store: &Arc<Mutex<Store>>, stopped: oneshot::Receiver<()>) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        listener.set_nonblocking(true).expect("a socket");
        let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
        tokio::select! {
            () = accept(listener, store) => {}
            _ = stopped => {}
        }
    });
}

async fn accept(listener: tokio::net::TcpListener, store: &Arc<Mutex<Store>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let store = Arc::clone(store);
        let service = service_fn(move |request| respond(request, Arc::clone(&store)));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn respond(request: Request<Incoming>, store: Arc<Mutex<Store>>) -> Result<Response<Body>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    if let Some(document) = discovery::document(head.uri.path()) {
        return Ok(reply(200, &document));
    }
    let parameters = Parameters(head.uri.query().unwrap_or_default());
    if head.method == Method::GET && parameters.has("watch", "true") {
        // Every change is complete when its request is answered, so there is nothing to tell of afterwards.
        let silence = stream::pending::<Result<Frame<Bytes>, Infallible>>();
        return Ok(Response::new(BodyExt::boxed(StreamBody::new(silence))));
    }
    let media = head.headers.get("content-type").and_then(|media| media.to_str().ok()).unwrap_or_default();
    let mut store = store.lock().expect("no panic under the lock");
    Ok(match handle(&mut store, &head.method, head.uri.path(), &parameters, media, &body) {
        Ok(object) => reply(if head.method == Method::POST { 201 } else { 200 }, &object),
        Err(refusal) => reply(refusal.code, &refusal.status()),
    })
}

fn reply(code: u16, value: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(value.to_string()));
    let response = Response::builder().status(code).header("content-type", "application/json");
    response.body(BodyExt::boxed(body)).expect("a valid response")
}

fn handle(
    store: &mut Store,
    method: &Method,
    path: &str,
    parameters: &Parameters<'_>,
    media: &str,
    body: &[u8],
) -> Result<Value, Refusal> {
    let (kind, key) = place(path).ok_or_else(|| Refusal::not_found(path))?;
    if method == Method::GET && key.name.is_empty() {
        let selector = |of: &str| parameters.get(of).unwrap_or_default();
        let (labels, fields) = (selector("labelSelector"), selector("fieldSelector"));
        return Ok(store.list(kind, key.namespace.as_deref(), &labels, &fields));
    }
    let body = if body.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(body) };
    let body = body.map_err(|error| Refusal::unsupported(&format!("{media} that is not JSON ({error})")))?;
    let change = Change { dry_run: parameters.has("dryRun", "All"), body };
    match *method {
        Method::GET => store.get(&key),
        Method::POST => store.create(key, change),
        Method::PUT => store.replace(key, change),
        Method::PATCH => store.patch(key, media, change),
        Method::DELETE => store.delete(&key, &change),
        _ => Err(Refusal::unsupported(method.as_str())),
    }
}

/// The kind and the object of a path; without a name it is all of them.
fn place(path: &str) -> Option<(&'static Kind, Key)> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (version, rest) = match parts.as_slice() {
        ["api", "v1", rest @ ..] => ("v1".to_owned(), rest),
        ["apis", group, version, rest @ ..] => (format!("{group}/{version}"), rest),
        _ => return None,
    };
    let (namespace, plural, name) = match rest {
        ["namespaces", namespace, plural, name @ ..] if *plural != "status" => {
            (Some(*namespace), *plural, name.first())
        }
        [plural, name @ ..] => (None, *plural, name.first()),
        [] => return None,
    };
    let kind = KINDS.iter().find(|kind| kind.version == version && kind.plural == plural)?;
    let name = (*name.unwrap_or(&"")).to_owned();
    Some((kind, Key { plural: plural.to_owned(), namespace: namespace.map(str::to_owned), name }))
}

/// The part of a URI behind the question mark.
struct Parameters<'a>(&'a str);

impl Parameters<'_> {
    fn get(&self, name: &str) -> Option<String> {
        let value = self.0.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
        Some(value.replace("%3D", "=").replace("%2C", ",").replace("%2F", "/").replace("%21", "!"))
    }

    fn has(&self, name: &str, value: &str) -> bool {
        self.get(name).as_deref() == Some(value)
    }
}
