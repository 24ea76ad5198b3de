//! The node's network as its users meet it: the built binary on a node made of network namespaces, with pods, a host
//! client, the cluster's DNS servers and a kube-proxy look-alike around it. Figures are printed: `-- --nocapture` shows
//! them.
#![allow(unreachable_pub, reason = "a test binary has no outside")]

#[cfg(test)]
mod node {
    mod bad_input;
    mod cycles;
    mod death;
    mod interception;
    mod iptables;
    mod lab;
    mod locks;
    mod proof;
    mod ready;
    mod repair;
    mod teardown;
}
#[cfg(test)]
#[allow(dead_code, unused_imports, reason = "each test binary uses its part of it")]
mod support;
