//! Rules of nf_tables, spoken over netlink.

use std::collections::BTreeSet;
use std::future;
use std::net::IpAddr;

use super::Base;
use crate::node::status::{Action, Trouble};

/// Rules of nf_tables.
#[derive(Debug)]
pub struct Nftables {}

impl Nftables {
    /// Looks whether the kernel takes such rules from this process.
    ///
    /// # Errors
    /// Why not, what still works, and what to do.
    pub async fn detect() -> Result<Self, Trouble> {
        Ok(Self {})
    }

    /// As [`super::Firewall::base`].
    pub async fn base(&mut self, _base: &Base) -> Result<bool, Trouble> {
        Ok(false)
    }

    /// As [`super::Firewall::intercept`].
    pub async fn intercept(&mut self, _ready: &BTreeSet<IpAddr>) -> Result<Option<Action>, Trouble> {
        Ok(None)
    }

    /// As [`super::Firewall::remove_base`].
    pub async fn remove_base(&mut self) -> Result<Vec<String>, Trouble> {
        Ok(Vec::new())
    }

    /// As [`super::Firewall::changed`].
    pub async fn changed(&mut self) {
        future::pending().await
    }
}
