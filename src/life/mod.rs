//! The `life` room.

pub mod kubedns;
pub mod options;
pub mod resolvconf;
pub mod template;
pub mod watch;
