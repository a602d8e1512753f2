//! `[client]`: how a process without a registry finds the instances of services.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use mainstay_client::Client;
use mainstay_resilience::Invalid;
use schemars::JsonSchema;
use serde::Deserialize;

use super::dns::Pattern;

/// The `[client]` table as written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawClient {
    /// Control ports of the servers that keep registry, rules and switches, each
    /// `http://HOST:PORT`; one is asked as long as it answers. Used in the role `gateway`, which
    /// serves by their rules and switches beside its own files, and finds services without
    /// `instances` there; roles that keep a registry ask their own. Restart only.
    pub servers: Option<Vec<String>>,
    /// File whose first line is the token to ask them with; nobody but its owner may read it.
    /// Restart only.
    pub token_file: Option<PathBuf>,
    /// Folder of the last known lists, rules and switches, relative to the data directory: what a
    /// gateway that starts while the servers are away begins with. Restart only. Default `cache`.
    pub cache: Option<PathBuf>,
    /// How long a list is not believed that is suddenly empty without saying why, or older than
    /// what is known, in seconds, 0 to 3,600. Restart only. Default 30.
    pub empty_grace_seconds: Option<f64>,
    /// Who knows the instances: `registry` (that of `servers`), `dns`, or `static` (nobody but the
    /// configuration). Restart only. Default `registry`.
    pub resolve: Option<By>,
    /// With `resolve = "dns"`: the name of a service, made of `{service}` and `{namespace}`. One
    /// that begins with `_` is asked for SRV records; any other for addresses, and ends in
    /// `:PORT`. Restart only. Default `_{service}._tcp.{namespace}.svc.mainstay`.
    pub dns_name: Option<String>,
    /// With `resolve = "dns"`: who is asked, each `IP:PORT`, in this order. Restart only. Default:
    /// those of `/etc/resolv.conf`.
    #[schemars(with = "Option<Vec<String>>")]
    pub nameservers: Option<Vec<SocketAddr>>,
}

/// Who knows the instances of services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// The registry of another process.
    #[default]
    Registry,
    /// The configuration, and nobody else.
    Static,
    /// DNS.
    Dns,
}

/// `[client]`, resolved.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Who keeps registry and rules; none, when nobody is to be asked.
    pub servers: Vec<String>,
    /// Where the token is.
    pub token_file: Option<PathBuf>,
    /// Where lists are kept, in the data directory or elsewhere.
    pub cache: PathBuf,
    /// How long a strange list is not believed.
    pub empty_grace: Duration,
    /// Who knows the instances.
    pub by: By,
    /// What services are called in DNS.
    pub dns_name: Pattern,
    /// Who is asked for names; those of the system when empty.
    pub nameservers: Vec<SocketAddr>,
}

impl ClientConfig {
    /// Resolves what was written; adds what is wrong to `faults`.
    pub fn resolve(raw: RawClient, faults: &mut Vec<Invalid>) -> Self {
        let servers = raw.servers.unwrap_or_default();
        if !servers.is_empty()
            && let Err(error) = Client::builder(&servers).build()
        {
            faults.push(Invalid::range("client.servers", error.to_string()));
        }
        let grace = raw.empty_grace_seconds.unwrap_or(30.0);
        let empty_grace = Duration::try_from_secs_f64(grace).ok();
        let empty_grace = empty_grace.filter(|grace| *grace <= Duration::from_hours(1));
        if empty_grace.is_none() {
            let problem = format!("must be 0 to 3600, found {grace}");
            faults.push(Invalid::range("client.empty_grace_seconds", problem));
        }
        let pattern = raw.dns_name.as_deref().unwrap_or(Pattern::DEFAULT);
        let dns_name = Pattern::new(pattern).unwrap_or_else(|problem| {
            faults.push(Invalid::range("client.dns_name", format!("{problem}, found `{pattern}`")));
            Pattern::default()
        });
        Self {
            servers,
            token_file: raw.token_file,
            cache: raw.cache.unwrap_or_else(|| PathBuf::from("cache")),
            empty_grace: empty_grace.unwrap_or_default(),
            by: raw.resolve.unwrap_or_default(),
            dns_name,
            nameservers: raw.nameservers.unwrap_or_default(),
        }
    }
}

/// The servers of names in the text of a `resolv.conf`.
pub(super) fn nameservers(text: &str) -> Vec<SocketAddr> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    // A zone behind `%` is of no use to us: link-local servers are rare.
    let addresses = lines.filter_map(|rest| rest.trim().parse::<IpAddr>().ok());
    addresses.map(|address| SocketAddr::new(address, 53)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_of_the_system_are_read_and_the_rest_passed_over() {
        let text = "# made by hand\nsearch shop.example\nnameserver 10.0.0.2\n nameserver\t::1 \n\
                    nameserver fe80::1%eth0\noptions ndots:2\n";
        let read: Vec<String> = nameservers(text).iter().map(ToString::to_string).collect();
        assert_eq!(read, ["10.0.0.2:53", "[::1]:53"]);
    }
}
