//! The `life` room: options in, running processes out, and an exit code at the end.
//!
//! There are two. [`run`] is the first, the `keeper`: it holds the listening sockets, has the node's network tended, and
//! sees to it that a server answers. [`serve`] is the second, the server, which it starts with the same options; they speak
//! over `channel`.
//!
//! The server's life is read top to bottom in `agent`: the configuration is read ([`sources`]: a file, standard input, the
//! built-in text, or a [`template`] filled from flags, environment and the [`kubedns`] ConfigMap), compiled (`load`), the
//! hosts it names are resolved (`hosts`), its pools and endpoints are made and its sockets asked for (`snapshot`), and
//! everything is put in force at once (`publish` in `reload`). Then the agent waits for signals, for file changes
//! ([`watch`]), for news from the keeper and of loops (`looping`). `drain` is the stop.
//!
//! Example: somebody edits `/etc/resolv.conf`. inotify tells [`watch`], which waits until the file stays quiet;
//! `look_again` reads every file the configuration depends on; [`resolvconf`] finds other nameservers and none of them
//! is ourselves; pools are made for them, over the same upstreams where they stayed; a resolver with the same routes and
//! the new pools is published. The cache does not notice. Had the file been empty, one log line would say so and nothing
//! would change.
//!
//! Everything that can fail happens before anything that runs is touched: a start fails as a whole, a reload changes all
//! or nothing. Addresses that stay keep their sockets and their queues, HTTP endpoints stay open, upstreams that stay
//! keep what was learnt about them, and unchanged routes keep their cache entries. A server that replaces one that died is
//! no worse off: if there is nothing it could start with, it takes what was in force (`last`).
//!
//! Threads of the server: the workers, each in the `serve` room, and the one that calls [`serve`], with a runtime of its own
//! for signals, reloads and the HTTP endpoints; a scrape cannot slow a query. The keeper has one.
//!
//! An operator's questions are answered `aside`: the same configuration and pools, and no agent. Whether the agent is
//! ready, its keeper says to who asks ([`inquiry`]).
//!
//! The room never sees a query, and is the only one that reads files; in it only the keeper binds sockets.

mod agent;
pub mod aside;
pub(crate) mod budget;
mod channel;
mod cluster;
mod drain;
mod endpoints;
mod files;
mod hosts;
pub mod inquiry;
mod keeper;
pub mod kubedns;
mod last;
pub mod load;
mod looping;
mod machine;
pub mod options;
mod pidfile;
mod pools;
mod refusal;
mod reload;
pub mod resolvconf;
mod scrape;
mod searches;
mod server;
mod signals;
mod snapshot;
pub mod sources;
pub mod template;
pub mod watch;
mod weights;

pub use agent::serve;
pub use channel::Ends;
pub use keeper::{SERVER, run};
