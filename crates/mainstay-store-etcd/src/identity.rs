//! Whether this is still the cluster that was known, and no older than it was.
//!
//! Another cluster id, or a linearizable answer below a revision that had been seen when its
//! request was sent, means that history was replaced: restored from a backup, or begun anew. Then
//! nothing is read or written any more, since revisions are fencing tokens and would be given out
//! twice, until an operator accepts the new history.

use mainstay_store::{Error, Revision, StoreId};

use crate::stub::ResponseHeader;

/// What is known of the cluster.
#[derive(Debug, Default)]
pub(crate) struct Identity {
    cluster: Option<StoreId>,
    /// The highest revision that is known to be committed.
    seen: Revision,
    /// The highest seen and the one found, once history has been replaced.
    regressed: Option<(Revision, Revision)>,
    /// Counts acceptances, so that what was asked of the history before is told apart.
    epoch: u64,
}

/// What was known when a request was sent.
#[derive(Clone, Copy, Debug)]
#[must_use = "an answer is judged by what was known when it was asked for"]
pub(crate) struct Mark {
    seen: Revision,
    epoch: u64,
}

impl Mark {
    pub(crate) const fn seen(self) -> Revision {
        self.seen
    }
}

/// How an answer came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// Through the leader: at least as new as all that had been answered before.
    Linearizable,
    /// By one member, as far as it knows.
    Local,
}

impl Identity {
    /// The cluster `known` from before this process, and the highest revision seen of it.
    pub(crate) fn known(known: Option<(StoreId, Revision)>) -> Self {
        let (cluster, seen) = known.unzip();
        Self { cluster, seen: seen.unwrap_or_default(), ..Self::default() }
    }

    /// Before a request is sent.
    pub(crate) fn mark(&self) -> Result<Mark, Error> {
        match self.regressed {
            Some((seen, found)) => Err(Error::Regressed { seen, found }),
            None => Ok(Mark { seen: self.seen, epoch: self.epoch }),
        }
    }

    /// Judges the header of an answer. `Ok(true)` when it tells that history was replaced just
    /// now; every later call fails.
    pub(crate) fn answered(
        &mut self,
        mark: Mark,
        header: &ResponseHeader,
        freshness: Freshness,
    ) -> Result<(), Error> {
        let asked_before = mark.epoch != self.epoch;
        if asked_before {
            return Err(Error::Unavailable { why: "asked of the history before".to_owned() });
        }
        let (cluster, found) = (StoreId::new(header.cluster_id), revision(header.revision));
        let is_other = *self.cluster.get_or_insert(cluster) != cluster;
        let is_older = freshness == Freshness::Linearizable && found < mark.seen;
        if is_other || is_older {
            self.regressed.get_or_insert((self.seen, found));
        } else if freshness == Freshness::Linearizable {
            self.saw(found);
        }
        self.mark().map(|_mark| ())
    }

    /// An event told that `revision` is committed.
    pub(crate) fn saw(&mut self, revision: Revision) {
        self.seen = self.seen.max(revision);
    }

    /// Takes whatever cluster answers next for the one to go on with.
    pub(crate) fn accept(&mut self) {
        let epoch = self.epoch + 1;
        *self = Self { epoch, ..Self::default() };
    }

    pub(crate) const fn cluster(&self) -> Option<StoreId> {
        self.cluster
    }

    pub(crate) const fn seen(&self) -> Revision {
        self.seen
    }

    /// The highest revision seen, and the one found instead.
    pub(crate) const fn regressed(&self) -> Option<(Revision, Revision)> {
        self.regressed
    }
}

/// etcd's revisions are signed, and never negative.
pub(crate) fn revision(number: i64) -> Revision {
    Revision::new(u64::try_from(number).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays answers: cluster, revision, how fresh, the revision seen when it was asked for, and
    /// whether it is taken.
    fn check(answers: &[(u64, i64, Freshness, u64, bool)]) {
        let mut identity = Identity::default();
        for (step, &(cluster_id, number, freshness, asked_at, taken)) in answers.iter().enumerate()
        {
            let header = ResponseHeader { cluster_id, revision: number, ..Default::default() };
            let mark = Mark { seen: Revision::new(asked_at), epoch: identity.epoch };
            let judged = identity.answered(mark, &header, freshness);
            assert_eq!(judged.is_ok(), taken, "step {step}: {judged:?}");
        }
    }

    #[test]
    fn only_another_cluster_or_an_older_linearizable_answer_is_refused() {
        use Freshness::{Linearizable, Local};
        check(&[(1, 5, Linearizable, 0, true), (1, 4, Local, 5, true)]);
        check(&[(1, 5, Linearizable, 0, true), (1, 4, Linearizable, 5, false)]);
        // Asked before 9 was seen, so it may be older than 9.
        check(&[(1, 9, Linearizable, 0, true), (1, 6, Linearizable, 5, true)]);
        check(&[(1, 5, Linearizable, 0, true), (2, 9, Local, 5, false), (1, 9, Local, 5, false)]);
    }

    #[test]
    fn what_was_accepted_is_the_new_measure() {
        let mut identity = Identity::known(Some((StoreId::new(1), Revision::new(100))));
        let other = ResponseHeader { cluster_id: 2, revision: 7, ..Default::default() };
        let mark = identity.mark().unwrap();
        let refused = Error::Regressed { seen: Revision::new(100), found: Revision::new(7) };
        assert_eq!(identity.answered(mark, &other, Freshness::Local), Err(refused.clone()));
        assert_eq!(identity.mark().err(), Some(refused));
        identity.accept();
        assert!(identity.answered(mark, &other, Freshness::Linearizable).is_err(), "asked before");
        let mark = identity.mark().unwrap();
        assert_eq!(identity.answered(mark, &other, Freshness::Linearizable), Ok(()));
        assert_eq!(
            (identity.cluster(), identity.seen()),
            (Some(StoreId::new(2)), Revision::new(7))
        );
    }
}
