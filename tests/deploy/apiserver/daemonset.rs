//! What the control plane does with a DaemonSet: it fills in defaults, refuses what cannot be, keeps the templates of before as revisions, and
//! rolls out, here at once and on two nodes.

use serde_json::{Value, json};

use super::refusal::Refusal;
use super::store::{Key, Store};

const NODES: u64 = 2;

/// The defaults that matter here. On the node's network a port of the container is one of the node.
pub fn fill_in(daemonset: &mut Value) {
    let strategy = &mut daemonset["spec"]["updateStrategy"];
    if strategy["type"].is_null() {
        strategy["type"] = json!("RollingUpdate");
    }
    let pod = &mut daemonset["spec"]["template"]["spec"];
    if pod["hostNetwork"] == true {
        let containers = pod["containers"].as_array_mut().into_iter().flatten();
        let ports = containers.filter_map(|container| container.get_mut("ports")?.as_array_mut()).flatten();
        ports.for_each(|port| port["hostPort"] = port["containerPort"].clone());
    }
}

/// The rules of Kubernetes that a change of a DaemonSet can break.
pub fn check(old: Option<&Value>, new: &Value) -> Result<(), Refusal> {
    if old.is_some_and(|old| old["spec"]["selector"] != new["spec"]["selector"]) {
        return Err(Refusal::invalid("spec.selector: Invalid value: field is immutable"));
    }
    let containers = new["spec"]["template"]["spec"]["containers"].as_array().into_iter().flatten();
    let faults: Vec<&str> = containers.flat_map(faults).collect();
    if !faults.is_empty() {
        return Err(Refusal::invalid(faults.join(", ")));
    }
    let rolling = &new["spec"]["updateStrategy"]["rollingUpdate"];
    let some = |amount: &Value| !(amount.is_null() || *amount == 0 || *amount == "0%");
    match (some(&rolling["maxSurge"]), rolling["maxUnavailable"].is_null() || some(&rolling["maxUnavailable"])) {
        (true, true) => {
            Err(Refusal::invalid("maxSurge: Invalid value: may not be set when maxUnavailable is non-zero"))
        }
        (false, false) => Err(Refusal::invalid("maxUnavailable: Required value: cannot be 0 when maxSurge is 0")),
        _ => Ok(()),
    }
}

/// What is declared of a container, by what there was and by what came to it, and cannot be together.
fn faults(container: &Value) -> Vec<&'static str> {
    let context = &container["securityContext"];
    let contradicts = context["privileged"] == true && context["allowPrivilegeEscalation"] == false;
    let handlers =
        |probe: &Value| ["exec", "grpc", "httpGet", "tcpSocket"].iter().filter(|&&key| !probe[key].is_null()).count();
    let probes = ["startupProbe", "readinessProbe", "livenessProbe"];
    let twofold = probes.iter().any(|&probe| handlers(&container[probe]) > 1);
    let context =
        "securityContext: Invalid value: cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
    let probe = "livenessProbe.httpGet: Forbidden: may not specify more than 1 handler type";
    contradicts.then_some(context).into_iter().chain(twofold.then_some(probe)).collect()
}

/// The revision of its template is the newest one, and every node has it.
pub fn roll_out(store: &mut Store, daemonset: &mut Value) {
    daemonset["status"] = json!({
        "observedGeneration": daemonset["metadata"]["generation"], "currentNumberScheduled": NODES,
        "desiredNumberScheduled": NODES, "updatedNumberScheduled": NODES, "numberAvailable": NODES, "numberReady": NODES,
        "numberMisscheduled": 0,
    });
    let mut template = daemonset["spec"]["template"].clone();
    template["$patch"] = json!("replace");
    let data = json!({"spec": {"template": template}});
    let mut revisions = revisions_of(store, daemonset);
    let newest = revisions.iter().filter_map(|(_, revision)| revision["revision"].as_u64()).max().unwrap_or(0);
    let (key, mut revision) = match revisions.iter().position(|(_, revision)| revision["data"] == data) {
        Some(place) => revisions.swap_remove(place),
        None => fresh(daemonset, newest + 1, data),
    };
    if revision["revision"] != newest || newest == 0 {
        revision["revision"] = json!(newest + 1);
    }
    store.objects.insert(key, revision);
    place_pods(store, daemonset);
}

/// What belongs to it.
pub fn owned(store: &Store, daemonset: &Value) -> Vec<Key> {
    let owned = |object: &Value| object["metadata"]["ownerReferences"][0]["uid"] == daemonset["metadata"]["uid"];
    store.objects.iter().filter(|(_, object)| owned(object)).map(|(key, _)| key.clone()).collect()
}

/// Its revisions.
fn revisions_of(store: &Store, daemonset: &Value) -> Vec<(Key, Value)> {
    let keys = owned(store, daemonset).into_iter().filter(|key| key.plural == "controllerrevisions");
    keys.map(|key| (key.clone(), store.objects[&key].clone())).collect()
}

/// A pod of its template on each node that there is.
fn place_pods(store: &mut Store, daemonset: &Value) {
    owned(store, daemonset).iter().filter(|key| key.plural == "pods").for_each(|key| drop(store.objects.remove(key)));
    let (metadata, template) = (&daemonset["metadata"], &daemonset["spec"]["template"]);
    let nodes: Vec<String> =
        store.objects.keys().filter(|key| key.plural == "nodes").map(|key| key.name.clone()).collect();
    for node in nodes {
        let name = format!("{}-{node}", metadata["name"].as_str().expect("a name"));
        let mut spec = template["spec"].clone();
        spec["nodeName"] = json!(node);
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "spec": spec, "status": {"phase": "Running"},
            "metadata": {
                "name": name, "namespace": metadata["namespace"], "uid": name, "ownerReferences": [owner(metadata)],
                "labels": template["metadata"]["labels"], "creationTimestamp": metadata["creationTimestamp"],
            },
        });
        let namespace = metadata["namespace"].as_str().map(str::to_owned);
        store.objects.insert(Key { plural: "pods".to_owned(), namespace, name }, pod);
    }
}

fn owner(metadata: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "name": metadata["name"], "uid": metadata["uid"], "controller": true,
        "blockOwnerDeletion": true,
    })
}

fn fresh(daemonset: &Value, number: u64, data: Value) -> (Key, Value) {
    let metadata = &daemonset["metadata"];
    let name = format!("{}-{number}", metadata["name"].as_str().expect("a name"));
    let revision = json!({
        "apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": number, "data": data,
        "metadata": {
            "name": name, "namespace": metadata["namespace"], "uid": name, "ownerReferences": [owner(metadata)],
            "labels": daemonset["spec"]["template"]["metadata"]["labels"],
        },
    });
    let namespace = metadata["namespace"].as_str().map(str::to_owned);
    (Key { plural: "controllerrevisions".to_owned(), namespace, name }, revision)
}
