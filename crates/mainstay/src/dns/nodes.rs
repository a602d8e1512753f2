//! Where nodes are that clients of Consul know: processes of Mainstay, and whatever else was
//! registered with `catalog/register`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mainstay_coord::consul::{Consul, Part};
use mainstay_store::Revision;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// How long one question for changes waits.
const WAIT: Duration = Duration::from_mins(5);

/// Pause after a failure: the store is away.
const PAUSE: Duration = Duration::from_secs(1);

/// Nodes by name, as of a moment ago. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Nodes(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// By name in lower case: as it is written, and where.
    names: BTreeMap<String, (String, Option<IpAddr>)>,
}

impl Nodes {
    /// The addresses, as far as they are known, of the node of this name, in lower case.
    pub(super) fn find(&self, name: &str) -> Option<Vec<IpAddr>> {
        self.0.lock().names.get(name).map(|(_, address)| address.iter().copied().collect())
    }

    /// The node at `address`; of several, the first by name.
    pub(super) fn at(&self, address: IpAddr) -> Option<String> {
        let known = self.0.lock();
        let mut nodes = known.names.values();
        nodes.find(|(_, at)| *at == Some(address)).map(|(name, _)| name.clone())
    }

    /// Follows the nodes `consul` knows, until told to stop. While the store is away the last that
    /// were known stay.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn follow(&self, consul: &Consul, stop: CancellationToken) {
        let mut after = Revision::NEVER;
        loop {
            let found = tokio::select! {
                () = stop.cancelled() => return,
                found = consul.browse(&Part::Nodes, after, WAIT) => found,
            };
            match found {
                Ok(found) => {
                    after = found.index;
                    let nodes = found.catalog.nodes.into_iter();
                    let names = nodes.map(|(name, node)| {
                        (name.to_ascii_lowercase(), (name, node.record.address.parse().ok()))
                    });
                    self.0.lock().names = names.collect();
                }
                Err(_away) => tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(PAUSE) => (),
                },
            }
        }
    }
}
