//! Queries whose replies have to be awaited, one question or many.

use super::autopath::Walk;
use super::miss::Miss;

/// A query whose reply has to be awaited.
#[expect(clippy::large_enum_variant, reason = "a miss is moved once, and a box would cost every miss an allocation")]
pub enum Awaited {
    /// One question decides.
    Miss(Miss),
    /// Several may.
    Walk(Box<Walk>),
}

impl Awaited {
    /// Takes a place among those who wait; `false` where there is none for it, which is counted.
    pub fn board(&mut self) -> bool {
        match self {
            Awaited::Miss(miss) => miss.board(),
            Awaited::Walk(walk) => walk.board(),
        }
    }

    /// Waits for the outcome and writes the reply, a whole message, into `out`. Of a refresh there is none.
    pub async fn resolve(self, out: &mut Vec<u8>) {
        match self {
            Awaited::Miss(miss) => miss.resolve(out).await,
            Awaited::Walk(walk) => walk.resolve(out).await,
        }
    }

    /// Writes the reply for a query that there is no room to wait for.
    pub fn shed(self, out: &mut Vec<u8>) {
        match self {
            Awaited::Miss(miss) => miss.shed(out),
            Awaited::Walk(walk) => walk.shed(out),
        }
    }
}
