//! Random scripts on etcd and on the reference in memory: the same answers, but for where revisions
//! begin and what leases are called.

use std::time::Duration;

use mainstay_core::ManualClock;
use mainstay_store::conformance::scripts::{a_batch, a_select};
use mainstay_store::{
    Answer, Applied, Attach, Batch, Compare, Entry, Error, LeaseId, Memory, Op, Put, RangeRequest,
    Revision, Select, Store, Target,
};
use mainstay_store_etcd::Etcd;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use crate::cluster::Cluster;

/// Scripts that are played; more by `MAINSTAY_STORE_SCRIPTS`.
const SCRIPTS: u64 = 60;

const STEPS: usize = 30;

/// One step. Revisions count from where the script began, leases from 1.
#[derive(Clone, Debug)]
enum Step {
    Apply(Batch),
    Range(Select, Option<u64>),
    Revoke(u64),
    Compact(u64),
}

fn a_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => a_batch().prop_map(Step::Apply),
        3 => (a_select(), prop::option::of(1u64..20)).prop_map(|(select, at)| Step::Range(select, at)),
        1 => (1u64..5).prop_map(Step::Revoke),
        1 => (1u64..20).prop_map(Step::Compact),
    ]
}

/// How what the reference says reads on etcd.
#[derive(Clone, Copy)]
struct Shift {
    revisions: u64,
    leases: u64,
}

impl Shift {
    fn at(self, at: Revision) -> Revision {
        if at == Revision::NEVER { at } else { Revision::new(at.get() + self.revisions) }
    }

    fn lease(self, lease: LeaseId) -> LeaseId {
        LeaseId::new(lease.get() + self.leases).unwrap()
    }

    fn attach(self, attach: Attach) -> Attach {
        match attach {
            Attach::To(lease) => Attach::To(self.lease(lease)),
            other => other,
        }
    }

    fn op(self, op: Op) -> Op {
        match op {
            Op::Put(put) => Op::Put(Put { lease: self.attach(put.lease), ..put }),
            other => other,
        }
    }

    fn compare(self, compare: Compare) -> Compare {
        let target = match compare.target {
            Target::CreateRevision(at) => Target::CreateRevision(self.at(at)),
            Target::ModRevision(at) => Target::ModRevision(self.at(at)),
            Target::Lease(lease) => Target::Lease(lease.map(|lease| self.lease(lease))),
            other => other,
        };
        Compare { target, ..compare }
    }

    fn batch(self, batch: Batch) -> Batch {
        let ops = |ops: Vec<Op>| ops.into_iter().map(|op| self.op(op)).collect();
        Batch {
            compares: batch.compares.into_iter().map(|compare| self.compare(compare)).collect(),
            then: ops(batch.then),
            otherwise: ops(batch.otherwise),
        }
    }

    fn entry(self, entry: Entry) -> Entry {
        Entry {
            create_revision: self.at(entry.create_revision),
            mod_revision: self.at(entry.mod_revision),
            lease: entry.lease.map(|lease| self.lease(lease)),
            ..entry
        }
    }

    fn page(self, page: mainstay_store::Page) -> mainstay_store::Page {
        mainstay_store::Page {
            entries: page.entries.into_iter().map(|entry| self.entry(entry)).collect(),
            revision: self.at(page.revision),
            ..page
        }
    }

    fn applied(self, applied: Applied) -> Applied {
        let answer = |answer| match answer {
            Answer::Put { previous } => {
                Answer::Put { previous: previous.map(|entry| self.entry(entry)) }
            }
            Answer::Delete { deleted, previous } => {
                let previous = previous.into_iter().map(|entry| self.entry(entry)).collect();
                Answer::Delete { deleted, previous }
            }
            Answer::Range(page) => Answer::Range(self.page(page)),
        };
        Applied {
            revision: self.at(applied.revision),
            answers: applied.answers.into_iter().map(answer).collect(),
            ..applied
        }
    }

    fn error(self, error: Error) -> Error {
        match error {
            Error::Compacted { compacted } => Error::Compacted { compacted: self.at(compacted) },
            Error::FutureRevision { revision } => {
                Error::FutureRevision { revision: self.at(revision) }
            }
            Error::LeaseNotFound { lease } => Error::LeaseNotFound { lease: self.lease(lease) },
            other => other,
        }
    }
}

async fn play(step: Step, reference: &Memory, etcd: &Etcd, shift: Shift) {
    let told = format!("{step:?}");
    match step {
        Step::Apply(batch) => {
            let want = reference.apply(batch.clone()).await;
            let want = want.map(|applied| shift.applied(applied)).map_err(|e| shift.error(e));
            assert_eq!(etcd.apply(shift.batch(batch)).await, want, "{told}");
        }
        Step::Range(select, at) => {
            let request = |at| RangeRequest { at, ..RangeRequest::new(select.clone()) };
            let want = reference.range(request(at.map(Revision::new))).await;
            let want = want.map(|page| shift.page(page)).map_err(|error| shift.error(error));
            let at = at.map(|at| shift.at(Revision::new(at)));
            assert_eq!(etcd.range(request(at)).await, want, "{told}");
        }
        Step::Revoke(number) => {
            let lease = LeaseId::new(number).unwrap();
            let want = reference.revoke(lease).await;
            let want = want.map(|at| shift.at(at)).map_err(|error| shift.error(error));
            assert_eq!(etcd.revoke(shift.lease(lease)).await, want, "{told}");
        }
        Step::Compact(at) => {
            let at = Revision::new(at);
            let want = reference.compact(at).await.map_err(|error| shift.error(error));
            assert_eq!(etcd.compact(shift.at(at)).await, want, "{told}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_scripts_give_the_answers_of_the_reference() {
    let cluster = Cluster::one().await;
    let scripts = std::env::var("MAINSTAY_STORE_SCRIPTS").ok();
    let scripts = scripts.and_then(|number| number.parse().ok()).unwrap_or(SCRIPTS);
    let mut runner = TestRunner::default();
    for script in 0..scripts {
        let reference = Memory::new(ManualClock::default());
        let etcd = cluster.store(&format!("/script/{script}/"));
        let now = etcd.status().await.unwrap().revision;
        let shift = Shift { revisions: now.get() - 1, leases: 100 * (script + 1) };
        // History begins here for both; on etcd it may do so already.
        reference.compact(Revision::FIRST).await.unwrap();
        drop(etcd.compact(now).await);
        for number in 1..4 {
            let lease = LeaseId::new(number).unwrap();
            let ttl = Duration::from_mins(10);
            reference.grant(ttl, Some(lease)).await.unwrap();
            etcd.grant(ttl, Some(shift.lease(lease))).await.unwrap();
        }
        let steps = prop::collection::vec(a_step(), 1..STEPS).new_tree(&mut runner).unwrap();
        let steps = steps.current();
        println!("script {script}: {steps:?}");
        for step in steps {
            play(step, &reference, &etcd, shift).await;
        }
        for number in 1..4 {
            // Those that are left would otherwise end, one by one, in a later script.
            drop(etcd.revoke(shift.lease(LeaseId::new(number).unwrap())).await);
        }
    }
}
