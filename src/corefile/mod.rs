//! The `corefile` room.
