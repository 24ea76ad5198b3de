//! What is printed: differences, and what lookups cost.

use std::collections::BTreeMap;
use std::fmt;

use super::lab::{Cost, Pod};
use super::names::Group;

/// A lookup that ended differently.
pub struct Difference {
    pub stub: &'static str,
    pub pod: Pod,
    pub asked: String,
    pub off: String,
    pub on: String,
}

/// Costs by stub and round, and by group of names: off and on.
#[derive(Default)]
pub struct Table(BTreeMap<(&'static str, &'static str, Group), Row>);

struct Row {
    names: usize,
    cost: [Cost; 2],
}

impl Table {
    pub fn add(&mut self, stub: &'static str, round: &'static str, group: Group, names: usize, cost: [Cost; 2]) {
        self.0.insert((stub, round, group), Row { names, cost });
    }

    /// An external name costs a client two queries at most, and no list of names costs more than without.
    #[track_caller]
    pub fn check(&self, wildcard: bool) {
        for ((stub, round, group), Row { names, cost: [_, on] }) in &self.0 {
            if *group == Group::External && !wildcard {
                assert!(on.client <= 2.0 * *names as f64, "{stub}, {round}: {} queries for {names} names", on.client);
            }
        }
        let mut sums: BTreeMap<&str, [Cost; 2]> = BTreeMap::new();
        for ((stub, ..), Row { cost, .. }) in &self.0 {
            let sum = sums.entry(stub).or_default();
            sum.iter_mut().zip(cost).for_each(|(sum, cost)| *sum += *cost);
        }
        for (stub, [off, on]) in sums {
            assert!(on.upstream <= off.upstream, "{stub}: {} queries upstream, {} without", on.upstream, off.upstream);
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "queries per name, off / on:   client           upstream")?;
        for ((stub, round, group), Row { names, cost: [off, on] }) in &self.0 {
            let each = |count: f64| count / *names as f64;
            let what = format!("{stub} {round} {}", format!("{group:?}").to_lowercase());
            let client = format!("{:5.2} / {:<5.2}", each(off.client), each(on.client));
            writeln!(out, "{what:<24}{client:>18}{:>12.2} / {:.2}", each(off.upstream), each(on.upstream))?;
        }
        Ok(())
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { stub, pod: Pod { search, ndots }, asked, off, on } = self;
        write!(out, "{stub}: {asked} (search {search}, ndots:{ndots})\n  off: {off}\n  on:  {on}")
    }
}
