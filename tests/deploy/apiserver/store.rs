//! The objects, and what requests do to them. Each is read strictly before it is kept.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::kinds::{Kind, strictly};
use super::daemonset;
use super::merge;
use super::refusal::Refusal;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub plural: String,
    pub namespace: Option<String>,
    pub name: String,
}

#[derive(Default)]
pub struct Store {
    pub objects: BTreeMap<Key, Value>,
    /// So many changes there were; the newest is the resource version of what it changed.
    changes: u64,
}

/// How a request asks for a change.
pub struct Change {
    pub dry_run: bool,
    pub body: Value,
}

impl Key {
    fn display(&self) -> String {
        format!("{} {:?}", self.plural, self.name)
    }
}

impl Store {
    pub fn get(&self, key: &Key) -> Result<Value, Refusal> {
        self.objects.get(key).cloned().ok_or_else(|| Refusal::not_found(&key.display()))
    }

    /// Those of a kind that have the labels and fields, in one namespace or in all.
    pub fn list(&self, kind: &Kind, namespace: Option<&str>, labels: &str, fields: &str) -> Value {
        let (labels, fields) = (pairs(labels), pairs(fields));
        let here = |key: &Key| {
            key.plural == kind.plural && namespace.is_none_or(|namespace| key.namespace.as_deref() == Some(namespace))
        };
        let selected = |object: &Value| {
            let field = |path: &str| object.pointer(&format!("/{}", path.replace('.', "/")));
            labels.iter().all(|(key, value)| object["metadata"]["labels"][*key] == *value)
                && fields.iter().all(|(path, value)| field(path).is_some_and(|it| it == *value))
        };
        let found = self.objects.iter().filter(|(key, object)| here(key) && selected(object));
        let items: Vec<&Value> = found.map(|(_, object)| object).collect();
        json!({
            "apiVersion": kind.version, "kind": format!("{}List", kind.kind), "items": items,
            "metadata": {"resourceVersion": self.changes.to_string()},
        })
    }

    pub fn create(&mut self, mut key: Key, change: Change) -> Result<Value, Refusal> {
        let Change { dry_run, body: mut object } = change;
        object["metadata"]["name"].as_str().unwrap_or_default().clone_into(&mut key.name);
        if self.objects.contains_key(&key) {
            return Err(Refusal::already_exists(&key.display()));
        }
        let metadata = &mut object["metadata"];
        metadata["uid"] = json!(format!("{}-{}", key.name, self.changes + 1));
        metadata["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        metadata["generation"] = json!(1);
        if let Some(namespace) = &key.namespace {
            metadata["namespace"] = json!(namespace);
        }
        self.keep(key, object, dry_run)
    }

    /// Puts the object in the place of the one that is there.
    pub fn replace(&mut self, key: Key, change: Change) -> Result<Value, Refusal> {
        let old = self.get(&key)?;
        let Change { dry_run, body: mut object } = change;
        for field in ["uid", "creationTimestamp", "generation", "resourceVersion"] {
            object["metadata"][field] = old["metadata"][field].clone();
        }
        if object["spec"] != old["spec"] {
            let generation = old["metadata"]["generation"].as_u64().expect("a number");
            object["metadata"]["generation"] = json!(generation + 1);
        }
        self.keep(key, object, dry_run)
    }

    pub fn patch(&mut self, key: Key, media: &str, change: Change) -> Result<Value, Refusal> {
        let mut object = self.get(&key)?;
        match media {
            "application/strategic-merge-patch+json" => merge::strategic(&mut object, &change.body),
            "application/merge-patch+json" => merge::merge(&mut object, &change.body),
            _ => return Err(Refusal::unsupported(media)),
        }
        self.replace(key, Change { dry_run: change.dry_run, body: object })
    }

    /// What belongs to the object goes with it, unless it is to be left an orphan.
    pub fn delete(&mut self, key: &Key, change: &Change) -> Result<Value, Refusal> {
        let object = self.get(key)?;
        if !change.dry_run {
            self.objects.remove(key);
            if change.body["propagationPolicy"] != "Orphan" {
                daemonset::owned(self, &object).iter().for_each(|key| drop(self.objects.remove(key)));
            }
        }
        Ok(json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}))
    }

    fn keep(&mut self, key: Key, mut object: Value, dry_run: bool) -> Result<Value, Refusal> {
        let kind = strictly(&object).map_err(Refusal::bad_request)?;
        if kind.plural == "daemonsets" {
            daemonset::fill_in(&mut object);
            daemonset::check(self.objects.get(&key), &object)?;
        }
        if !dry_run {
            self.changes += 1;
            object["metadata"]["resourceVersion"] = json!(self.changes.to_string());
            if kind.plural == "daemonsets" {
                daemonset::roll_out(self, &mut object);
            }
            self.objects.insert(key, object.clone());
        }
        Ok(object)
    }
}

/// `a=b,c==d` of a selector.
fn pairs(selector: &str) -> Vec<(&str, &str)> {
    let pairs = selector.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key, value.trim_start_matches('='))).collect()
}
