//! The `sys` room: safe calls in, system calls out. The only room that may hold `unsafe`.

pub mod alloc;
pub mod channel;
pub mod clock;
pub mod cpu;
pub mod datagram;
pub mod leave;
pub mod mmsg;
pub mod privileges;
pub mod process;
pub mod readable;
pub mod seccomp;
pub mod sockaddr;
pub mod sockopt;
pub mod supervisor;
#[cfg(test)]
mod testing;
