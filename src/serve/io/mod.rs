//! Receive paths: how datagrams come in and replies go out. Each is a file of its own and hands what it received to
//! [`super::batch`]; none looks into a message.

pub(crate) mod mmsg;
