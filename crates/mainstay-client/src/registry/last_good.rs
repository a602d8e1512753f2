//! What a client goes on with while nobody answers.
//!
//! The last list serves until a better one comes, whatever its age; it only says that it is old.
//! Two kinds of list are not believed for half a minute. One is suddenly empty and does not say
//! that its instances went: registries that were starting, or had lost their state, have emptied
//! whole fleets that way. The other is older than what is known: the server it comes from lags
//! behind and will catch up, or has lost history, and then it is right in the end.

use std::sync::Arc;
use std::time::Duration;

use mainstay_api::registry::ServiceView;
use mainstay_core::Instant;

/// The last good list of one service.
#[derive(Clone, Debug)]
pub(super) struct LastGood {
    grace: Duration,
    view: Option<Arc<ServiceView>>,
    /// A list that is not believed yet, and since when.
    doubted: Option<(Instant, Arc<ServiceView>)>,
}

impl LastGood {
    /// Begins with `view`, if there is one; `grace` is how long a strange list is not believed.
    pub(super) const fn new(grace: Duration, view: Option<Arc<ServiceView>>) -> Self {
        Self { grace, view, doubted: None }
    }

    /// Offers a list that came at `now`; returns whether it is the list now.
    pub(super) fn offer(&mut self, now: Instant, view: Arc<ServiceView>) -> bool {
        if !self.is_strange(&view) {
            (self.view, self.doubted) = (Some(view), None);
            return true;
        }
        let since = self.doubted.as_ref().map_or(now, |(since, _)| *since);
        self.doubted = Some((since, view));
        self.settle(now)
    }

    fn is_strange(&self, view: &ServiceView) -> bool {
        let Some(known) = &self.view else { return false };
        let is_explained =
            matches!(view.empty_because.as_deref(), Some("deregistered" | "expired"));
        let is_emptied = view.instances.is_empty() && !known.instances.is_empty();
        // One of another history begins anew; it says so.
        let is_older = view.revision < known.revision && !view.resync;
        is_older || (is_emptied && !is_explained)
    }

    /// Believes a strange list once its grace is over; returns whether it did.
    pub(super) fn settle(&mut self, now: Instant) -> bool {
        let is_due =
            self.doubted.as_ref().is_some_and(|(since, _)| self.grace <= now.since(*since));
        if is_due && let Some((_, view)) = self.doubted.take() {
            self.view = Some(view);
        }
        is_due
    }

    /// The list.
    pub(super) const fn view(&self) -> Option<&Arc<ServiceView>> {
        self.view.as_ref()
    }

    /// Whether there is a list that is not believed yet.
    pub(super) const fn is_in_doubt(&self) -> bool {
        self.doubted.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    fn list(revision: u64, instances: usize, why: Option<&str>) -> Arc<ServiceView> {
        let instances = vec![crate::registry::cache::tests::instance("a"); instances];
        let view = crate::registry::cache::tests::view(instances);
        Arc::new(ServiceView { revision, empty_because: why.map(str::to_owned), ..view })
    }

    fn at(seconds: u64) -> Instant {
        Instant::ZERO.plus(Duration::from_secs(seconds))
    }

    #[test]
    fn strange_lists_are_believed_after_half_a_minute_and_good_ones_at_once() {
        let mut last = LastGood::new(GRACE, None);
        let revision = |last: &LastGood| last.view().unwrap().revision;
        assert!(last.offer(at(0), list(5, 1, None)));
        assert!(!last.offer(at(2), list(6, 0, None)), "it does not say why");
        assert!(!last.offer(at(20), list(7, 0, Some("never registered"))), "somebody did");
        assert!(!last.settle(at(31)) && last.is_in_doubt());
        assert_eq!(revision(&last), 5);
        assert!(last.settle(at(32)));
        assert_eq!((revision(&last), last.is_in_doubt()), (7, false));
        assert!(last.offer(at(40), list(8, 1, None)));
        assert!(last.offer(at(41), list(9, 0, Some("deregistered"))), "it says why");
        assert!(last.offer(at(42), list(10, 1, None)));
        assert!(!last.offer(at(43), list(3, 1, None)), "older");
        assert!(last.offer(at(44), list(11, 1, None)));
        assert!(!last.is_in_doubt(), "the doubt is over");
        let anew = ServiceView { resync: true, ..(*list(2, 1, None)).clone() };
        assert!(last.offer(at(45), Arc::new(anew)), "of another history");
        assert_eq!(revision(&last), 2);
    }

    proptest! {
        /// A list with instances is never given up for an unexplained empty one, or a newer for an
        /// older one, before its time; and whatever is offered for long enough is believed.
        #[test]
        fn a_list_is_never_lost_without_reason(
            offers in prop::collection::vec((0u64..20, 0usize..2, any::<bool>(), 1u64..50), 1..40),
        ) {
            let mut last = LastGood::new(GRACE, None);
            let (mut now, mut doubted) = (0, None::<u64>);
            for (gap, instances, explained, revision) in offers {
                now += gap;
                let known = last.view().map(|view| (view.revision, view.instances.len()));
                let why = (explained && instances == 0).then_some("expired");
                let strange = known.is_some_and(|(known, had)| {
                    revision < known || (instances == 0 && had > 0 && !explained)
                });
                doubted = strange.then(|| doubted.unwrap_or(now));
                let taken = last.offer(at(now), list(revision, instances, why));
                let want = doubted.is_none_or(|since| 30 <= now - since);
                prop_assert_eq!(taken, want);
                let has = last.view().map(|view| (view.revision, view.instances.len()));
                prop_assert_eq!(has, if want { Some((revision, instances)) } else { known });
                if want {
                    doubted = None;
                }
            }
        }
    }
}
