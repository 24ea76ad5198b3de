//! What kubelet makes of the shipped DaemonSet: arguments with their variables filled in, files for its volumes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapVolumeSource, Container, HostPathVolumeSource, PodSpec, SecurityContext, Volume,
};
use serde::Deserialize;
use serde_yaml_ng::{Deserializer, Value, from_value};

use super::super::image::ROOT;
use crate::lab::SERVICE;

/// The DaemonSet's pod and the ConfigMaps beside it.
#[derive(Clone)]
pub struct Pod {
    spec: PodSpec,
    config_maps: Vec<ConfigMap>,
}

/// A file or directory of the node that is shown in the container.
pub struct Mount {
    pub source: PathBuf,
    pub destination: String,
    pub read_only: bool,
}

impl Pod {
    /// That of daemonset/dnslet.yaml.
    pub fn shipped() -> Pod {
        let path = Path::new(ROOT).join("daemonset/dnslet.yaml");
        let text = fs::read_to_string(&path).expect("the rendered manifest");
        let objects = Deserializer::from_str(&text).map(|object| Value::deserialize(object).expect("YAML"));
        let (mut spec, mut config_maps) = (None, Vec::new());
        for object in objects {
            match object["kind"].as_str() {
                Some("DaemonSet") => {
                    let set: DaemonSet = from_value(object).expect("a DaemonSet");
                    spec = set.spec.template.spec;
                }
                Some("ConfigMap") => config_maps.push(from_value(object).expect("a ConfigMap")),
                _ => {}
            }
        }
        Pod { spec: spec.expect("a DaemonSet with a pod"), config_maps }
    }

    /// Takes a capability out of the manifest.
    pub fn without_capability(mut self, name: &str) -> Pod {
        let capabilities = self.container_mut().security_context.as_mut().and_then(|it| it.capabilities.as_mut());
        let add = capabilities.and_then(|it| it.add.as_mut()).expect("capabilities");
        assert!(add.iter().any(|one| one == name), "{name} in {add:?}");
        add.retain(|one| one != name);
        self
    }

    /// Adds arguments to those of the manifest.
    pub fn with_arguments(mut self, more: &[&str]) -> Pod {
        let arguments = self.container_mut().args.get_or_insert_default();
        arguments.extend(more.iter().map(|&word| word.to_owned()));
        self
    }

    pub fn container(&self) -> &Container {
        self.spec.containers.iter().find(|one| one.name == "node-cache").expect("the container of the stock add-on")
    }

    fn container_mut(&mut self) -> &mut Container {
        self.spec.containers.iter_mut().find(|one| one.name == "node-cache").expect("the container of the stock add-on")
    }

    /// The container's rights. What this does not read must be as the tests take it to be.
    pub fn security(&self) -> &SecurityContext {
        let security = self.container().security_context.as_ref().expect("a security context");
        let dropped = security.capabilities.as_ref().and_then(|it| it.drop.clone()).unwrap_or_default();
        assert_eq!(dropped, ["ALL"]);
        let of_pod = self.spec.security_context.as_ref().and_then(|it| it.seccomp_profile.as_ref());
        let profile = security.seccomp_profile.as_ref().or(of_pod).expect("a seccomp profile");
        assert_eq!(profile.type_, "RuntimeDefault");
        assert_eq!(self.spec.host_network, Some(true));
        assert!(security.run_as_user.unwrap_or_default() == 0 && security.privileged != Some(true), "{security:?}");
        security
    }

    /// The capabilities it adds to none, by the kernel's names.
    pub fn capabilities(&self) -> Vec<String> {
        let added = self.security().capabilities.as_ref().and_then(|it| it.add.as_ref());
        added.into_iter().flatten().map(|name| format!("CAP_{name}")).collect()
    }

    /// Octets of memory it may use, where that is limited.
    pub fn memory_limit(&self) -> Option<u64> {
        let quantity = &self.container().resources.as_ref()?.limits.as_ref()?.get("memory")?.0;
        let (number, unit) = quantity.split_at(quantity.find(|it: char| !it.is_ascii_digit()).expect("a unit"));
        let unit = match unit {
            "Mi" => 1 << 20,
            "M" => 1_000_000,
            other => panic!("{other} in {quantity}"),
        };
        Some(number.parse::<u64>().expect("a number") * unit)
    }

    /// The variables of the Services in its namespace, then its own.
    pub fn environment(&self) -> Vec<(String, String)> {
        let services = [("KUBE_DNS", SERVICE[0]), ("KUBE_DNS_UPSTREAM", crate::lab::UPSTREAM_SERVICE)];
        let services = services.map(|(name, address)| (format!("{name}_SERVICE_HOST"), address.to_owned()));
        let own = self.container().env.iter().flatten();
        services.into_iter().chain(own.map(|one| (one.name.clone(), value_of(one)))).collect()
    }

    /// The commands of its startup and readiness probes.
    pub fn probes(&self) -> [Vec<String>; 2] {
        let container = self.container();
        [&container.startup_probe, &container.readiness_probe].map(|probe| {
            let command = probe.as_ref().and_then(|it| it.exec.as_ref()?.command.clone());
            command.expect("a probe that is a command")
        })
    }

    /// The arguments; a variable that is not set stays as it is written.
    pub fn arguments(&self) -> Vec<String> {
        let environment = self.environment();
        let filled = |text: &String| {
            environment.iter().fold(text.clone(), |text, (name, value)| text.replace(&format!("$({name})"), value))
        };
        assert!(self.container().command.is_none(), "the image's entrypoint is what is started");
        self.container().args.iter().flatten().map(filled).collect()
    }

    /// Makes what its volumes show under the directories of the node and of the pod.
    pub fn mounts(&self, node: &Path, pod: &Path) -> Vec<Mount> {
        let mounts = self.container().volume_mounts.iter().flatten().map(|mount| {
            let mut volumes = self.spec.volumes.iter().flatten();
            let volume = volumes.find(|volume| volume.name == mount.name).expect("a volume of that name");
            let mut source = self.provide(volume, node, pod);
            source.extend(&mount.sub_path);
            Mount { source, destination: mount.mount_path.clone(), read_only: mount.read_only == Some(true) }
        });
        mounts.collect()
    }

    fn provide(&self, volume: &Volume, node: &Path, pod: &Path) -> PathBuf {
        let own = pod.join(&volume.name);
        if let Some(source) = &volume.config_map {
            project(self.config_map(source), source, &own);
        } else if let Some(source) = &volume.host_path {
            return on_node(source, node);
        } else {
            assert!(volume.empty_dir.is_some(), "a kind of volume that the test does not know: {volume:?}");
            fs::create_dir_all(&own).expect("a writable directory");
        }
        own
    }

    fn config_map(&self, source: &ConfigMapVolumeSource) -> BTreeMap<String, String> {
        let map = self.config_maps.iter().find(|map| map.metadata.name.as_ref() == Some(&source.name));
        assert!(map.is_some() || source.optional == Some(true), "no ConfigMap {:?}", source.name);
        map.and_then(|map| map.data.clone()).unwrap_or_default()
    }
}

fn value_of(variable: &k8s_openapi::api::core::v1::EnvVar) -> String {
    assert!(variable.value_from.is_none(), "a variable that the test cannot fill: {variable:?}");
    variable.value.clone().unwrap_or_default()
}

/// A directory as kubelet writes it: what changes is one link, so that all files change at once.
fn project(data: BTreeMap<String, String>, source: &ConfigMapVolumeSource, volume: &Path) {
    let version = volume.join("..2026_11_21_00_00_00.0");
    fs::create_dir_all(&version).expect("a writable directory");
    symlink("..2026_11_21_00_00_00.0", volume.join("..data")).expect("an empty volume");
    let paths = source.items.as_ref().map(|items| items.iter().map(|item| (&item.key, &item.path)));
    let named: Vec<(&String, &String)> = match paths {
        Some(items) => items.collect(),
        None => data.keys().map(|key| (key, key)).collect(),
    };
    for (key, path) in named {
        fs::write(version.join(path), &data[key]).expect("a writable directory");
        symlink(Path::new("..data").join(path), volume.join(path)).expect("an empty volume");
    }
}

fn on_node(source: &HostPathVolumeSource, node: &Path) -> PathBuf {
    let path = node.join(source.path.trim_start_matches('/'));
    fs::create_dir_all(path.parent().expect("a path below the root")).expect("a writable directory");
    match source.type_.as_deref() {
        Some("FileOrCreate") => drop(fs::OpenOptions::new().create(true).append(true).open(&path).expect("a file")),
        Some("DirectoryOrCreate") => fs::create_dir_all(&path).expect("a directory"),
        other => panic!("{other:?} is not what kubelet would make: {source:?}"),
    }
    path
}
