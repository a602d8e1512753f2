//! What is said of an instance when it is registered.

use std::time::Duration;

use mainstay_api::registry::Register;
use mainstay_core::name::ServiceName;

use crate::error::ClientError;

/// An instance of a service, to be registered by [`Client::register`](crate::Client::register).
#[derive(Clone, Debug)]
#[must_use = "nothing is registered before `Client::register`"]
pub struct Registration {
    pub(super) service: String,
    pub(super) document: Register,
}

impl Registration {
    /// An instance of `service` that answers at `address` (an IP address or host name, as others
    /// reach it) and `port`.
    pub fn new(service: impl Into<String>, address: impl Into<String>, port: u16) -> Self {
        let document =
            Register { address: Some(address.into()), port: Some(port), ..Register::default() };
        Self { service: service.into(), document }
    }

    /// What it is called, 1 to 255 bytes; `address:port` unless told.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.document.id = Some(id.into());
        self
    }

    /// Its share of the calls, relative to the others; 1 unless told, and 0 is never picked.
    pub const fn weight(mut self, weight: u16) -> Self {
        self.document.weight = Some(weight);
        self
    }

    /// Where it runs, at most 255 bytes.
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.document.zone = Some(zone.into());
        self
    }

    /// Which build it is, at most 255 bytes.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.document.version = Some(version.into());
        self
    }

    /// A label without a value, one of at most 64.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.document.tags.push(tag.into());
        self
    }

    /// A label with a value, one of at most 64; a key of 1 to 128 bytes, a value of at most 512.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.document.metadata.insert(key.into(), value.into());
        self
    }

    /// A further port, by name, one of at most 64.
    pub fn named_port(mut self, name: impl Into<String>, port: u16) -> Self {
        self.document.ports.insert(name.into(), port);
        self
    }

    /// How long it lives from one heartbeat to the next, 5 s to a day, in whole seconds; as
    /// configured, 15 s, unless told. Beyond it the instance is critical, and removed after as
    /// long again.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.document.ttl_seconds = Some(u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX));
        self
    }

    /// Its id, given or made.
    pub(super) fn name(&self) -> String {
        let made = || {
            let address = self.document.address.as_deref().unwrap_or_default();
            format!("{address}:{}", self.document.port.unwrap_or(0))
        };
        self.document.id.clone().unwrap_or_else(made)
    }

    /// Checks what decides where it is sent; the rest is the server's to judge.
    pub(super) fn check(&self) -> Result<(), ClientError> {
        if ServiceName::new(&self.service).is_err() {
            let why = "must be 1 to 128 letters, digits, `-`, `_` or `.`";
            return Err(ClientError::Invalid { what: "name of a service", why });
        }
        let id = self.name();
        if !(1..=255).contains(&id.len()) || id.chars().any(char::is_control) {
            let why = "must be 1 to 255 bytes without control characters";
            return Err(ClientError::Invalid { what: "id of an instance", why });
        }
        Ok(())
    }
}
