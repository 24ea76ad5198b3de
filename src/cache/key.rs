//! Keys: which question, of which route, hashed once.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use quick_cache::Equivalent;

/// A key that borrows its octets, for look-ups.
#[derive(Clone, Copy, Debug)]
pub struct KeyRef<'a> {
    pub(super) hash: u64,
    pub(super) route: u64,
    pub(super) octets: &'a [u8],
}

/// A key that owns its octets, for storing; cheap to clone.
#[derive(Clone, Debug)]
pub struct Key {
    hash: u64,
    route: u64,
    octets: Arc<[u8]>,
}

/// Hands the hash of a key through: it was computed, keyed, when the key was made.
#[derive(Clone, Copy, Debug, Default)]
pub struct HashedAlready(u64);

impl KeyRef<'_> {
    /// The owned form.
    pub fn to_key(&self) -> Key {
        Key { hash: self.hash, route: self.route, octets: self.octets.into() }
    }

    /// The keyed hash.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

impl Key {
    /// The borrowed form.
    pub fn as_ref(&self) -> KeyRef<'_> {
        KeyRef { hash: self.hash, route: self.route, octets: &self.octets }
    }

    /// The keyed hash.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many octets the key holds.
    pub fn len(&self) -> usize {
        self.octets.len()
    }

    /// Whether there are none; no key made from a question is empty.
    pub fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }
}

impl Hash for KeyRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        other.as_ref().equivalent(self)
    }
}

impl Eq for Key {}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.hash == key.hash && self.route == key.route && *self.octets == *key.octets
    }
}

impl BuildHasher for HashedAlready {
    type Hasher = HashedAlready;

    fn build_hasher(&self) -> HashedAlready {
        HashedAlready(0)
    }
}

impl Hasher for HashedAlready {
    fn write(&mut self, _octets: &[u8]) {
        debug_assert!(false, "keys write their hash as one u64");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
