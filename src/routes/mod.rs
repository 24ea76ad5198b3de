//! The `routes` room.
