//! The `life` room.

pub mod endpoints;
pub mod files;
pub mod kubedns;
pub mod options;
pub mod pidfile;
pub mod refusal;
pub mod resolvconf;
pub mod signals;
pub mod sources;
pub mod template;
pub mod watch;
