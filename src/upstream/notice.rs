//! Log lines about upstreams that go down and come back. Few, however often one does: each upstream has an allowance of
//! its own (`observe::log`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Pool, Upstream};

/// `upstream` has failed a check because of `why`, and these pools pass it by.
pub(crate) fn down(upstream: &Upstream, why: &str, pools: &[Arc<Pool>], now: Instant) {
    let left = |pool: &Pool| pool.members().iter().filter(|member| !pool.check().is_down(member)).count();
    if upstream.health().went_down(now)
        && let Some((left, pool)) = pools.iter().map(|pool| (left(pool), pool)).min_by_key(|(left, _)| *left)
    {
        let (to, fails, of) = (upstream.address().label(), upstream.health().fails(), pool.members().len());
        tracing::warn!(
            per = to,
            "upstream {to} is down: {fails} checks failed, the last one with: {why}; \
             {left} of {of} upstreams of this forward are left"
        );
    }
    let lost = pools.iter().filter(|pool| pool.check().has_just_gone_down(upstream) && pool.is_down());
    // Lines with the same upstreams are in the same trouble, and so is a line before and after a reload.
    let lost: BTreeSet<String> = lost.map(|pool| labels(pool)).collect();
    for all in lost {
        tracing::error!(per = all, "all upstreams of a forward are down: {all}");
    }
}

/// `upstream` answers after it was down for so long.
pub(crate) fn back(upstream: &Upstream, after: Duration) {
    let to = upstream.address().label();
    tracing::info!(per = to, "upstream {to} answers again after {:.0} s", after.as_secs_f64());
}

fn labels(pool: &Pool) -> String {
    let labels: Vec<String> = pool.members().iter().map(|member| member.address().label()).collect();
    labels.join(", ")
}
