//! The octets that a worker's connections hold beyond what each may, and who gives way when they are too many.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::rc::Rc;

/// Octets that a connection holds without being noted: they are part of what its place costs.
pub(crate) const FREE: usize = 4 << 10;

/// Who holds how much, the connection that has got on with nothing for longest first.
pub(crate) struct Memory<T> {
    limit: usize,
    held: usize,
    last: u64,
    holders: BTreeMap<u64, Holder<T>>,
}

struct Holder<T> {
    source: IpAddr,
    octets: usize,
    connection: Rc<T>,
}

impl<T> Memory<T> {
    /// Room for `limit` octets of all connections together.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, held: 0, last: 0, holders: BTreeMap::new() }
    }

    /// Octets held by all.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Notes that `connection` holds so many octets. `turn`: its place in line as returned the last time, `None` if it
    /// held nothing. Who has `moved` on goes to the end of the line.
    pub(crate) fn note(
        &mut self,
        turn: Option<u64>,
        moved: bool,
        octets: usize,
        source: IpAddr,
        connection: &Rc<T>,
    ) -> Option<u64> {
        if let Some(at) = turn
            && !moved
            && octets > 0
            && let Some(holder) = self.holders.get_mut(&at)
        {
            self.held = self.held - holder.octets + octets;
            holder.octets = octets;
            return turn;
        }
        self.forget(turn);
        if octets == 0 {
            return None;
        }
        self.last += 1;
        self.held += octets;
        self.holders.insert(self.last, Holder { source, octets, connection: connection.clone() });
        Some(self.last)
    }

    /// The connection with this place in line holds nothing any more.
    pub(crate) fn forget(&mut self, turn: Option<u64>) {
        if let Some(holder) = turn.and_then(|turn| self.holders.remove(&turn)) {
            self.held -= holder.octets;
        }
    }

    /// If too much is held: the connection to give way. It is the first in line of the client that holds most, so that
    /// one who takes all there is pays for it alone.
    pub(crate) fn first(&self) -> Option<Rc<T>> {
        if self.held <= self.limit {
            return None;
        }
        let mut sums: HashMap<IpAddr, usize> = HashMap::new();
        for holder in self.holders.values() {
            *sums.entry(holder.source).or_default() += holder.octets;
        }
        let heaviest = *sums.iter().max_by_key(|(_, octets)| **octets)?.0;
        self.holders.values().find(|holder| holder.source == heaviest).map(|holder| holder.connection.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn nobody_gives_way_while_there_is_room() {
        let mut memory = Memory::new(100);
        let turn = memory.note(None, false, 60, source(1), &Rc::new(1));
        let turn = memory.note(turn, false, 100, source(1), &Rc::new(1));
        assert_eq!((memory.held(), memory.first()), (100, None));
        assert_eq!(memory.note(turn, false, 0, source(1), &Rc::new(1)), None);
        assert_eq!((memory.held(), memory.holders.len()), (0, 0));
    }

    #[test]
    fn the_client_that_holds_most_gives_way_with_what_stood_still_longest() {
        let mut memory = Memory::new(100);
        let small = memory.note(None, false, 20, source(1), &Rc::new("small"));
        let first = memory.note(None, false, 30, source(2), &Rc::new("first"));
        let second = memory.note(None, false, 40, source(2), &Rc::new("second"));
        assert_eq!(memory.first(), None);
        let small = memory.note(small, false, 45, source(1), &Rc::new("small"));
        assert_eq!(memory.first().as_deref(), Some(&"first"));
        let first = memory.note(first, true, 30, source(2), &Rc::new("first"));
        assert_eq!(memory.first().as_deref(), Some(&"second"), "the first has moved on");
        memory.forget(second);
        assert_eq!((memory.held(), memory.first()), (75, None));
        memory.forget(first);
        memory.forget(small);
        memory.forget(small);
        assert_eq!((memory.held(), memory.holders.len()), (0, 0));
    }
}
