//! The `plugins` room.
