//! What an API server tells kubectl of itself: versions, kinds, and that it refuses unknown fields by itself.

use serde_json::{Map, Value, json};

use super::super::kinds::{KINDS, Kind};

/// The document at a path of discovery, if it is one.
pub fn document(path: &str) -> Option<Value> {
    match path {
        "/version" => Some(json!({"major": "1", "minor": "34", "gitVersion": "v1.34.0"})),
        "/api" => Some(json!({"kind": "APIVersions", "versions": ["v1"]})),
        "/apis" => Some(groups()),
        "/openapi/v3" => Some(specifications()),
        _ => match path.strip_prefix("/openapi/v3/") {
            Some(rest) => specification(version_at(rest)?),
            None => resources(version_at(path.strip_prefix('/')?)?),
        },
    }
}

/// `v1` of `api/v1`, `apps/v1` of `apis/apps/v1`.
fn version_at(path: &str) -> Option<&str> {
    path.strip_prefix("apis/").or(path.strip_prefix("api/").filter(|version| *version == "v1"))
}

fn of_version(version: &str) -> impl Iterator<Item = &'static Kind> {
    KINDS.iter().filter(move |kind| kind.version == version)
}

/// Each version once, in the order of the table.
fn versions() -> Vec<&'static str> {
    let mut versions: Vec<&str> = KINDS.iter().map(|kind| kind.version).collect();
    versions.dedup();
    versions
}

fn groups() -> Value {
    let group = |version: &str| {
        let (name, number) = version.split_once('/')?;
        let version = json!({"groupVersion": version, "version": number});
        Some(json!({"name": name, "versions": [version], "preferredVersion": version}))
    };
    let groups: Vec<Value> = versions().into_iter().filter_map(group).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn resources(version: &str) -> Option<Value> {
    let resources: Vec<Value> = of_version(version)
        .map(|kind| {
            let short: Vec<&str> = Some(kind.short).filter(|name| !name.is_empty()).into_iter().collect();
            json!({
                "name": kind.plural, "singularName": kind.kind.to_lowercase(), "kind": kind.kind, "shortNames": short,
                "namespaced": kind.namespaced, "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
            })
        })
        .collect();
    let list = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources});
    (!resources.is_empty()).then_some(list)
}

fn specifications() -> Value {
    let path = |version: &str| if version == "v1" { "api/v1".to_owned() } else { format!("apis/{version}") };
    let row = |version| (path(version), json!({"serverRelativeURL": format!("/openapi/v3/{}", path(version))}));
    json!({"paths": versions().into_iter().map(row).collect::<Map<String, Value>>()})
}

/// Of each kind the one thing that kubectl looks for: the parameters of its patches.
fn specification(version: &str) -> Option<Value> {
    let patches = of_version(version).map(|kind| {
        let (group, number) = kind.group();
        let patch = json!({
            "x-kubernetes-group-version-kind": {"group": group, "version": number, "kind": kind.kind},
            "parameters": [{"name": "fieldValidation", "in": "query"}, {"name": "dryRun", "in": "query"}],
            "responses": {},
        });
        (format!("/{}/{{name}}", kind.plural), json!({"patch": patch}))
    });
    let paths: Map<String, Value> = patches.collect();
    let document = json!({"openapi": "3.0.0", "info": {"title": version, "version": "1"}, "paths": paths});
    (!document["paths"].as_object()?.is_empty()).then_some(document)
}
