//! The pools of a configuration: addresses as written, those its resolv.conf files hold now, and those its host names
//! had when it was loaded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::routes::Routes;
use crate::upstream::spec::{PoolSpec, Target};
use crate::upstream::{Address, BuildError, Pool, Upstreams};

use super::hosts::Hosts;
use super::resolvconf::{self, Own, ResolvConfError};

/// The pools of each route, one for each of its `forward` lines.
pub(super) type Pools = Vec<Vec<Arc<Pool>>>;

/// What the resolv.conf files of a configuration hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ResolvConfs(BTreeMap<PathBuf, Vec<Address>>);

impl ResolvConfs {
    /// Reads every file the routes name. The first that cannot be used is the error.
    pub(super) fn read(routes: &Routes, own: &Own) -> Result<ResolvConfs, ResolvConfError> {
        let mut files = BTreeMap::new();
        for path in specs(routes).flat_map(file_targets) {
            if !files.contains_key(path) {
                files.insert(path.to_owned(), resolvconf::read(path, own)?);
            }
        }
        Ok(ResolvConfs(files))
    }

    /// Reads the same files again: those that changed, and the reasons of those that cannot be used now and so keep
    /// what they had.
    pub(super) fn read_again(&self, own: &Own) -> (ResolvConfs, Vec<ResolvConfError>) {
        let mut errors = Vec::new();
        let read = |(path, old): (&PathBuf, &Vec<Address>)| match resolvconf::read(path, own) {
            Ok(new) => (path.clone(), new),
            Err(error) => {
                errors.push(error);
                (path.clone(), old.clone())
            }
        };
        let files = self.0.iter().map(read).collect();
        (ResolvConfs(files), errors)
    }

    /// The files whose change may change the addresses.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        let behind = resolvconf::BEHIND.iter().filter(|_| !self.0.is_empty());
        self.0.keys().map(PathBuf::as_path).chain(behind.map(Path::new))
    }

    /// `FILE: ADDRESS ADDRESS` for each file that differs from `old`.
    pub(super) fn differences(&self, old: &ResolvConfs) -> Vec<String> {
        let changed = self.0.iter().filter(|(path, addresses)| old.0.get(*path) != Some(addresses));
        changed
            .map(|(path, addresses)| {
                let list: Vec<String> = addresses.iter().map(Address::to_string).collect();
                format!("{}: {}", path.display(), list.join(" "))
            })
            .collect()
    }

    /// The pool of each `forward` line. The error is a sentence for the operator.
    pub(super) fn pools(&self, routes: &Routes, hosts: &Hosts, upstreams: &Upstreams) -> Result<Pools, String> {
        let pool = |spec: &PoolSpec| {
            Pool::new(spec, &self.addresses(spec, hosts), upstreams).map_err(|error| {
                let targets: Vec<String> = spec.targets.iter().map(Target::to_string).collect();
                let why = match &error {
                    BuildError::NoAddresses | BuildError::TooMany(_) => hosts.account(spec),
                    BuildError::Certificate(_) => String::new(),
                };
                format!("forward to {}: {error}{why}", targets.join(" "))
            })
        };
        routes.routes.iter().map(|route| route.forwards.iter().map(|forward| pool(&forward.spec)).collect()).collect()
    }

    /// The targets of a line in order, files replaced by what they hold, and hosts by their addresses.
    fn addresses(&self, spec: &PoolSpec, hosts: &Hosts) -> Vec<Address> {
        let of = |target: &Target| match target {
            Target::Address(address) => vec![address.clone()],
            Target::File(path) => self.0.get(path).cloned().unwrap_or_default(),
            Target::Host { name, port, transport } => hosts.upstreams(spec, name, *port, *transport),
        };
        spec.targets.iter().flat_map(of).collect()
    }
}

pub(super) fn specs(routes: &Routes) -> impl Iterator<Item = &PoolSpec> {
    routes.routes.iter().flat_map(|route| &route.forwards).map(|forward| &forward.spec)
}

fn file_targets(spec: &PoolSpec) -> impl Iterator<Item = &Path> {
    spec.targets.iter().filter_map(|target| match target {
        Target::File(path) => Some(path.as_path()),
        Target::Address(_) | Target::Host { .. } => None,
    })
}
