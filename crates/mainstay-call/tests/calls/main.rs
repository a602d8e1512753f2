//! The stages around a client, each in its place and all together.

mod balance;
mod circuit;
mod layers;
mod peers;
mod retry;
mod sockets;
mod timeout;
mod whole;
