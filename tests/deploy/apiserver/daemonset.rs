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
    let mut revisions = of(store, daemonset);
    let newest = revisions.iter().filter_map(|(_, revision)| revision["revision"].as_u64()).max().unwrap_or(0);
    let (key, mut revision) = match revisions.iter().position(|(_, revision)| revision["data"] == data) {
        Some(place) => revisions.swap_remove(place),
        None => fresh(daemonset, newest + 1, data),
    };
    if revision["revision"] != newest || newest == 0 {
        revision["revision"] = json!(newest + 1);
    }
    store.objects.insert(key, revision);
}

/// Its revisions.
pub fn of(store: &Store, daemonset: &Value) -> Vec<(Key, Value)> {
    let owned = |object: &Value| object["metadata"]["ownerReferences"][0]["uid"] == daemonset["metadata"]["uid"];
    let revisions = store.objects.iter().filter(|(key, object)| key.plural == "controllerrevisions" && owned(object));
    revisions.map(|(key, object)| (key.clone(), object.clone())).collect()
}

fn fresh(daemonset: &Value, number: u64, data: Value) -> (Key, Value) {
    let metadata = &daemonset["metadata"];
    let name = format!("{}-{number}", metadata["name"].as_str().expect("a name"));
    let owner = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "name": metadata["name"], "uid": metadata["uid"], "controller": true,
        "blockOwnerDeletion": true,
    });
    let revision = json!({
        "apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": number, "data": data,
        "metadata": {
            "name": name, "namespace": metadata["namespace"], "uid": name, "ownerReferences": [owner],
            "labels": daemonset["spec"]["template"]["metadata"]["labels"],
        },
    });
    let namespace = metadata["namespace"].as_str().map(str::to_owned);
    (Key { plural: "controllerrevisions".to_owned(), namespace, name }, revision)
}
