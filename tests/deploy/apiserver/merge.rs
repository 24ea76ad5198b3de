//! Patches, as an API server applies them.

use serde_json::{Map, Value};

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE: &str = "$deleteFromPrimitiveList/";

/// A JSON merge patch (RFC 7386).
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        target.clone_from(patch);
        return;
    };
    for (key, value) in patch {
        let target = object(target);
        match value {
            Value::Null => drop(target.remove(key)),
            value => merge(target.entry(key.clone()).or_insert(Value::Null), value),
        }
    }
}

/// A strategic merge patch: lists whose elements have a key are merged by it, and directives say what else is meant.
pub fn strategic(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        target.clone_from(patch);
        return;
    };
    if patch.contains_key(DIRECTIVE) {
        *target = Value::Object(Map::new());
    }
    let target = object(target);
    if let Some(retained) = patch.get(RETAIN).and_then(Value::as_array) {
        target.retain(|key, _| retained.iter().any(|name| name == key));
    }
    for (key, value) in patch.iter().filter(|(key, _)| !key.starts_with('$')) {
        let old = target.entry(key.clone()).or_insert(Value::Null);
        match value {
            Value::Null => drop(target.remove(key)),
            Value::Array(elements) if key_of(key, elements).is_some() => {
                strategic_list(old, elements, key_of(key, elements).expect("just seen"));
            }
            value => strategic(old, value),
        }
    }
    for (key, value) in patch {
        let Some(elements) = value.as_array() else { continue };
        if let Some(list) = key.strip_prefix(DELETE).and_then(|key| target.get_mut(key)?.as_array_mut()) {
            list.retain(|element| !elements.contains(element));
        }
        if let Some((name, list)) = key.strip_prefix(ORDER).and_then(|key| Some((key, target.get_mut(key)?))) {
            order(list, elements, key_of(name, elements));
        }
    }
}

fn strategic_list(target: &mut Value, elements: &[Value], key: &str) {
    if elements.iter().any(|element| element[DIRECTIVE] == "replace") {
        *target = Value::Null;
    }
    let fresh = !target.is_array();
    if fresh {
        *target = Value::Array(Vec::new());
    }
    let list = target.as_array_mut().expect("made above");
    for element in elements.iter().filter(|element| !element[key].is_null()) {
        // In a list that is wholly new two elements may have one key, as port 53 of UDP and of TCP.
        let place = list.iter().position(|old| !fresh && old[key] == element[key]);
        match place {
            Some(_) if element[DIRECTIVE] == "delete" => list.retain(|old| old[key] != element[key]),
            Some(place) => strategic(&mut list[place], element),
            None if element[DIRECTIVE] == "delete" => {}
            None => {
                let mut new = Value::Null;
                strategic(&mut new, element);
                list.push(new);
            }
        }
    }
}

/// Elements that are named come in that order, before the others.
fn order(list: &mut Value, names: &[Value], key: Option<&str>) {
    let Some(list) = list.as_array_mut() else { return };
    let same = |element: &Value, name: &Value| key.map_or(element == name, |key| element[key] == name[key]);
    list.sort_by_key(|element| names.iter().position(|name| same(element, name)).unwrap_or(names.len()));
}

/// By what the elements of a list are told apart; `None` where it is replaced as a whole.
fn key_of(field: &str, elements: &[Value]) -> Option<&'static str> {
    match field {
        "containers" | "initContainers" | "volumes" | "env" | "imagePullSecrets" => Some("name"),
        "volumeMounts" => Some("mountPath"),
        "ports" if elements.iter().any(|element| !element["containerPort"].is_null()) => Some("containerPort"),
        "ports" => Some("port"),
        "ownerReferences" => Some("uid"),
        _ => None,
    }
}

fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("made above")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(mut target: Value, patch: &Value) -> Value {
        strategic(&mut target, patch);
        target
    }

    #[test]
    fn elements_are_merged_by_their_key_and_put_in_order() {
        let there = json!({"containers": [{"name": "b", "args": ["1", "2"], "image": "x"}, {"name": "a"}]});
        let patch = json!({
            "$setElementOrder/containers": [{"name": "a"}, {"name": "b"}],
            "containers": [{"name": "b", "args": ["3"], "image": null}, {"name": "a", "ports": [
                {"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53, "protocol": "TCP"}]}],
        });
        let ports = json!([{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53, "protocol": "TCP"}]);
        let expected = json!({"containers": [{"name": "a", "ports": ports}, {"name": "b", "args": ["3"]}]});
        assert_eq!(patched(there, &patch), expected);
    }

    #[test]
    fn directives_take_away() {
        let there = json!({"volumes": [{"name": "a", "hostPath": {"path": "/x"}}, {"name": "b"}], "spec": {"x": 1}});
        let patch = json!({
            "volumes": [{"name": "a", "$retainKeys": ["name", "emptyDir"], "emptyDir": {}}, {"name": "b", "$patch": "delete"}],
            "spec": {"$patch": "replace", "y": 2},
        });
        assert_eq!(patched(there, &patch), json!({"volumes": [{"name": "a", "emptyDir": {}}], "spec": {"y": 2}}));
        let there = json!({"finalizers": ["a", "b"]});
        assert_eq!(
            patched(there, &json!({"$deleteFromPrimitiveList/finalizers": ["a"]})),
            json!({"finalizers": ["b"]})
        );
    }

    #[test]
    fn a_merge_patch_replaces_lists() {
        let mut there = json!({"a": [1], "b": {"c": 1, "d": 2}});
        merge(&mut there, &json!({"a": [2], "b": {"c": null}}));
        assert_eq!(there, json!({"a": [2], "b": {"d": 2}}));
    }
}
