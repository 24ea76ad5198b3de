//! The `life` room.
