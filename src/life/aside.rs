//! A configuration put to work beside the agent, for an operator's questions: its upstreams are really asked, and nothing
//! is bound, written or told to anybody.

use std::path::PathBuf;
use std::sync::Arc;

use crate::cache::Cache;
use crate::dns::Name;
use crate::observe::Registry;
use crate::resolve::{ClientPolicy, Failures, Flights, Parts, Resolver};
use crate::routes::Routes;
use crate::sys::sockopt;
use crate::upstream::Upstreams;

use super::budget::Budget;
use super::hosts::Hosts;
use super::last::Known;
use super::options::Options;
use super::pools::ResolvConfs;
use super::resolvconf::Reason;
use super::searches::{self, SearchFiles};
use super::snapshot::own;
use super::weights::WeightFiles;

/// Queries that are in flight together are those of as many workers, so that what is counted for each can be told apart.
pub const WORKERS: usize = 2;

/// Why a start would be refused for files that the routes name, in the same words: of each kind the first.
#[derive(Debug)]
pub struct Refusals {
    /// A file sends queries back to where this configuration listens.
    pub circle: Option<String>,
    /// A file is not there, or holds nothing of use.
    pub unusable: Vec<String>,
}

impl Refusals {
    /// Reads the files.
    pub fn of(routes: &Routes) -> Refusals {
        let upstreams = ResolvConfs::read(routes, &own(routes)).err();
        let is_circle = upstreams.as_ref().is_some_and(|error| matches!(error.reason, Reason::Ourselves(_)));
        let upstreams = upstreams.map(|error| error.to_string());
        let (circle, upstreams) = if is_circle { (upstreams, None) } else { (None, upstreams) };
        let others = [upstreams, WeightFiles::read(routes).err(), SearchFiles::read(routes).err()];
        Refusals { circle, unusable: others.into_iter().flatten().collect() }
    }
}

/// What a configuration needs besides its text.
pub struct Aside {
    files: ResolvConfs,
    weights: WeightFiles,
    searches: SearchFiles,
    hosts: Hosts,
    /// The search lists that cannot be used, by their files, with a sentence about each.
    pub unusable: Vec<(PathBuf, String)>,
}

/// A resolver with nothing in its memory, and what it counts.
pub struct Subject {
    /// The resolver, with [`WORKERS`].
    pub resolver: Arc<Resolver>,
    /// Its counts.
    pub registry: Arc<Registry>,
    /// Its misses.
    pub flights: Arc<Flights>,
}

impl Aside {
    /// Reads the files that the routes name, and asks for the hosts. The error is a sentence for the operator.
    pub async fn read(routes: &Routes) -> Result<Aside, String> {
        let own = own(routes);
        let files = ResolvConfs::read(routes, &own).map_err(|error| error.to_string())?;
        let weights = WeightFiles::read(routes)?;
        let (searches, unusable) = SearchFiles::read_all(routes);
        let hosts = Hosts::resolve(routes, &own, &Known::default()).await?;
        Ok(Aside { files, weights, searches, hosts, unusable })
    }

    /// A resolver for these routes, which name no more than those that were read. The error is a sentence for the
    /// operator.
    pub fn subject(&self, routes: &Routes, options: &Options) -> Result<Subject, String> {
        let budget = Budget::of(options, sockopt::descriptor_limit().ok());
        let (registry, upstreams) = (Registry::new(WORKERS), Upstreams::with_pps(options.upstream_pps));
        let pools = self.files.pools(routes, &self.hosts, &upstreams)?;
        let flights = Flights::new(budget.flights);
        let resolver = Resolver::new(Parts {
            routes: Arc::new(routes.clone()),
            pools,
            cache: Cache::new(options.cache_memory),
            flights: Arc::clone(&flights),
            failures: Failures::new(budget.failures),
            walks: Arc::default(),
            registry: Arc::clone(&registry),
            clients: ClientPolicy { nets: options.client_networks.clone() },
            query_log: None,
        });
        self.weights.hand_to(&resolver);
        self.searches.hand_to(&resolver);
        registry.set_source("upstreams", move |into| upstreams.expose(into));
        Ok(Subject { resolver: Arc::new(resolver), registry, flights })
    }
}

/// The search list that kubelet gives to the pods of a cluster from this node's file, the cluster's own names left out;
/// empty where there is none.
pub fn search_of_node(zone: &Name) -> Vec<Name> {
    searches::of_node(zone)
}
