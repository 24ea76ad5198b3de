//! A container of the image, run by runc with what the DaemonSet's pod says and nothing more.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::unistd::Pid;
use serde_json::{Value, json};

use super::super::image;
use super::pod::Pod;
use super::seccomp;
use crate::lab::agent::child_of;
use crate::lab::host::run;
use crate::support::process::{Directory, Process};
use crate::support::time;

/// The node's own files, shown to every container on it.
pub struct Node(Arc<Directory>);

/// A running container; it ends with this value.
pub struct Container {
    id: String,
    runc: Process,
    /// Held so that the node's files live as long as the container.
    _node: Arc<Directory>,
}

impl Node {
    /// One whose resolv.conf names the DNS server outside of the cluster.
    pub fn new() -> Node {
        let directory = Directory::new();
        directory.write("etc/resolv.conf", "nameserver 10.9.3.2\n");
        Node(directory)
    }

    /// Starts the pod's container from the image of that flavour, and waits for nothing.
    pub fn launch(&self, pod: &Pod, flavour: &str) -> Container {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let id = format!("dnslet-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        let directory = Directory::new();
        let bundle = directory.path().join("bundle");
        let mut config = image::unpack(flavour, &bundle);
        self.configure(&mut config, pod, &directory.path().join("volumes"));
        // Below a root of its own, so that it does not end with the group of whoever runs the test.
        config["linux"]["cgroupsPath"] = json!(format!("/{id}"));
        std::fs::write(bundle.join("config.json"), config.to_string()).expect("a writable directory");
        let mut command = Command::new("runc");
        command.arg("run").arg("--bundle").arg(&bundle).arg(&id);
        let runc = Process::start("the container", command, directory);
        Container { id, runc, _node: Arc::clone(&self.0) }
    }

    /// Turns what the image asks for into what the pod is given.
    fn configure(&self, config: &mut Value, pod: &Pod, volumes: &Path) {
        let (security, capabilities) = (pod.security(), pod.capabilities());
        let process = &mut config["process"];
        process["terminal"] = json!(false);
        process["args"].as_array_mut().expect("an entrypoint").extend(pod.arguments().into_iter().map(Value::from));
        let environment = pod.environment().into_iter().map(|(name, value)| json!(format!("{name}={value}")));
        process["env"].as_array_mut().expect("a list").extend(environment);
        process["capabilities"] =
            json!({ "bounding": capabilities, "effective": capabilities, "permitted": capabilities });
        process["noNewPrivileges"] = json!(security.allow_privilege_escalation == Some(false));
        // A runtime hands on its own limit of open files, and so does this one.
        process["rlimits"] = json!([]);
        config["root"]["readonly"] = json!(security.read_only_root_filesystem == Some(true));
        config["hostname"].take();
        self.mount(config, pod, volumes);
        config["linux"]["seccomp"] = seccomp::runtime_default(&capabilities);
        // A machine that does other work lets the container go first.
        config["linux"]["resources"] =
            json!({ "memory": { "limit": pod.memory_limit() }, "cpu": { "shares": 1 << 18 } });
        config["linux"]["namespaces"] = json!([
            { "type": "pid" }, { "type": "ipc" }, { "type": "mount" }, { "type": "network", "path": "/run/netns/node" }
        ]);
    }

    fn mount(&self, config: &mut Value, pod: &Pod, volumes: &Path) {
        let bind = |source: &Path, destination: &str, read_only: bool| {
            let options = ["rbind", "rprivate", if read_only { "ro" } else { "rw" }];
            json!({ "type": "bind", "source": source, "destination": destination, "options": options })
        };
        let mounts = config["mounts"].as_array_mut().expect("those of every container");
        mounts.retain(|mount| mount["type"] != "cgroup");
        mounts.push(json!({
            "type": "cgroup", "source": "cgroup", "destination": "/sys/fs/cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]
        }));
        mounts.push(bind(&self.0.path().join("etc/resolv.conf"), "/etc/resolv.conf", false));
        for one in pod.mounts(self.0.path(), volumes) {
            mounts.push(bind(&one.source, &one.destination, one.read_only));
        }
    }
}

impl Container {
    /// The first process of the container.
    #[track_caller]
    pub fn keeper(&mut self) -> Pid {
        time::until("a running container", || {
            self.runc.check_alive();
            let state = Command::new("runc").args(["state", &self.id]).output().expect("runc ran before");
            let state: Value = serde_json::from_slice(&state.stdout).ok()?;
            let running = state["status"] == "running";
            running
                .then(|| Pid::from_raw(i32::try_from(state["pid"].as_i64().expect("a number")).expect("a process id")))
        })
    }

    /// The keeper's child, without capabilities.
    #[track_caller]
    pub fn server(&mut self) -> Pid {
        let keeper = self.keeper();
        time::until("the keeper to have a child", || child_of(keeper))
    }

    /// Runs a command in the container, as kubelet does for a probe.
    pub fn exec(&self, command: &[String]) -> Output {
        Command::new("runc").args(["exec", &self.id]).args(command).output().expect("runc ran before")
    }

    /// Octets of memory that its control group uses.
    pub fn memory(&self) -> u64 {
        let events = run(Command::new("runc").args(["events", "--stats", &self.id]));
        let events: Value = serde_json::from_str(&events).expect("JSON");
        events["data"]["memory"]["usage"]["usage"].as_u64().expect("a number")
    }
}

impl Deref for Container {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.runc
    }
}

impl DerefMut for Container {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.runc
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // One that ended is gone already, and whether it was to end is seen where its process is.
        if Command::new("runc").args(["state", &self.id]).output().is_ok_and(|state| state.status.success()) {
            run(Command::new("runc").args(["delete", "--force", &self.id]));
            self.runc.wait();
        }
    }
}
