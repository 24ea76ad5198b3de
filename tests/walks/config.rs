//! Corefiles by chance: all that may stand beside `autopath`.

use crate::support::chance::Chance;

use super::world::{DOMAIN, World, ZONE};

/// How two agents are configured that differ by `autopath` alone.
#[derive(Clone, Debug)]
pub struct Config {
    /// Options of `cache`, in the cluster's block and in that for the rest.
    cluster: Vec<String>,
    rest: Vec<String>,
    /// Options of `autopath`.
    autopath: Vec<String>,
    loadbalance: bool,
    /// Denials cut somewhere.
    pub cuts: bool,
    /// Expired answers are used.
    pub stale: Stale,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    Never,
    /// At once.
    Immediate,
    /// When upstreams fail.
    Verify,
}

impl Config {
    pub fn any(world: &World, chance: &mut Chance) -> Config {
        let stale = chance.of(&[Stale::Never, Stale::Never, Stale::Immediate, Stale::Verify]);
        Config::with(stale, world, chance)
    }

    pub fn with(stale: Stale, world: &World, chance: &mut Chance) -> Config {
        let mut common = Vec::new();
        match stale {
            Stale::Never => {}
            Stale::Immediate => common.push("serve_stale 1h".to_owned()),
            Stale::Verify => common.push("serve_stale 1h verify".to_owned()),
        }
        if chance.percent(25) {
            common.push("prefetch 2 1m 20%".to_owned());
        }
        if chance.percent(10) {
            common.push("keepttl".to_owned());
        }
        let (mut cluster, rest) = (common.clone(), common);
        cluster.push("denial 9984 5".to_owned());
        // Nobody is told to cut where the server denies what has names beneath it.
        let cuts = world.proper && chance.percent(75);
        if cuts {
            let zone = chance.of(&[ZONE, ZONE, "svc.k8s.test"]);
            cluster.push(format!("denial_cut {zone}"));
        }
        let mut autopath = vec![format!("search {}", if world.domain { DOMAIN } else { "." })];
        if chance.percent(20) {
            autopath.push(format!("max_depth {}", 2 + chance.below(4)));
        }
        if chance.percent(20) {
            autopath.push(format!("except {}", world.any_wanted(chance)));
        }
        Config { cluster, rest, autopath, loadbalance: chance.percent(10), cuts, stale }
    }

    /// The Corefile of an agent.
    pub fn text(&self, world: &World, walks: bool) -> String {
        let autopath =
            if walks { format!("autopath @query {{\n{}\n}}", self.autopath.join("\n")) } else { String::new() };
        let loadbalance = if self.loadbalance { "loadbalance" } else { "" };
        let block = |zone: &str, more: &str, cache: &[String], server: u8| {
            let cache = cache.join("\n");
            format!("{zone}:53 {{\n{more}\n{loadbalance}\ncache {{\n{cache}\n}}\nforward . 192.0.2.{server}\n}}\n")
        };
        let mut text = block(ZONE, &autopath, &self.cluster, 1) + &block(".", "", &self.rest, 2);
        if let Some(zone) = &world.block {
            text += &block(zone, "", &self.rest, 3);
        }
        text
    }
}
