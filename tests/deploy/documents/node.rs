//! What is typed at a cluster, and on a node of it.
//!
//! The cluster is an API server with two nodes. One of them is real: a network with pods around it, kube-proxy, and the
//! cluster's DNS. There the built program runs with the arguments of the DaemonSet.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use serde_json::json;

use super::page::{Page, Place, read, run};
use crate::deploy::apiserver::ApiServer;
use crate::deploy::stock;
use crate::lab::host::run as successful;
use crate::lab::{self, KubeProxy, LINK_LOCAL, Lab, NODE, SERVICE, UPSTREAM_SERVICE};
use crate::support::namespace;
use crate::support::process::Directory;

const TEST: &str = "deploy::documents::node";
const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");

/// In namespaces, one of processes among them: `dnslet ready` asks the agent that is in its own. Directories for scratch are
/// named by process ids, which others in such a namespace have, too: they get a place of their own, and not over a checkout
/// that is itself in the usual one.
fn entered(test: &str) -> bool {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("documents");
    fs::create_dir_all(&scratch).expect("a writable target directory");
    let place = format!("TMPDIR={}", scratch.display());
    let flags = ["--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let inside = lab::furnished(namespace::entered_with(&["env", &place], &flags, &format!("{TEST}::{test}")));
    if inside {
        successful(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(scratch));
    }
    inside
}

#[test]
fn what_is_typed_on_a_node_succeeds() {
    if !entered("what_is_typed_on_a_node_succeeds") {
        return;
    }
    let _lab = Lab::new(KubeProxy::Nftables);
    let node = Node::new();
    for page in Page::with(Place::Node) {
        let agent = Agent(node.file("started"));
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", NODE.0)).args(["bash", "-c"]);
        node.prepare(&mut command);
        run(command, &page.script(Place::Node, |_| true));
        drop(agent);
    }
}

#[test]
fn what_is_typed_at_a_cluster_succeeds() {
    if !entered("what_is_typed_at_a_cluster_succeeds") {
        return;
    }
    let _lab = Lab::new(KubeProxy::Nftables);
    let node = Node::new();
    for page in Page::with(Place::Cluster) {
        let server = cluster();
        let agent = Agent(node.file("started"));
        let bash = || {
            let mut command = Command::new("bash");
            node.prepare(&mut command);
            command.env("KUBECONFIG", server.kubeconfig()).arg("-c");
            command
        };
        match page.path {
            "README.md" => {}
            "docs/migrating.md" => run(bash(), &format!("kubectl apply -f {}", node.add_on().display())),
            _ => run(bash(), "kubectl apply -k daemonset/overlays/kube-proxy"),
        }
        run(bash(), &page.script(Place::Cluster, |_| true));
        drop(agent);
    }
}

/// An API server with two nodes.
fn cluster() -> ApiServer {
    let server = ApiServer::start();
    for name in ["worker-1", "worker-2"] {
        server.seed(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}));
    }
    server
}

/// The files that the node has besides its network.
struct Node(Arc<Directory>);

impl Node {
    /// The Corefile is where a container has the template, and, filled in, where node-cache has the result.
    fn new() -> Node {
        let directory = Directory::new();
        let template = read("daemonset/base/Corefile");
        let filled = template
            .replace("__PILLAR__DNS__DOMAIN__", "cluster.local")
            .replace("__PILLAR__LOCAL__DNS__", &format!("{} {}", LINK_LOCAL[0], SERVICE[0]))
            .replace("__PILLAR__CLUSTER__DNS__", UPSTREAM_SERVICE)
            .replace("__PILLAR__UPSTREAM__SERVERS__", "10.9.3.2");
        directory.write("etc/coredns/Corefile.base", &template);
        directory.write("etc/Corefile", &filled);
        // `mv` would leave the link of a machine whose resolv.conf is one.
        directory.write("etc/resolv.conf", "nameserver 10.9.3.2\n");
        let layers = format!("lowerdir={}:/etc", directory.path().join("etc").display());
        successful(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &layers, "/etc"]));
        for program in ["kubectl", "dnslet"] {
            let program = Path::new("tests/deploy/documents").join(program);
            let name = directory.path().join(program.file_name().expect("a file"));
            symlink(Path::new(REPOSITORY).join(program), name).expect("a writable directory");
        }
        Node(directory)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What operators of node-cache have as a file.
    fn add_on(&self) -> PathBuf {
        let objects = stock::objects();
        let documents: Vec<String> =
            objects.iter().map(|object| serde_yaml_ng::to_string(object).expect("YAML of JSON")).collect();
        self.0.write("nodelocaldns.yaml", &documents.join("---\n"))
    }

    /// What the two programs in front of the real ones are told.
    fn prepare(&self, command: &mut Command) {
        let kubectl = successful(Command::new("sh").args(["-c", "command -v kubectl"]));
        command.current_dir(REPOSITORY).env("HOME", self.0.path());
        command.env("PATH", format!("{}:{}", self.0.path().display(), super::path()));
        command.env("PROGRAM", env!("CARGO_BIN_EXE_dnslet")).env("STARTED", self.file("started"));
        command.env("KUBECTL", kubectl.trim()).env("REPOSITORY", REPOSITORY);
        command.env("NODE_NETWORK", format!("/run/netns/{}", NODE.0));
        command.env("KUBE_DNS_SERVICE_HOST", SERVICE[0]).env("KUBE_DNS_UPSTREAM_SERVICE_HOST", UPSTREAM_SERVICE);
    }
}

/// The agent that a script leaves serving, by the file with its process id: ended with this value.
struct Agent(PathBuf);

impl Drop for Agent {
    fn drop(&mut self) {
        let Ok(process) = fs::read_to_string(&self.0) else { return };
        fs::remove_file(&self.0).expect("it was there");
        let process = Pid::from_raw(process.trim().parse().expect("a process id"));
        kill(process, Signal::SIGTERM).expect("the agent runs");
        // The script that started it is gone, so it is a child of this process, the first one of its namespace.
        waitpid(process, None).expect("our own child");
    }
}
