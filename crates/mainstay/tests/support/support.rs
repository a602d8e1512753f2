//! What process tests share: the real binary as a child, and waiting for it.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

pub(crate) mod etcd;
pub(crate) mod events;
pub(crate) mod gateway;
pub(crate) mod members;
pub(crate) mod namespaces;
pub(crate) mod participant;
pub(crate) mod relay;
pub(crate) mod wait;
