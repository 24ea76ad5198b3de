//! node-cache replaced in place and put back, by kubectl, beside an API server: what docs/migrating.md says to type.

use std::process::Command;

use serde_json::{Value, json};

use super::apiserver::ApiServer;
use super::stock;
use crate::support::process::Directory;
use crate::support::program::assert_has;

const OVERLAY: &str = "daemonset/overlays/kube-proxy";

fn container(server: &ApiServer) -> Value {
    server.object("daemonsets", "node-local-dns")["spec"]["template"]["spec"]["containers"][0].clone()
}

/// What operators have as a file: the add-on, addresses filled in.
fn file_of_the_add_on(directory: &Directory) -> String {
    let document = |object: &Value| serde_yaml_ng::to_string(object).expect("YAML of JSON");
    let documents: Vec<String> = stock::objects().iter().map(document).collect();
    directory.write("nodelocaldns.yaml", &documents.join("---\n")).display().to_string()
}

/// What an operator decides about an object; the rest is the server's.
fn intent(object: &Value) -> Value {
    let mut object = object.clone();
    let metadata = object["metadata"].as_object_mut().expect("every object has it");
    metadata.retain(|key, _| ["name", "namespace", "labels", "annotations"].contains(&key.as_str()));
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.retain(|key, _| !key.starts_with("kubectl.kubernetes.io/"));
    }
    object.as_object_mut().expect("an object").remove("status");
    object
}

/// The commands of the document's section, one text for each step.
fn steps() -> [&'static str; 5] {
    let page = include_str!("../../docs/migrating.md");
    let section = page.split("\n## ").find(|section| section.starts_with("node-cache in place")).expect("the section");
    let blocks: Vec<&str> = section.split("\n```").filter_map(|block| block.strip_prefix("sh cluster\n")).collect();
    blocks.try_into().expect("keep, look, apply, make anew, back")
}

/// Types them: what was printed, output and errors.
fn typed(server: &ApiServer, script: &str) -> String {
    let output = server.within(Command::new("bash").args(["-euo", "pipefail", "-c", script]));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}\n{text}");
    text
}

#[test]
fn an_applied_node_cache_is_replaced_in_place_and_put_back() {
    let (server, directory) = (ApiServer::start(), Directory::new());
    let stock = file_of_the_add_on(&directory);
    server.kubectl(&format!("apply -f {stock}"));
    let before = server.objects();
    let uid = || server.object("daemonsets", "node-local-dns")["metadata"]["uid"].clone();
    let first = uid();

    let [keep, look, apply, _, back] = steps();
    typed(&server, keep);
    let difference = typed(&server, look);
    let expected = [
        "-        image: registry.k8s.io/",
        "+        image: dnslet:",
        "-        ports:",
        "+      maxSurge: 1",
        "+  publishNotReady",
    ];
    assert_has(&difference, &expected);
    assert!(
        !difference.contains("v1.Service.kube-system.kube-dns-upstream"),
        "its Service stays as it is: {difference}"
    );

    assert!(typed(&server, apply).contains("successfully rolled out"));
    let nothing = (Some(0), String::new(), String::new());
    assert_eq!(server.run(&format!("diff -k {OVERLAY}")), nothing, "nothing is left to do");
    let after = server.object("daemonsets", "node-local-dns");
    assert_eq!(uid(), first, "in place");
    assert_eq!(container(&server)["ports"], Value::Null, "no host ports, so that a second pod fits on the node");
    assert_eq!(container(&server)["livenessProbe"]["initialDelaySeconds"], Value::Null);
    let rolling = &after["spec"]["updateStrategy"]["rollingUpdate"];
    assert_eq!(*rolling, json!({"maxSurge": 1, "maxUnavailable": 0}));

    typed(&server, back);
    let intents = |objects: Vec<Value>| -> Vec<Value> {
        objects.iter().filter(|object| object["kind"] != "ControllerRevision").map(intent).collect()
    };
    assert_eq!(intents(server.objects()), intents(before));
}

#[test]
fn where_kubectl_did_not_apply_node_cache_ours_is_refused_until_the_daemonset_is_made_anew() {
    let page = include_str!("../../docs/migrating.md");
    let twofold = "may not specify more than 1 handler type";
    let privileged = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
    for (daemonset, refusals) in [(stock::daemonset(), vec![twofold]), (older(), vec![privileged, twofold])] {
        let server = ApiServer::start();
        let others = stock::objects().into_iter().filter(|object| object["kind"] != "DaemonSet");
        others.chain([daemonset]).for_each(|object| server.seed(&object));
        let before = container(&server);
        let [keep, _, _, anew, _] = steps();
        assert_eq!(typed(&server, &format!("{keep}\ncat ~/node-cache.yaml")), "---\n".repeat(5));

        for verb in ["diff", "apply"] {
            let (code, _, errors) = server.run(&format!("{verb} -k {OVERLAY}"));
            assert_ne!(code, Some(0), "{errors}");
            assert_has(&errors, &refusals);
        }
        assert_has(page, &refusals);
        assert_eq!(container(&server), before, "it goes on");

        typed(&server, anew);
        assert_eq!(container(&server)["ports"], Value::Null);
        assert_eq!(server.run(&format!("diff -k {OVERLAY}")), (Some(0), String::new(), String::new()));
    }
}

/// The add-on's DaemonSet, as it was when its pods were privileged.
fn older() -> Value {
    let mut daemonset = stock::daemonset();
    daemonset["spec"]["template"]["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    daemonset
}

#[test]
fn what_kubectl_applied_of_an_older_node_cache_it_takes_away() {
    let (server, directory) = (ApiServer::start(), Directory::new());
    let file = directory.write("nodelocaldns.json", &older().to_string());
    server.kubectl(&format!("apply -f {}", file.display()));
    server.kubectl(&format!("apply -k {OVERLAY}"));
    assert_eq!(container(&server)["securityContext"]["privileged"], Value::Null);
}

#[test]
fn what_operators_do_with_a_daemonset_can_be_done() {
    let server = ApiServer::start();
    server.kubectl(&format!("apply -k {OVERLAY}"));
    let image = || container(&server)["image"].as_str().expect("an image").to_owned();
    let shipped = image();
    server.kubectl("-n kube-system set image daemonset/node-local-dns node-cache=dnslet:next");
    assert_eq!(image(), "dnslet:next");
    server.kubectl("-n kube-system rollout restart daemonset/node-local-dns");
    server.kubectl("-n kube-system rollout undo daemonset/node-local-dns --to-revision=1");
    assert_eq!(image(), shipped);
    let history = server.kubectl("-n kube-system rollout history daemonset/node-local-dns");
    assert_eq!(history.lines().filter(|line| line.ends_with("<none>")).count(), 3, "{history}");
    assert_has(
        &server.kubectl("-n kube-system get daemonsets,svc -l k8s-app=node-local-dns"),
        &["daemonset.apps/", "service/"],
    );
    let (code, _, errors) = server.run("-n kube-system get configmap kube-dns");
    assert!(code == Some(1) && errors.contains("not found"), "{errors}");
    server.kubectl(&format!("delete -k {OVERLAY}"));
    assert_eq!(server.objects(), Vec::<Value>::new());
}

#[test]
fn what_a_cluster_would_refuse_is_refused() {
    let (server, directory) = (ApiServer::start(), Directory::new());
    server.kubectl(&format!("apply -k {OVERLAY}"));
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut object = stock::daemonset();
        change(&mut object);
        let path = directory.write("changed.json", &object.to_string());
        let (code, _, errors) = server.run(&format!("apply -f {}", path.display()));
        assert_eq!(code, Some(1), "{errors}");
        errors
    };
    let misspelled = refused(&|object| object["spec"]["template"]["spec"]["hostnetwork"] = json!(true));
    assert!(misspelled.contains("unknown field \"spec.template.spec.hostnetwork\""), "{misspelled}");
    let other = refused(&|object| object["spec"]["selector"] = json!({"matchLabels": {"k8s-app": "other"}}));
    assert!(other.contains("field is immutable"), "{other}");
    let both = refused(&|object| object["spec"]["updateStrategy"]["rollingUpdate"]["maxSurge"] = json!(1));
    assert!(both.contains("may not be set when maxUnavailable is non-zero"), "{both}");
}
