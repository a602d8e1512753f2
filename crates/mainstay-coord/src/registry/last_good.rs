//! What a client goes on with while nobody answers.
//!
//! The last list serves until a better one comes, whatever its age; it only says that it is old. A
//! list that is suddenly empty and does not say why is not believed for half a minute: registries
//! that were starting, or had lost their state, have emptied whole fleets that way.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::Instant;

use super::view::View;

/// How long an unexplained empty list is not believed, unless configured otherwise.
pub const EMPTY_GRACE: Duration = Duration::from_secs(30);

/// The last good list of one service.
#[derive(Clone, Debug)]
pub struct LastGood {
    grace: Duration,
    view: Option<Arc<View>>,
    /// An empty list that is not believed yet, and since when.
    doubted: Option<(Instant, Arc<View>)>,
}

/// What came of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It is the list now.
    Taken,
    /// It is older than the list there is.
    Old,
    /// It is empty without a reason; the list there is stays for now.
    Doubted,
}

impl LastGood {
    /// Nothing yet; `grace` is how long an unexplained empty list is not believed.
    pub const fn new(grace: Duration) -> Self {
        Self { grace, view: None, doubted: None }
    }

    /// Offers a list that came at `now`.
    pub fn offer(&mut self, now: Instant, view: Arc<View>) -> Offer {
        let Some(known) = &self.view else {
            self.view = Some(view);
            return Offer::Taken;
        };
        // A list of another history may begin anew; it says so.
        if view.revision < known.revision && !view.resync {
            return Offer::Old;
        }
        let is_strange = view.instances.is_empty()
            && view.empty_because.is_none()
            && !known.instances.is_empty();
        if !is_strange {
            (self.view, self.doubted) = (Some(view), None);
            return Offer::Taken;
        }
        let since = self.doubted.as_ref().map_or(now, |(since, _)| *since);
        self.doubted = Some((since, view));
        if self.settle(now) { Offer::Taken } else { Offer::Doubted }
    }

    /// Believes an empty list once its grace is over; returns whether it did.
    pub fn settle(&mut self, now: Instant) -> bool {
        match self.doubted.take() {
            Some((since, view)) if self.grace <= now.since(since) => {
                self.view = Some(view);
                true
            }
            doubted => {
                self.doubted = doubted;
                false
            }
        }
    }

    /// When to [`settle`](LastGood::settle).
    pub fn next(&self) -> Option<Instant> {
        self.doubted.as_ref().map(|(since, _)| since.plus(self.grace))
    }

    /// The list.
    pub const fn view(&self) -> Option<&Arc<View>> {
        self.view.as_ref()
    }
}
