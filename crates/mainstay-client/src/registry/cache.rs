//! The last list of each service, on disk.
//!
//! A client that starts while the registry is away begins with these, whatever their age. A file
//! is written beside and renamed, so it is whole or not there; a checksum tells one that the disk
//! has spoiled, which is then as good as none.

use std::io;
use std::path::PathBuf;

use mainstay_api::registry::ServiceView;
use mainstay_core::name::ServiceName;
use serde::{Deserialize, Serialize};

use crate::sheet;

/// Largest file that is read: 10,000 instances of 6 KiB.
const BYTES_MAX: u64 = 64 << 20;

/// The folder of the lists.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    folder: PathBuf,
}

/// A list as it is saved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Saved {
    /// Which history its revision is of.
    pub(super) store: Option<String>,
    /// The list.
    pub(super) view: ServiceView,
}

impl Cache {
    /// The cache below `folder`.
    pub(super) fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Where the list of a service is kept.
    pub(super) fn path(&self, namespace: &str, service: &str) -> PathBuf {
        // Neither part can hold a separator, or begin with a dot.
        self.folder.join("registry").join(namespace).join(format!("{service}.json"))
    }

    /// Keeps a list. Blocks; to be called at most once a second a service. When it fails, what was
    /// kept before is still there.
    pub(super) fn save(&self, saved: &Saved) -> io::Result<()> {
        sheet::save(&self.path(&saved.view.namespace, &saved.view.service), saved)
    }

    /// The list kept of a service, if one is. Blocks.
    pub(super) fn load(&self, namespace: &str, service: &ServiceName) -> io::Result<Option<Saved>> {
        let path = self.path(namespace, service.as_str());
        let saved: Option<Saved> = sheet::load(&path, BYTES_MAX)?;
        match saved {
            Some(saved)
                if saved.view.namespace != namespace || saved.view.service != service.as_str() =>
            {
                Err(sheet::damaged("it is of another service"))
            }
            saved => Ok(saved),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use mainstay_api::registry::Instance;

    use super::*;

    pub(in crate::registry) fn instance(id: &str) -> Instance {
        let text = |text: &str| text.to_owned();
        Instance {
            id: text(id),
            address: text("10.0.0.7"),
            port: 8080,
            ports: BTreeMap::new(),
            kind: text("ephemeral"),
            weight: 1,
            zone: text("a"),
            version: String::new(),
            tags: vec![text("v2")],
            metadata: BTreeMap::new(),
            state: text("up"),
            health: text("passing"),
            reason: None,
            checks: Vec::new(),
            drain_seconds: None,
            removal_held: false,
            ttl_seconds: 15,
            remove_after_seconds: Some(30),
            owner: text("n1"),
            registered_at: text("2026-01-01T00:00:00Z"),
            changed_at: text("2026-01-01T00:00:00Z"),
            revision: 4,
        }
    }

    pub(in crate::registry) fn view(instances: Vec<Instance>) -> ServiceView {
        ServiceView {
            namespace: "shop".to_owned(),
            service: "order".to_owned(),
            revision: 4,
            protected: None,
            stale: false,
            stale_seconds: None,
            resync: false,
            empty_because: None,
            instances,
        }
    }

    fn order() -> ServiceName {
        ServiceName::new("order").unwrap()
    }

    #[test]
    fn what_was_saved_is_read_back_whole() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path());
        assert_eq!(cache.load("shop", &order()).unwrap(), None);
        let saved = Saved {
            store: Some("77".to_owned()),
            view: view(vec![instance("a"), instance("订单")]),
        };
        cache.save(&saved).unwrap();
        assert_eq!(cache.load("shop", &order()).unwrap(), Some(saved));
        let files = fs::read_dir(folder.path().join("registry/shop")).unwrap();
        let files: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
        assert_eq!(files, ["order.json"], "nothing half-written is left");
    }

    #[test]
    fn a_spoiled_file_is_as_good_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path());
        cache.save(&Saved { store: None, view: view(vec![instance("a")]) }).unwrap();
        let path = cache.path("shop", "order");
        let good = fs::read_to_string(&path).unwrap();
        for bad in [
            good.replace("10.0.0.7", "10.0.0.8"),
            good.replace("\"order\"", "\"stock\""),
            good.chars().take(good.len() / 2).collect(),
            String::new(),
        ] {
            fs::write(&path, bad).unwrap();
            let read = cache.load("shop", &order()).unwrap_err();
            assert_eq!(read.kind(), io::ErrorKind::InvalidData, "{read}");
        }
        // A list of another service under this name is not believed either.
        fs::write(cache.path("shop", "stock"), good).unwrap();
        assert!(cache.load("shop", &ServiceName::new("stock").unwrap()).is_err());
    }

    #[test]
    fn a_save_that_fails_says_so() {
        let folder = tempfile::tempdir().unwrap();
        // Its folder cannot be made: a file is in the way.
        fs::write(folder.path().join("registry"), "").unwrap();
        let saved = Saved { store: None, view: view(Vec::new()) };
        assert!(Cache::new(folder.path()).save(&saved).is_err());
    }
}
