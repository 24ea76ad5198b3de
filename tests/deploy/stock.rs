//! The objects of the node-cache add-on as facts: what an operator has who installed it by the guide of Kubernetes for
//! kube-proxy in iptables mode, with cluster.local, 169.254.20.10 and a Service kube-dns at 10.96.0.10.

use serde_json::{Value, json};

const NAME: &str = "node-local-dns";

/// Flags and their values; the first are the addresses.
const ARGS: [&str; 8] = [
    "-localip",
    "169.254.20.10,10.96.0.10",
    "-conf",
    "/etc/Corefile",
    "-upstreamsvc",
    "kube-dns-upstream",
    "-pidfile",
    "/tmp/node-cache.pid",
];

/// Volumes and where they are in the container.
const MOUNTS: [(&str, &str); 3] =
    [("xtables-lock", "/run/xtables.lock"), ("config-volume", "/etc/coredns"), ("kube-dns-config", "/etc/kube-dns")];

/// Ports of the container: name, number, protocol.
const PORTS: [(&str, u16, &str); 3] = [("dns", 53, "UDP"), ("dns-tcp", 53, "TCP"), ("metrics", 9253, "TCP")];

/// Effect and key of what is tolerated.
const TOLERATED: [(&str, &str); 3] = [("key", "CriticalAddonsOnly"), ("effect", "NoExecute"), ("effect", "NoSchedule")];

/// All of them.
pub fn objects() -> Vec<Value> {
    vec![service_account(), upstream_service(), metrics_service(), config_map(), daemonset()]
}

pub fn daemonset() -> Value {
    let labels = json!({"k8s-app": NAME});
    let mut daemonset = object("apps/v1", "DaemonSet", NAME, &[("k8s-app", NAME), CLUSTER_SERVICE, MODE]);
    daemonset["spec"] = json!({
        "selector": {"matchLabels": labels},
        "updateStrategy": {"rollingUpdate": {"maxUnavailable": "10%"}},
        "template": {"metadata": {"labels": labels, "annotations": scraped()}, "spec": pod()},
    });
    daemonset
}

const CLUSTER_SERVICE: (&str, &str) = ("kubernetes.io/cluster-service", "true");
const MODE: (&str, &str) = ("addonmanager.kubernetes.io/mode", "Reconcile");

fn object(version: &str, kind: &str, name: &str, labels: &[(&str, &str)]) -> Value {
    let labels: serde_json::Map<String, Value> =
        labels.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    json!({
        "apiVersion": version, "kind": kind,
        "metadata": {"name": name, "namespace": "kube-system", "labels": labels},
    })
}

fn service_account() -> Value {
    object("v1", "ServiceAccount", NAME, &[CLUSTER_SERVICE, MODE])
}

fn upstream_service() -> Value {
    let labels = [("k8s-app", "kube-dns"), CLUSTER_SERVICE, MODE, ("kubernetes.io/name", "KubeDNSUpstream")];
    let mut service = object("v1", "Service", "kube-dns-upstream", &labels);
    let port = |(name, port, protocol)| json!({"name": name, "port": port, "protocol": protocol, "targetPort": port});
    let ports: Vec<Value> = PORTS[..2].iter().copied().map(port).collect();
    service["spec"] = json!({"ports": ports, "selector": {"k8s-app": "kube-dns"}});
    service
}

fn metrics_service() -> Value {
    let mut service = object("v1", "Service", NAME, &[("k8s-app", NAME)]);
    service["metadata"]["annotations"] = scraped();
    let port = json!({"name": "metrics", "port": 9253, "targetPort": 9253});
    service["spec"] = json!({"clusterIP": "None", "ports": [port], "selector": {"k8s-app": NAME}});
    service
}

/// With the Corefile of the tests, as the operator's sed left it.
fn config_map() -> Value {
    let corefile = include_str!("../corefiles/nodelocaldns")
        .replace("__PILLAR__DNS__DOMAIN__", "cluster.local")
        .replace("__PILLAR__LOCAL__DNS__", "169.254.20.10")
        .replace("__PILLAR__DNS__SERVER__", "10.96.0.10");
    let mut map = object("v1", "ConfigMap", NAME, &[MODE]);
    map["data"] = json!({"Corefile": corefile});
    map
}

fn scraped() -> Value {
    json!({"prometheus.io/port": "9253", "prometheus.io/scrape": "true"})
}

fn pod() -> Value {
    let tolerated = |(key, value): &(&str, &str)| {
        let mut toleration = json!({"operator": "Exists"});
        toleration[*key] = json!(value);
        toleration
    };
    json!({
        "priorityClassName": "system-node-critical", "serviceAccountName": NAME, "hostNetwork": true, "dnsPolicy": "Default",
        "tolerations": TOLERATED.iter().map(tolerated).collect::<Vec<_>>(),
        "containers": [container()],
        "volumes": [
            {"name": "xtables-lock", "hostPath": {"path": "/run/xtables.lock", "type": "FileOrCreate"}},
            {"name": "kube-dns-config", "configMap": {"name": "kube-dns", "optional": true}},
            {"name": "config-volume", "configMap": {
                "name": NAME, "items": [{"key": "Corefile", "path": "Corefile.base"}]}},
        ],
    })
}

fn container() -> Value {
    let port =
        |(name, port, protocol): &(&str, u16, &str)| json!({"name": name, "containerPort": port, "protocol": protocol});
    let mount = |(name, path): &(&str, &str)| json!({"name": name, "mountPath": path});
    json!({
        "name": "node-cache", "image": "registry.k8s.io/dns/k8s-dns-node-cache:1.26.4", "args": ARGS,
        "resources": {"requests": {"cpu": "25m", "memory": "5Mi"}},
        "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}},
        "ports": PORTS.iter().map(port).collect::<Vec<_>>(),
        "livenessProbe": {
            "httpGet": {"host": "169.254.20.10", "path": "/health", "port": 8080},
            "initialDelaySeconds": 60, "timeoutSeconds": 5,
        },
        "volumeMounts": MOUNTS.iter().map(mount).collect::<Vec<_>>(),
    })
}
