//! The search list: which candidates a first name has.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::dns::Name;
use crate::plugins::policy::autopath::{Autopath, List};
use crate::routes::Fnv;

use super::list;

/// A search list, as far as the question does not name it.
pub(in crate::resolve) struct Search {
    /// The domains, first to last.
    pub(in crate::resolve) domains: Arc<[Name]>,
    /// Equal for equal lists.
    pub(super) fingerprint: u64,
    /// With one of the domains a name of one label could look like the first of another list.
    pub(super) is_odd: bool,
}

impl Search {
    /// What the line itself says; nothing, where it names a file.
    pub(in crate::resolve) fn of(autopath: &Autopath) -> Search {
        match &autopath.list {
            List::Query(Some(domains)) => Search::new(domains.as_slice().into()),
            List::Query(None) | List::File(_) => Search::new(Arc::default()),
        }
    }

    pub(in crate::resolve) fn new(domains: Arc<[Name]>) -> Search {
        let mut hash = Fnv::default();
        domains.hash(&mut hash);
        let is_odd = domains.iter().any(|domain| list::has_svc(domain.as_wire()));
        Search { domains, fingerprint: hash.finish(), is_odd }
    }
}
