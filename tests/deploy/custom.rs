//! Kinds that a cluster has from others, as far as the manifests use them, by the schemas of prometheus-operator 0.80,
//! Cilium 1.16 and Calico 3.29. A field that is not here is refused.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::{Deserialize, Serialize};

macro_rules! kinds {
    ($($name:ident { $($(#[$how:meta])* $field:ident: $type:ty,)* })*) => {$(
        #[derive(Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub struct $name {
            $(
                $(#[$how])*
                #[serde(skip_serializing_if = "Option::is_none")]
                $field: Option<$type>,
            )*
        }
    )*};
}

/// An object: what all of them have, and its specification.
macro_rules! objects {
    ($($name:ident: $spec:ty,)*) => {$(
        #[derive(Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub struct $name {
            api_version: String,
            kind: String,
            metadata: ObjectMeta,
            spec: $spec,
        }
    )*};
}

objects! {
    PodMonitor: PodMonitorSpec,
    CiliumLocalRedirectPolicy: LocalRedirect,
    CiliumClusterwideNetworkPolicy: CiliumRule,
    GlobalNetworkPolicy: CalicoPolicy,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodMonitorSpec {
    selector: LabelSelector,
    pod_metrics_endpoints: Vec<PodMetricsEndpoint>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LocalRedirect {
    redirect_frontend: Frontend,
    redirect_backend: Backend,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Backend {
    local_endpoint_selector: LabelSelector,
    to_ports: Vec<RedirectPort>,
}

/// All three are required; the name where there is more than one port.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedirectPort {
    name: String,
    port: String,
    protocol: Protocol,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    Tcp,
    Udp,
    Any,
}

#[derive(Serialize, Deserialize)]
pub enum Direction {
    Ingress,
    Egress,
}

#[derive(Serialize, Deserialize)]
pub enum Action {
    Allow,
    Deny,
    Log,
    Pass,
}

kinds! {
    PodMetricsEndpoint {
        path: String,
        interval: String,
        relabelings: Vec<Relabeling>,
    }
    Relabeling {
        action: String,
        source_labels: Vec<String>,
        regex: String,
        target_label: String,
        replacement: String,
    }
    Frontend { service_matcher: ServiceMatcher, }
    ServiceMatcher {
        service_name: String,
        namespace: String,
        to_ports: Vec<RedirectPort>,
    }
    CiliumRule {
        endpoint_selector: LabelSelector,
        node_selector: LabelSelector,
        enable_default_deny: DefaultDeny,
        ingress: Vec<CiliumIngress>,
        egress: Vec<CiliumEgress>,
    }
    DefaultDeny {
        ingress: bool,
        egress: bool,
    }
    CiliumIngress {
        from_entities: Vec<String>,
        to_ports: Vec<CiliumPorts>,
    }
    CiliumEgress {
        to_entities: Vec<String>,
        #[serde(rename = "toCIDR")]
        to_cidr: Vec<String>,
        to_endpoints: Vec<LabelSelector>,
        to_ports: Vec<CiliumPorts>,
    }
    CiliumPorts {
        ports: Vec<CiliumPort>,
        rules: CiliumRules,
    }
    CiliumRules { dns: Vec<CiliumNames>, }
    CiliumNames { match_pattern: String, }
    CiliumPort {
        port: String,
        protocol: Protocol,
    }
    CalicoPolicy {
        order: serde_json::Number,
        selector: String,
        types: Vec<Direction>,
        ingress: Vec<CalicoRule>,
        egress: Vec<CalicoRule>,
    }
    CalicoRule {
        action: Action,
        protocol: Protocol,
        source: CalicoEntity,
        destination: CalicoEntity,
    }
    CalicoEntity {
        nets: Vec<String>,
        ports: Vec<u16>,
    }
}
