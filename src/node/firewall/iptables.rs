//! Rules placed by `iptables-restore`, where nf_tables does not work or is not enough.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Base;
use crate::node::status::{Action, Kind, Trouble};

/// Rules of iptables.
#[derive(Debug)]
pub struct Iptables {}

impl Iptables {
    /// Looks whether `iptables-restore` is here and may place rules.
    ///
    /// # Errors
    /// Why not, what still works, and what to do.
    pub async fn detect() -> Result<Self, Trouble> {
        let text = "iptables-restore was not found; clients are served without rules".to_owned();
        Err(Trouble { kind: Kind::Iptables, text })
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
}
