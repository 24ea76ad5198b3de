//! What is shipped, run where it will run: manifests rendered by kubectl, the image under a container runtime, the package
//! in a Debian with systemd. Needs root; `make test-deploy` installs what else it takes.
#![allow(unreachable_pub, reason = "a test binary has no outside")]

#[cfg(test)]
#[allow(dead_code, unused_imports, reason = "each test binary uses its part of it")]
mod support;
#[cfg(test)]
mod deploy {
    mod apiserver;
    mod container;
    mod custom;
    mod documents;
    #[allow(dead_code, reason = "each part uses its part of it")]
    mod guest;
    mod host;
    mod image;
    mod kinds;
    mod manifests;
    mod migration;
    mod stock;
    mod turn;
    mod vm;
}
#[cfg(test)]
#[allow(dead_code, unused_imports, reason = "the node's tests use the rest of it")]
#[path = "node/lab/mod.rs"]
mod lab;
