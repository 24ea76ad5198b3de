//! The system calls that a container may make: the profile that Debian's container runtimes have for RuntimeDefault, told
//! to runc as they tell it.

use serde_json::{Value, json};

use super::super::image::architecture;

const PROFILE: &str = "/usr/share/containers/seccomp.json";

/// The profile for a container with these capabilities.
pub fn runtime_default(capabilities: &[String]) -> Value {
    let text = std::fs::read(PROFILE).expect("apt-get install golang-github-containers-common");
    let profile: Value = serde_json::from_slice(&text).expect("JSON");
    let rules = profile["syscalls"].as_array().expect("rules");
    let holds = |condition: &Value, every: bool| {
        let caps = words(condition, "caps");
        let mut ours = caps.iter().map(|one| capabilities.iter().any(|cap| cap == one));
        let arches = words(condition, "arches");
        let architecture = arches.contains(&architecture());
        if every {
            ours.all(|one| one) && (arches.is_empty() || architecture)
        } else {
            ours.any(|one| one) || architecture
        }
    };
    let chosen = rules.iter().filter(|rule| holds(&rule["includes"], true) && !holds(&rule["excludes"], false));
    let chosen: Vec<Value> = chosen.map(rule).collect();
    json!({
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile["defaultErrnoRet"],
        "architectures": architectures(&profile),
        "syscalls": chosen,
    })
}

/// What runc reads of a rule; conditions are resolved.
fn rule(rule: &Value) -> Value {
    let known = ["names", "action", "errnoRet", "args"].into_iter().filter(|key| !rule[key].is_null());
    known.map(|key| (key.to_owned(), rule[key].clone())).collect()
}

fn architectures(profile: &Value) -> Vec<Value> {
    let name = format!("SCMP_ARCH_{}", std::env::consts::ARCH.to_uppercase());
    let mut entries = profile["archMap"].as_array().expect("architectures").iter();
    let entry = entries.find(|entry| entry["architecture"] == *name).expect("this machine's architecture");
    let more = entry["subArchitectures"].as_array().into_iter().flatten();
    std::iter::once(&entry["architecture"]).chain(more).cloned().collect()
}

fn words<'a>(condition: &'a Value, key: &str) -> Vec<&'a str> {
    condition[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}
