//! The kinds of objects that the manifests hold, each read strictly: what a cluster would not take, or would drop without a
//! word, is a fault that names its place.

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::custom::{CiliumClusterwideNetworkPolicy, CiliumLocalRedirectPolicy, GlobalNetworkPolicy, PodMonitor};

/// A kind, as discovery tells of it.
pub struct Kind {
    /// `v1`, or group and version: `apps/v1`.
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub short: &'static str,
    pub namespaced: bool,
    /// Reads an object into its type and writes it again.
    again: fn(&Value) -> Result<Value, String>,
}

pub static KINDS: &[Kind] = &[
    core("Namespace", "namespaces", "ns", false, again::<Namespace>),
    core("Node", "nodes", "no", false, again::<Node>),
    core("Pod", "pods", "po", true, again::<Pod>),
    core("ServiceAccount", "serviceaccounts", "sa", true, again::<ServiceAccount>),
    core("Service", "services", "svc", true, again::<Service>),
    core("ConfigMap", "configmaps", "cm", true, again::<ConfigMap>),
    namespaced("apps/v1", "DaemonSet", "daemonsets", "ds", again::<DaemonSet>),
    namespaced("apps/v1", "Deployment", "deployments", "deploy", again::<Deployment>),
    namespaced("apps/v1", "ControllerRevision", "controllerrevisions", "", again::<ControllerRevision>),
    namespaced("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", "netpol", again::<NetworkPolicy>),
    namespaced("monitoring.coreos.com/v1", "PodMonitor", "podmonitors", "pmon", again::<PodMonitor>),
    namespaced(
        "cilium.io/v2",
        "CiliumLocalRedirectPolicy",
        "ciliumlocalredirectpolicies",
        "clrp",
        again::<CiliumLocalRedirectPolicy>,
    ),
    Kind {
        version: "cilium.io/v2",
        kind: "CiliumClusterwideNetworkPolicy",
        plural: "ciliumclusterwidenetworkpolicies",
        short: "ccnp",
        namespaced: false,
        again: again::<CiliumClusterwideNetworkPolicy>,
    },
    Kind {
        version: "projectcalico.org/v3",
        kind: "GlobalNetworkPolicy",
        plural: "globalnetworkpolicies",
        short: "gnp",
        namespaced: false,
        again: again::<GlobalNetworkPolicy>,
    },
];

type Again = fn(&Value) -> Result<Value, String>;

const fn core(kind: &'static str, plural: &'static str, short: &'static str, namespaced: bool, again: Again) -> Kind {
    Kind { version: "v1", kind, plural, short, namespaced, again }
}

const fn namespaced(
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    short: &'static str,
    again: Again,
) -> Kind {
    Kind { version, kind, plural, short, namespaced: true, again }
}

impl Kind {
    /// Group and version apart; the core group has no name.
    pub fn group(&self) -> (&'static str, &'static str) {
        self.version.split_once('/').unwrap_or(("", self.version))
    }
}

/// Reads the object as its kind has it.
///
/// # Errors
/// That the kind is not known, or does not fit, or which fields it does not have.
pub fn strictly(object: &Value) -> Result<&'static Kind, String> {
    let text = |key: &str| object[key].as_str().unwrap_or_default();
    let found = KINDS.iter().find(|kind| kind.version == text("apiVersion") && kind.kind == text("kind"));
    let kind = found.ok_or_else(|| format!("no kind {} in {}", text("kind"), text("apiVersion")))?;
    let kept = (kind.again)(object)?;
    let mut lost = Vec::new();
    compare(object, &kept, String::new(), &mut lost);
    if lost.is_empty() { Ok(kind) } else { Err(format!("strict decoding error: {}", lost.join(", "))) }
}

fn again<T: DeserializeOwned + Serialize>(object: &Value) -> Result<Value, String> {
    let typed: T = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    serde_json::to_value(typed).map_err(|error| error.to_string())
}

/// What of `given` is not in `kept`. A null says nothing.
fn compare(given: &Value, kept: &Value, path: String, lost: &mut Vec<String>) {
    match (given, kept) {
        (Value::Object(given), Value::Object(kept)) => {
            for (key, value) in given.iter().filter(|(_, value)| !value.is_null()) {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match kept.get(key) {
                    Some(kept) => compare(value, kept, path, lost),
                    None => lost.push(format!("unknown field \"{path}\"")),
                }
            }
        }
        (Value::Array(given), Value::Array(kept)) if given.len() == kept.len() => {
            for (number, (given, kept)) in given.iter().zip(kept).enumerate() {
                compare(given, kept, format!("{path}[{number}]"), lost);
            }
        }
        _ if given == kept => {}
        _ => lost.push(format!("field \"{path}\" is {given}, and was read as {kept}")),
    }
}

#[test]
fn a_field_that_does_not_exist_is_named_with_its_place() {
    let daemonset = |container: Value| {
        serde_json::json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "a"},
            "spec": {"selector": {}, "template": {"spec": {"containers": [container]}}},
        })
    };
    assert!(strictly(&daemonset(serde_json::json!({"name": "a", "image": null}))).is_ok());
    let error = |container| strictly(&daemonset(container)).err().expect("refused");
    let spelled = error(serde_json::json!({"name": "a", "securityContext": {"readonlyRootFilesystem": true}}));
    let place = "spec.template.spec.containers[0].securityContext.readonlyRootFilesystem";
    assert_eq!(spelled, format!("strict decoding error: unknown field \"{place}\""));
    assert!(error(serde_json::json!({"name": 1})).contains("expected a string"));
    let monitor = serde_json::json!({
        "apiVersion": "monitoring.coreos.com/v1", "kind": "PodMonitor", "metadata": {"name": "a"},
        "spec": {"selector": {}, "podMetricsEndpoint": []},
    });
    assert!(strictly(&monitor).err().expect("refused").contains("unknown field `podMetricsEndpoint`"));
}
