//! Which service a host means.

use mainstay_core::name::ServiceName;

/// What stands behind the names of services in a resolver's view of the world.
const ZONE: &str = ".svc.mainstay";

/// A service, as a host names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub service: ServiceName,
}

impl Target {
    /// The service that `hostname` may mean, without a port: `order` is one of the namespace
    /// `own`, `order.shop` and `order.shop.svc.mainstay` are one of the namespace `shop`. `None` for
    /// what cannot be the name of one. Letter case does not matter.
    pub fn of(hostname: &str, own: &str) -> Option<Self> {
        let name = hostname.to_ascii_lowercase();
        let in_zone = name.strip_suffix(ZONE);
        let (service, namespace) = match in_zone.unwrap_or(&name).rsplit_once('.') {
            Some((service, namespace)) => (service, namespace),
            None if in_zone.is_some() => return None,
            None => (&*name, own),
        };
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let is_namespace = (1..=63).contains(&namespace.len()) && namespace.bytes().all(legal);
        // An IPv4 address is not the name of a service, whatever it looks like.
        let is_address = name.parse::<std::net::IpAddr>().is_ok();
        if is_address || !is_namespace {
            return None;
        }
        let service = ServiceName::new(service).ok()?;
        Some(Self { namespace: namespace.to_owned(), service })
    }

    /// What the service is called among the upstreams of one whose namespace is `own`: as its
    /// shortest host. So what stands behind the last dot is always a namespace, and no two services
    /// have the same name.
    pub fn upstream(&self, own: &str) -> Option<ServiceName> {
        if self.namespace == own && !self.service.as_str().contains('.') {
            return Some(self.service.clone());
        }
        ServiceName::new(&format!("{}.{}", self.service, self.namespace)).ok()
    }
}

/// The service of `namespace` that an [upstream](Target::upstream) stands for.
pub fn service<'u>(upstream: &'u str, namespace: &str) -> &'u str {
    let own = upstream.strip_suffix(namespace).and_then(|name| name.strip_suffix('.'));
    own.unwrap_or(upstream)
}

/// `host` without its port and without the dot that marks a name as absolute.
pub fn hostname(host: &str) -> &str {
    let end = if host.starts_with('[') { host.find(']').map(|at| at + 1) } else { host.find(':') };
    let name = end.and_then(|end| host.get(..end)).unwrap_or(host);
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_names_a_service_of_its_own_or_another_namespace() {
        let of = |host| {
            let target = Target::of(hostname(host), "shop")?;
            Some(format!("{}/{}", target.namespace, target.service))
        };
        for (host, is) in [
            ("order", Some("shop/order")),
            ("Order:8080", Some("shop/order")),
            ("order.stock", Some("stock/order")),
            ("order.stock.svc.mainstay.", Some("stock/order")),
            ("order.v2.stock.svc.mainstay:80", Some("stock/order.v2")),
            ("order.svc.mainstay", None),
            ("10.0.0.7:80", None),
            ("[::1]:80", None),
            ("order.Stock_1", None),
            ("", None),
        ] {
            assert_eq!(of(host).as_deref(), is, "{host}");
        }
    }

    #[test]
    fn no_two_services_have_the_same_name_among_upstreams() {
        let upstream = |host| {
            let target = Target::of(host, "shop").unwrap();
            let upstream = target.upstream("shop").unwrap();
            assert_eq!(service(upstream.as_str(), &target.namespace), target.service.as_str());
            upstream
        };
        for (host, name) in [
            ("order", "order"),
            ("order.shop", "order"),
            ("order.stock.svc.mainstay", "order.stock"),
            ("order.stock.shop", "order.stock.shop"),
            ("order.stock.stock", "order.stock.stock"),
        ] {
            assert_eq!(upstream(host).as_str(), name, "{host}");
        }
    }
}
