//! The manifests as kubectl renders them: every object is one that a cluster takes, and what they do not share with the
//! node-cache add-on is said here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::{Value, json};

use super::kinds::strictly;
use super::stock;
use crate::support::process::Directory;

const OVERLAYS: [&str; 6] = ["kube-proxy", "ipvs", "link-local", "dual-stack", "cilium", "stock-corefile"];

/// On the node's network.
const ON_THE_NODE: [&str; 5] = ["kube-proxy", "ipvs", "link-local", "dual-stack", "stock-corefile"];

fn daemonset_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("daemonset")
}

fn read(path: &str) -> String {
    fs::read_to_string(daemonset_directory().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn rendered(path: &str) -> String {
    successful(Command::new("kubectl").arg("kustomize").arg(daemonset_directory().join(path)))
}

/// What it printed.
fn successful(command: &mut Command) -> String {
    let output = command.output().expect("kubectl: apt-get install kubernetes-client");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn objects(yaml: &str) -> Vec<Value> {
    let documents = serde_yaml_ng::Deserializer::from_str(yaml);
    documents.map(|document| Value::deserialize(document).expect("YAML")).collect()
}

fn overlay(name: &str) -> Vec<Value> {
    objects(&rendered(&format!("overlays/{name}")))
}

fn one<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

fn daemonset(name: &str) -> Value {
    one(&overlay(name), "DaemonSet", "node-local-dns").clone()
}

fn container(daemonset: &Value) -> &Value {
    let containers = daemonset["spec"]["template"]["spec"]["containers"].as_array().expect("containers");
    assert_eq!(containers.len(), 1);
    &containers[0]
}

/// Where `theirs` has something that `ours` has not, or has otherwise. Elements of lists go by what names them.
fn differences(theirs: &Value, ours: &Value, path: &str, found: &mut Vec<String>) {
    let named = |element: &Value| {
        let name = ["mountPath", "name", "key", "effect"].iter().find_map(|key| element[key].as_str());
        name.map(str::to_owned)
    };
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(_)) => {
            for (key, value) in theirs {
                differences(value, &ours[key], &format!("{path}.{key}"), found);
            }
        }
        (Value::Array(theirs), Value::Array(ours)) if theirs.iter().all(|element| named(element).is_some()) => {
            for element in theirs {
                let same = ours.iter().find(|ours| named(ours) == named(element)).unwrap_or(&Value::Null);
                differences(element, same, &format!("{path}[{}]", named(element).unwrap_or_default()), found);
            }
        }
        (Value::Array(theirs), Value::Array(ours)) if theirs.len() == ours.len() => {
            for (number, (theirs, ours)) in theirs.iter().zip(ours).enumerate() {
                differences(theirs, ours, &format!("{path}[{number}]"), found);
            }
        }
        _ if theirs == ours => {}
        _ => found.push(path.trim_start_matches(".spec.template.spec").trim_start_matches('.').to_owned()),
    }
}

#[test]
fn every_object_is_one_that_a_cluster_takes() {
    let paths = OVERLAYS.map(|name| format!("overlays/{name}"));
    let mut files: Vec<(String, String)> =
        paths.into_iter().chain(["podmonitor".to_owned()]).map(|path| (rendered(&path), path)).collect();
    for path in ["calico.yaml", "calico-hosts.yaml", "cilium.yaml"].map(|name| format!("networkpolicy/{name}")) {
        files.push((read(&path), path));
    }
    for (yaml, path) in files {
        let objects = objects(&yaml);
        assert!(!objects.is_empty(), "{path}");
        for object in objects {
            strictly(&object).unwrap_or_else(|error| panic!("{path}: {error}"));
        }
    }
}

#[test]
fn all_that_differs_from_the_stock_add_on_is_known() {
    let common = [
        "containers[node-cache].args[1]",
        "containers[node-cache].image",
        // Asked in the pod: HTTP at the node's address says nothing of this pod.
        "containers[node-cache].livenessProbe.httpGet",
        "containers[node-cache].livenessProbe.initialDelaySeconds",
        "containers[node-cache].ports",
        "containers[node-cache].resources.requests.memory",
        "containers[node-cache].securityContext.capabilities.add",
        "data.Corefile",
        "spec.updateStrategy.rollingUpdate.maxUnavailable",
    ];
    let in_a_pod = [
        "containers[node-cache].args",
        "containers[node-cache].image",
        "containers[node-cache].livenessProbe.httpGet",
        "containers[node-cache].livenessProbe.initialDelaySeconds",
        "containers[node-cache].resources.requests.memory",
        "containers[node-cache].securityContext.capabilities.add[0]",
        "containers[node-cache].volumeMounts[/run/xtables.lock]",
        "data.Corefile",
        "hostNetwork",
        "spec.updateStrategy.rollingUpdate.maxUnavailable",
        "volumes[xtables-lock]",
    ];
    for name in OVERLAYS {
        let ours = overlay(name);
        let mut found = Vec::new();
        for theirs in stock::objects() {
            let name = theirs["metadata"]["name"].as_str().expect("a name");
            let same = one(&ours, theirs["kind"].as_str().expect("a kind"), name);
            differences(&theirs, same, "", &mut found);
        }
        found.sort();
        assert_eq!(found, if name == "cilium" { &in_a_pod[..] } else { &common[..] }, "{name}");
        let more = ours.len() - stock::objects().len();
        assert_eq!(more, usize::from(name == "cilium"), "{name} has nothing that a way back would leave behind");
    }
}

#[test]
fn two_pods_fit_on_a_node_and_the_new_one_is_asked_by_itself() {
    for name in OVERLAYS {
        let daemonset = daemonset(name);
        let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
        assert_eq!(daemonset["spec"]["updateStrategy"], strategy, "{name}");
        let container = container(&daemonset);
        for (probe, command) in [
            ("startupProbe", json!(["/dnslet", "ready", "-started"])),
            ("readinessProbe", json!(["/dnslet", "ready"])),
            ("livenessProbe", json!(["/dnslet", "ready", "-alive"])),
        ] {
            assert_eq!(container[probe]["exec"]["command"], command, "{name}");
            assert_eq!(container[probe]["httpGet"], Value::Null, "{name}: one handler");
        }
        let on_the_node = ON_THE_NODE.contains(&name);
        assert_eq!(container["ports"].is_null(), on_the_node, "{name}: ports of the node cannot be had twice");
    }
}

#[test]
fn a_node_is_taken_out_by_its_label_and_a_stop_has_the_time_of_the_stock_add_on() {
    for name in OVERLAYS {
        let daemonset = daemonset(name);
        let pod = &daemonset["spec"]["template"]["spec"];
        let required = &pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        let elsewhere = json!({"key": "node-local-dns", "operator": "NotIn", "values": ["off"]});
        assert_eq!(*required, json!({"nodeSelectorTerms": [{"matchExpressions": [elsewhere]}]}), "{name}");
        assert_eq!(pod["terminationGracePeriodSeconds"], 30, "{name}");
    }
}

#[test]
fn the_overlay_says_where_the_image_comes_from() {
    for name in OVERLAYS {
        let copy = Directory::new();
        successful(Command::new("cp").arg("-r").args([daemonset_directory().as_path(), copy.path()]));
        let path = copy.path().join(format!("daemonset/overlays/{name}"));
        let file = path.join("kustomization.yaml");
        let shipped = fs::read_to_string(&file).expect("the overlay");
        let edited =
            shipped.replace("newName: dnslet", "newName: registry.example/dns/dnslet").replace("newTag: ", "newTag: x");
        fs::write(&file, edited).expect("our own copy");
        let objects = objects(&successful(Command::new("kubectl").arg("kustomize").arg(path)));
        let image = concat!("registry.example/dns/dnslet:x", env!("CARGO_PKG_VERSION"));
        assert_eq!(container(one(&objects, "DaemonSet", "node-local-dns"))["image"], image, "{name}");
    }
}

#[test]
fn pods_have_no_right_that_is_not_needed() {
    for name in OVERLAYS {
        let daemonset = daemonset(name);
        let pod = &daemonset["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"], json!({"seccompProfile": {"type": "RuntimeDefault"}}), "{name}");
        assert_eq!((&pod["automountServiceAccountToken"], &pod["enableServiceLinks"]), (&json!(false), &json!(true)));
        let on_the_node = ON_THE_NODE.contains(&name);
        let needed: &[&str] = if on_the_node { &["NET_ADMIN", "NET_BIND_SERVICE"] } else { &["NET_BIND_SERVICE"] };
        let expected = json!({
            "runAsUser": 0, "runAsGroup": 0, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"], "add": needed},
        });
        assert_eq!(container(&daemonset)["securityContext"], expected, "{name}");
        assert_eq!(container(&daemonset)["image"], concat!("dnslet:", env!("CARGO_PKG_VERSION")), "{name}");
        assert_eq!(pod["hostNetwork"], on_the_node, "{name}");
    }
}

/// Runs `check` as the pod would start: the flags of the overlay with what kubelet puts for variables.
fn check(overlay: &[Value], corefile: &str, domain: &str) -> (Option<i32>, String) {
    let directory = Directory::new();
    let template = directory.write("Corefile.base", corefile);
    let daemonset = one(overlay, "DaemonSet", "node-local-dns");
    let arguments = container(daemonset)["args"].as_array().expect("arguments");
    let arguments = arguments.iter().map(|argument| {
        let argument = argument.as_str().expect("text");
        argument.replace("$(KUBE_DNS_SERVICE_HOST)", "10.96.0.10").replace("$(POD_IPS)", "10.244.1.7,fd00:10:244:1::7")
    });
    let output = Command::new(env!("CARGO_BIN_EXE_dnslet"))
        .arg("check")
        .args(arguments)
        .arg("-basecorefile")
        .arg(template)
        .env("KUBE_DNS_UPSTREAM_SERVICE_HOST", "10.96.7.7")
        .env("CLUSTER_DOMAIN", domain)
        .output()
        .expect("the built binary");
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code(), format!("{out}{errors}"))
}

#[test]
fn the_corefile_of_every_overlay_is_one_that_its_pods_take() {
    for name in OVERLAYS {
        let overlay = overlay(name);
        let corefile = one(&overlay, "ConfigMap", "node-local-dns")["data"]["Corefile"].as_str().expect("a Corefile");
        let environment = &container(one(&overlay, "DaemonSet", "node-local-dns"))["env"];
        let domain = json!({"name": "CLUSTER_DOMAIN", "value": "cluster.local"});
        assert!(environment.as_array().is_some_and(|variables| variables.contains(&domain)), "{name}: {environment}");
        for domain in ["cluster.local", "corp.example"] {
            assert_eq!(check(&overlay, corefile, domain), (Some(0), "ok\n".to_owned()), "{name}");
        }
        let (code, said) = check(&overlay, corefile, "corp..example");
        assert!(code == Some(1) && said.contains("CLUSTER_DOMAIN"), "{name} takes the domain from there: {said}");
        let (code, said) = check(&overlay, &corefile.replace("    loop\n", "    lop\n"), "cluster.local");
        assert!(code == Some(1) && said.contains("lop"), "{name}: {said}");
    }
}

#[test]
fn corefiles_differ_where_they_have_to() {
    // Connections that led to the pod go on until Cilium has led them elsewhere.
    let health = "health :8080 {\n        lameduck 10s\n    }";
    let in_a_pod = read("base/Corefile").replace("health 169.254.20.10:8080", health);
    assert_eq!(read("overlays/cilium/Corefile"), in_a_pod);
    let stock = include_str!("../corefiles/nodelocaldns")
        .replace("health __PILLAR__LOCAL__DNS__", "health 169.254.20.10")
        .replace(" __PILLAR__DNS__SERVER__", "");
    let ours = read("overlays/stock-corefile/Corefile");
    assert!(ours.split_whitespace().eq(stock.split_whitespace()), "the directives of the add-on, in its order");
}

#[test]
fn the_single_file_is_what_the_overlay_renders_to() {
    let file = read("dnslet.yaml");
    assert!(file.starts_with("# "), "it says what it is");
    // Versions of kubectl order and fold text differently; what they say is the same.
    assert!(objects(&file) == overlay("kube-proxy"), "make manifests writes another daemonset/dnslet.yaml");
}
