//! `[consul]`: the door for clients of Consul.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mainstay_coord::InstanceRef;
use mainstay_coord::name::{NameInvalid, Namespace, NodeName};
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
    /// `on`: callers need the token of the control plane, except in the role `dev` on this machine.
    /// `off`: everybody on this machine may read and write what the door shows. Restart only.
    /// Default `on`.
    pub acl: Option<Acl>,
    /// Whether `acl = "off"` holds for `listen` on an address that others reach, too. Restart only.
    /// Default false.
    pub acl_off_anywhere: Option<bool>,
    /// Where the door alone is listened on, beside the control port: `host:port`. Tokens are sent in
    /// the clear. Restart only. Default none.
    #[schemars(with = "Option<String>")]
    pub listen: Option<SocketAddr>,
    /// What this node is called, unless `server.node` says it. Restart only. Default the host's
    /// name.
    pub node_name: Option<String>,
    /// Whether `health/service?passing` answers all instances of a service that is protected,
    /// instead of those that are left. Restart only. Default false.
    pub protect: Option<bool>,
    /// Whether `agent/leave` ends this process. Restart only. Default false.
    pub allow_leave: Option<bool>,
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
    /// Where the door alone is listened on.
    pub listen: Option<SocketAddr>,
    /// What this node is called.
    pub node_name: Option<NodeName>,
    /// Whether passing instances are all of them while their service is protected.
    pub protect: bool,
    /// Whether clients may end this process.
    pub allow_leave: bool,
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
        let is_anywhere = raw.listen.is_some_and(|at| !at.ip().is_loopback());
        if acl == Acl::Off && is_anywhere && !raw.acl_off_anywhere.unwrap_or(false) {
            let problem = "must be `on` where `consul.listen` is reached by others; \
                to open it to all of them set `consul.acl_off_anywhere = true`";
            faults.push(Invalid::contradiction("consul.acl", problem));
        }
        let node_name = raw.node_name.and_then(|name| {
            let wrong = |error: NameInvalid| Invalid::range("consul.node_name", error.to_string());
            NodeName::new(name).map_err(|error| faults.push(wrong(error))).ok()
        });
        if let Some(address) =
            advertise.filter(|address| address.is_unspecified() || address.is_multicast())
        {
            let problem = format!("must be the address of one machine, found `{address}`");
            faults.push(Invalid::range("consul.advertise", problem));
        }
        Self {
            enabled,
            datacenter,
            acl,
            listen: raw.listen.filter(|_| enabled),
            node_name,
            protect: raw.protect.unwrap_or(false),
            allow_leave: raw.allow_leave.unwrap_or(false),
            version,
            advertise,
        }
    }

    /// Whether whoever reaches the door at `listener` needs no token; `is_dev` in the role `dev`.
    pub fn is_open(&self, listener: IpAddr, is_dev: bool) -> bool {
        // Off anywhere else was asked for twice.
        self.acl == Acl::Off || (is_dev && listener.is_loopback())
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
        check("acl = 'off'\nlisten = '127.0.0.1:8500'", 0);
        check("acl = 'off'\nlisten = '0.0.0.0:8500'", 1);
        check("acl = 'off'\nlisten = '0.0.0.0:8500'\nacl_off_anywhere = true", 0);
        check("listen = '0.0.0.0:8500'\nnode_name = 'web-1'", 0);
        check("node_name = ''", 1);
        check("version = '1.19.9'", 1);
        check("version = '1.x'\ndatacenter = 'a b'", 2);
    }
}
