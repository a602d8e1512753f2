//! Whatever bytes come to the DNS door, what goes out is a whole message with their id and within
//! the size its client takes, or nothing.

#![no_main]

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use mainstay::dns::directory::{Directory, Loading};
use mainstay::dns::settings::{DnsConfig, RawDns};
use mainstay::dns::wire::{Transport, respond};
use mainstay_coord::name::{InstanceId, Namespace};
use mainstay_coord::registry::{Instance, Listed, View};
use mainstay_coord::{InstanceRef, ServiceRef};
use mainstay_core::name::ServiceName;
use mainstay_store::Revision;

/// One service, under whatever name.
struct Same(Arc<View>);

impl Directory for Same {
    fn revision(&self) -> Result<u64, Loading> {
        Ok(7)
    }

    fn service(&self, _: &str, name: &str) -> Result<Option<Arc<View>>, Loading> {
        Ok((!name.starts_with('x')).then(|| Arc::clone(&self.0)))
    }

    fn is_parent(&self, suffix: &str) -> Result<bool, Loading> {
        Ok(suffix.len() % 2 == 0)
    }

    fn instance_at(&self, _: IpAddr) -> Result<Option<InstanceRef>, Loading> {
        Ok(self.0.instances.first().map(|listed| self.0.service.instance(&listed.id)))
    }

    fn node(&self, _: &str) -> Result<Option<Vec<IpAddr>>, Loading> {
        Ok(Some(Vec::new()))
    }

    fn node_at(&self, _: IpAddr) -> Option<String> {
        None
    }
}

fn same() -> Same {
    let instance = |n: u32| {
        let address = if n % 2 == 0 { format!("10.0.0.{n}") } else { format!("fd00::{n}") };
        let record = format!(
            r#"{{"v":1,"address":"{address}","port":80,"ports":{{"http":80}},"kind":"ephemeral",
            "weight":1,"tags":["tag"],"state":"up","health":"passing","own":"passing",
            "was_passing":true,"ttl_seconds":15,"owner":"n","registration":"r",
            "registered_unix_ms":0,"changed_unix_ms":0}}"#
        );
        let instance = Instance::read(record.as_bytes()).expect("a record");
        let id = InstanceId::new(format!("i:{n}")).expect("an id");
        Listed {
            id,
            health: instance.health,
            instance: instance.into(),
            revision: Revision::new(1),
        }
    };
    Same(Arc::new(View {
        service: ServiceRef {
            namespace: Namespace::new("default").expect("a name"),
            name: ServiceName::new("web").expect("a name"),
        },
        revision: Revision::new(1),
        instances: (0..100).map(instance).collect(),
        protected: None,
        stale_since_unix_ms: None,
        resync: false,
        empty_because: None,
    }))
}

fuzz_target!(|input: &[u8]| {
    static KNOWN: OnceLock<(DnsConfig, Same)> = OnceLock::new();
    let (config, directory) = KNOWN
        .get_or_init(|| (DnsConfig::resolve(RawDns::default(), "dc1", &mut Vec::new()), same()));
    for (transport, most) in [(Transport::Udp, 1_232), (Transport::Tcp, 65_535)] {
        let Some(reply) = respond(input, transport, config, directory, 42) else { return };
        assert!((12..=most).contains(&reply.bytes.len()));
        assert_eq!(reply.bytes[..2], input[..2], "another id");
        assert_eq!(reply.bytes[2] & 0x80, 0x80, "no answer");
        let again = respond(&reply.bytes, transport, config, directory, 42);
        assert!(again.is_none(), "an answer is answered");
    }
});
