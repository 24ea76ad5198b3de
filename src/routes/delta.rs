//! What a reload changes.

use std::collections::HashSet;

use super::{Listen, Routes};

/// The difference between the table in use and the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Listens of the new table that have to be opened, by index.
    pub opened: Vec<usize>,
    /// Listens of both, as (old index, new index).
    pub kept: Vec<(usize, usize)>,
    /// Listens of the old table that are to be closed, by index.
    pub closed: Vec<usize>,
    /// Routes of the new table whose cache starts empty, by index.
    pub cold: Vec<usize>,
    /// Endpoints, or when to look for changes, differ.
    pub process: bool,
}

impl Delta {
    /// Compares two tables. A listen is the same when it has the same address and was named in the same way.
    pub fn between(old: &Routes, new: &Routes) -> Delta {
        let same = |a: &Listen, b: &Listen| (a.address, a.explicit, a.scheme) == (b.address, b.explicit, b.scheme);
        let mut delta = Delta { process: old.process != new.process, ..Delta::default() };
        for (at, listen) in new.listens.iter().enumerate() {
            match old.listens.iter().position(|before| same(before, listen)) {
                Some(before) => delta.kept.push((before, at)),
                None => delta.opened.push(at),
            }
        }
        let gone = |at: &usize| !delta.kept.iter().any(|(before, _)| before == at);
        delta.closed = (0..old.listens.len()).filter(gone).collect();
        let warm: HashSet<u64> = old.routes.iter().map(|route| route.fingerprint).collect();
        delta.cold = (0..new.routes.len()).filter(|at| !warm.contains(&new.routes[*at].fingerprint)).collect();
        delta
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::check_text;

    #[test]
    fn listens_routes_and_endpoints() {
        let old = check_text(
            "a",
            "a {\n bind 127.0.0.1 127.0.0.2\n cache\n forward . 1.1.1.1\n}\nb {\n bind 127.0.0.3\n cache\n}",
        )
        .unwrap();
        let new = check_text(
            "b",
            "b {\n bind 127.0.0.3\n cache 30\n health\n}\na {\n bind 127.0.0.4\n cache\n}\nc {\n bind 127.0.0.2\n}",
        )
        .unwrap();
        let delta = Delta::between(&old, &new);
        assert_eq!(
            delta,
            Delta { opened: vec![1], kept: vec![(2, 0), (1, 2)], closed: vec![0], cold: vec![0, 1, 2], process: true }
        );
        assert_eq!(Delta::between(&old, &old.clone()).cold, Vec::<usize>::new());
    }
}
