//! The flags of a query that change its answer, and so are part of its key.

use crate::dns::Query;

/// DO, CD, and the absence of RD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bits(u8);

const DNSSEC_OK: u8 = 1;
const CHECKING_DISABLED: u8 = 2;
/// An answer to a query without RD may be a referral, so it is never mixed with others.
const NO_RECURSION: u8 = 4;

impl Bits {
    /// Those of a client's query.
    pub fn of(query: &Query<'_>) -> Bits {
        let mut bits = 0;
        if query.dnssec_ok() {
            bits |= DNSSEC_OK;
        }
        if query.checking_disabled() {
            bits |= CHECKING_DISABLED;
        }
        if !query.recursion_desired() {
            bits |= NO_RECURSION;
        }
        Bits(bits)
    }

    /// The octet for a cache key: what is stored was asked with RD, and serves clients without it as well.
    pub fn cached(self) -> u8 {
        self.0 & !NO_RECURSION
    }

    /// The octet for a flight's key.
    pub fn flying(self) -> u8 {
        self.0
    }

    /// DO.
    pub fn dnssec_ok(self) -> bool {
        self.0 & DNSSEC_OK != 0
    }

    /// CD.
    pub fn checking_disabled(self) -> bool {
        self.0 & CHECKING_DISABLED != 0
    }

    /// RD.
    pub fn recursion_desired(self) -> bool {
        self.0 & NO_RECURSION == 0
    }
}
