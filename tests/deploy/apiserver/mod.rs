//! A small API server for kubectl, over plain HTTP on the loopback address, so that what an operator types can be typed.
//!
//! ```text
//! let server = ApiServer::start();
//! let printed = server.kubectl("apply -k daemonset/overlays/kube-proxy");      // in the repository; panics if it fails
//! let (code, output, errors) = server.run("rollout status ...");               // the same, not judged
//! server.kubeconfig();                   // KUBECONFIG for commands of a document; set HOME to its directory as well
//! server.objects();                      // what there is now; server.object("daemonsets", "node-local-dns")
//! server.seed(&json!({...}));            // an object that was there before
//! ```
//!
//! It has the kinds of `kinds.rs` (one row for each), keeps only what it can read strictly, and does: get (lists by label and
//! field), create, replace, strategic and JSON merge patches, dry runs, delete (with `--cascade=orphan`), and for DaemonSets
//! the rules of surge and selector, revisions (`rollout history`, `undo`), a pod on each node that was seeded, and a rollout
//! that has ended when the request has. It has few defaults, no server-side apply, and no events.

mod daemonset;
mod discovery;
mod http;
mod merge;
mod refusal;
mod store;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use serde_json::Value;
use tokio::sync::oneshot;

use crate::support::process::Directory;
use store::{Change, Key, Store};

/// It ends with this value.
pub struct ApiServer {
    store: Arc<Mutex<Store>>,
    directory: Arc<Directory>,
    kubeconfig: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ApiServer {
    pub fn start() -> ApiServer {
        let (store, directory) = (Arc::new(Mutex::new(Store::default())), Directory::new());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let (stop, stopped) = oneshot::channel();
        let served = Arc::clone(&store);
        let thread = thread::spawn(move || http::serve(listener, &served, stopped));
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             clusters:\n- name: test\n  cluster:\n    server: http://{address}\n\
             contexts:\n- name: test\n  context:\n    cluster: test\n    user: test\n\
             users:\n- name: test\n  user: {{}}\n"
        );
        let kubeconfig = directory.write("kubeconfig", &text);
        ApiServer { store, directory, kubeconfig, stop: Some(stop), thread: Some(thread) }
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Every object.
    pub fn objects(&self) -> Vec<Value> {
        self.store.lock().expect("no panic under the lock").objects.values().cloned().collect()
    }

    /// The object, wherever it is; null where there is none.
    pub fn object(&self, plural: &str, name: &str) -> Value {
        let store = self.store.lock().expect("no panic under the lock");
        let found = store.objects.iter().find(|(key, _)| key.plural == plural && key.name == name);
        found.map_or(Value::Null, |(_, object)| object.clone())
    }

    /// Puts an object there that nobody has applied.
    #[track_caller]
    pub fn seed(&self, object: &Value) {
        let kind = super::kinds::strictly(object).unwrap_or_else(|error| panic!("{error} in {object:#}"));
        let namespace = object["metadata"]["namespace"].as_str().map(str::to_owned);
        let key = Key { plural: kind.plural.to_owned(), namespace, name: String::new() };
        let change = Change { dry_run: false, body: object.clone() };
        self.store.lock().expect("no panic under the lock").create(key, change).expect("a new object");
    }

    /// Runs kubectl with these words in the repository: exit code, output and errors.
    pub fn run(&self, words: &str) -> (Option<i32>, String, String) {
        let output = self.within(Command::new("kubectl").args(words.split_whitespace()));
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    /// Runs a program in the repository whose kubectl reaches this server; its home is a directory that goes with it.
    pub fn within(&self, command: &mut Command) -> Output {
        command.current_dir(env!("CARGO_MANIFEST_DIR")).env("HOME", self.directory.path());
        command.env("KUBECONFIG", self.kubeconfig()).output().expect("kubectl: apt-get install kubernetes-client")
    }

    /// As [`ApiServer::run`] where it has to succeed: what it printed.
    #[track_caller]
    pub fn kubectl(&self, words: &str) -> String {
        let (code, output, errors) = self.run(words);
        assert_eq!(code, Some(0), "kubectl {words}\n{output}\n{errors}");
        output
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().expect("taken once").join();
        assert!(ended.is_ok() || thread::panicking(), "the API server panicked");
    }
}
