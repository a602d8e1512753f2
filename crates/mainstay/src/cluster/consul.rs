//! `[consul]`: the door for clients of Consul.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mainstay_coord::InstanceRef;
use mainstay_coord::name::Namespace;
use mainstay_coord::registry::Instance;
use mainstay_resilience::Invalid;
use schemars::JsonSchema;
use serde::Deserialize;

/// Services that clients of Consul registered, by namespace, node and id.
pub type Known = BTreeMap<(Namespace, String, String), (InstanceRef, Arc<Instance>)>;

/// The `[consul]` table as written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawConsul {
    /// Whether `/v1/…` answers clients of Consul. Restart only. Default true.
    pub enabled: Option<bool>,
    /// The one datacenter there is, 1 to 63 of `[A-Za-z0-9_-]`. Restart only. Default `dc1`.
    pub datacenter: Option<String>,
    /// `on`: callers need the token of the control plane, except in the role `dev`. `off`:
    /// everybody on this machine may read and write what the door shows. Restart only. Default
    /// `on`.
    pub acl: Option<Acl>,
    /// The version of Consul that is reported, 1.20.0 or later. Restart only. Default `1.22.0`.
    pub version: Option<String>,
    /// The IP address of this node, for services that name none. Restart only. Default that of the
    /// control port.
    pub advertise: Option<IpAddr>,
}

/// Whether callers need a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Acl {
    /// They do.
    #[default]
    On,
    /// They do not.
    Off,
}

/// The door, resolved.
#[derive(Clone, Debug)]
pub struct ConsulConfig {
    /// Whether there is one.
    pub enabled: bool,
    /// The one datacenter.
    pub datacenter: String,
    /// Whether callers need a token.
    pub acl: Acl,
    /// The version of Consul that is reported.
    pub version: String,
    /// The IP address of this node, where it is not that of the control port.
    pub advertise: Option<IpAddr>,
}

impl ConsulConfig {
    /// Resolves what was written; adds what is wrong to `faults`.
    pub fn resolve(raw: RawConsul, faults: &mut Vec<Invalid>) -> Self {
        let datacenter = raw.datacenter.unwrap_or_else(|| "dc1".to_owned());
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        if datacenter.is_empty() || 63 < datacenter.len() || !datacenter.bytes().all(fits) {
            let problem = format!("must be 1 to 63 of `[A-Za-z0-9_-]`, found `{datacenter}`");
            faults.push(Invalid::range("consul.datacenter", problem));
        }
        let version = raw.version.unwrap_or_else(|| "1.22.0".to_owned());
        let parts: Option<Vec<u32>> = version.split('.').map(|part| part.parse().ok()).collect();
        if !parts.is_some_and(|parts| parts.len() == 3 && vec![1, 20, 0] <= parts) {
            let problem = format!("must be `1.20.0` or later, found `{version}`");
            faults.push(Invalid::range("consul.version", problem));
        }
        let acl = raw.acl.unwrap_or_default();
        let (enabled, advertise) = (raw.enabled.unwrap_or(true), raw.advertise);
        if let Some(address) =
            advertise.filter(|address| address.is_unspecified() || address.is_multicast())
        {
            let problem = format!("must be the address of one machine, found `{address}`");
            faults.push(Invalid::range("consul.advertise", problem));
        }
        Self { enabled, datacenter, acl, version, advertise }
    }

    /// The address of this node; `control` is where its control port is reached.
    pub fn address(&self, control: &str) -> String {
        let own = || control.parse::<SocketAddr>().map(|at| at.ip()).ok();
        self.advertise.or_else(own).map(|at| at.to_string()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_would_trip_over_is_refused() {
        let check = |text: &str, want: usize| {
            let mut faults = Vec::new();
            ConsulConfig::resolve(toml::from_str(text).unwrap(), &mut faults);
            assert_eq!(faults.len(), want, "{text}: {faults:?}");
        };
        check("", 0);
        check("version = '1.20.0'", 0);
        check("advertise = '10.0.0.1'", 0);
        check("advertise = '0.0.0.0'", 1);
        check("version = '1.19.9'", 1);
        check("version = '1.x'\ndatacenter = 'a b'", 2);
    }
}
