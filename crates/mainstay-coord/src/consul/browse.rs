//! Reading the catalog with its index.
//!
//! What a service looks like depends on its instances and on the nodes they belong to, so the set
//! of keys it depends on is known only once some of it has been read. It is read until both agree;
//! a service that comes to another node has changed by itself, so no index is lower than one that
//! was told before.

use std::collections::BTreeSet;
use std::time::Duration;

use mainstay_store::{Entry, Range, Revision};

use super::catalog::{Catalog, CatalogService};
use super::{Consul, ConsulError, Found};
use crate::keys::{self, RegistryArea, ServiceRef};
use crate::name::{Namespace, NodeName};
use crate::random;

/// Nodes that are watched one by one; with more of them all are watched, and the change of another
/// wakes as well. Two watches each keep a query below a hundred.
const NODES_MAX: usize = 40;

/// Times a set is read that changes while it is read.
const READS_MAX: u32 = 100;

/// A part of the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// One service, with the nodes its instances belong to.
    Service(ServiceRef),
    /// The instances of one service, and no node.
    Instances(ServiceRef),
    /// Every node, and no service.
    Nodes,
    /// Everything of a namespace.
    All(Namespace),
}

/// A part of the catalog at one revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Browsed {
    /// What it looks like.
    pub catalog: Catalog,
    /// The revision of its last change, deletions included.
    pub index: Revision,
}

impl Consul {
    /// Reads a part of the catalog once its index is past `after`, or the time is over: a blocking
    /// query, as [`find_after`](Consul::find_after) is one.
    ///
    /// # Errors
    ///
    /// As [`find`](Consul::find).
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn browse(
        &self,
        part: &Part,
        after: Revision,
        wait: Duration,
    ) -> Result<Browsed, ConsulError> {
        let timer = &self.shared.timer;
        let until = timer.now().plus(wait + wait.mul_f64(random::share() / 16.0));
        loop {
            let (ranges, found) = self.read(part).await?;
            let left = until.since(timer.now());
            let is_new = after < found.index || found.read < after;
            if after == Revision::NEVER || is_new || left.is_zero() {
                let (instances, records, living) = parts(part, &found);
                let catalog = Catalog::read(&instances, &records, &living)?;
                return Ok(Browsed { catalog, index: found.index });
            }
            self.changed(&ranges, found.read, left).await?;
        }
    }

    /// Reads until what was read depends on what was read.
    async fn read(&self, part: &Part) -> Result<(Vec<Range>, Found), ConsulError> {
        let mut ranges = match part {
            Part::Service(service) | Part::Instances(service) => vec![service.instances()],
            Part::Nodes => vec![keys::consul_nodes(), RegistryArea::Nodes.range()],
            Part::All(namespace) => vec![
                Range::prefix(format!("ins/{namespace}/")),
                keys::consul_nodes(),
                RegistryArea::Nodes.range(),
            ],
        };
        for _read in 0..READS_MAX {
            let found = self.find(&ranges).await?;
            let Part::Service(service) = part else { return Ok((ranges, found)) };
            let instances = found.entries.first().map_or([].as_slice(), Vec::as_slice);
            let wanted = depends(service, instances);
            if wanted == ranges {
                return Ok((ranges, found));
            }
            ranges = wanted;
        }
        Err(ConsulError::Behind)
    }
}

/// What a service depends on whose instances are these.
fn depends(service: &ServiceRef, instances: &[Entry]) -> Vec<Range> {
    let catalog = Catalog::read(instances, &[], &[]).unwrap_or_default();
    let names: BTreeSet<String> =
        catalog.services.into_iter().map(|CatalogService { node, .. }| node).collect();
    let mut ranges = vec![service.instances()];
    if NODES_MAX < names.len() {
        ranges.extend([keys::consul_nodes(), RegistryArea::Nodes.range()]);
        return ranges;
    }
    for name in names {
        ranges.extend(keys::consul_node(&name).map(|key| Range::key(&key)));
        let process = NodeName::new(name).ok().map(|name| keys::node(&name));
        ranges.extend(process.map(|key| Range::key(&key)));
    }
    ranges
}

/// Records of instances, of nodes, and marks of living processes.
fn parts(part: &Part, found: &Found) -> (Vec<Entry>, Vec<Entry>, Vec<Entry>) {
    let mut all = found.entries.iter();
    let instances = match part {
        Part::Nodes => Vec::new(),
        Part::Service(_) | Part::Instances(_) | Part::All(_) => {
            all.next().cloned().unwrap_or_default()
        }
    };
    let is_record = |entry: &Entry| entry.key.starts_with(b"cat/");
    let (records, living) = all.flatten().cloned().partition(is_record);
    (instances, records, living)
}
