//! The `cache` room.
