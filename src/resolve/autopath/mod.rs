//! A client's search list, walked here.

mod marks;
mod search;

pub use marks::Walks;
pub(super) use search::Search;
