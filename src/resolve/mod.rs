//! The `resolve` room.
