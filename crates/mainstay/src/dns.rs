//! The DNS door: who can answer for a service, in the words every resolver speaks.
//!
//! Authoritative for two zones, recursive for none. What is answered is decided without a socket,
//! a clock or a random number: a message, what the registry knows and a draw go in, a message
//! comes out. So every size limit and every odd question is a line in a table of tests, and a
//! fuzzer can ask a million of them.
//!
//! | what | module | decides or acts |
//! |---|---|---|
//! | `[dns]` | [`settings`] | – |
//! | bytes in, bytes out: refusals, EDNS, what has to be cut | [`wire`] | decides |
//! | what a name stands for | [`asked`], [`label`] | decides |
//! | which records that comes to | [`answer`], [`records`] | decides |
//! | what the registry knows, as this door asks it; where nodes are | [`directory`]; [`nodes`] | acts |
//! | sockets; counters | [`door`], [`figures`] | act |
//! | questions to other servers | [`ask`] | acts |

pub mod answer;
pub mod ask;
pub mod asked;
pub mod directory;
pub mod door;
pub mod figures;
pub mod label;
pub mod nodes;
pub mod records;
pub mod settings;
#[cfg(test)]
mod tests;
pub mod wire;

use std::time::Duration;

use mainstay_call::clock::MonotonicClock;
use mainstay_core::Clock as _;

use directory::RegistryDirectory;
use figures::Figures;
use settings::DnsConfig;
use wire::Transport;

/// What answers: one for all sockets of a process.
#[derive(Debug)]
pub struct Dns {
    /// What is answered, and how.
    pub config: DnsConfig,
    directory: RegistryDirectory,
    figures: Figures,
}

impl Dns {
    /// Answers by `directory` as `config` says.
    pub fn new(config: DnsConfig, directory: RegistryDirectory) -> Self {
        Self { config, directory, figures: Figures::default() }
    }

    /// What it counts.
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// The answer to `message`, if it is to be answered at all; counted.
    fn respond(&self, message: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let began = MonotonicClock.now();
        let draw = mainstay_call::draw::next();
        let reply = wire::respond(message, transport, &self.config, &self.directory, draw);
        let took: Duration = MonotonicClock.now().since(began);
        let Some(reply) = reply else {
            self.figures.ignored();
            return None;
        };
        self.figures.answered(&reply, took);
        Some(reply.bytes)
    }
}
