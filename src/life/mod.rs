//! The `life` room.

pub mod kubedns;
pub mod options;
pub mod pidfile;
pub mod resolvconf;
pub mod signals;
pub mod sources;
pub mod template;
pub mod watch;
