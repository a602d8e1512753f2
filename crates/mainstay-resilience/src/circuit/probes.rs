//! The permits of a half-open circuit. Each is a lease, so that none can be lost for good.

use std::time::Duration;

use mainstay_core::Instant;

use crate::window::{Sample, Tally};

/// A fixed number of places; each is free, out, or has its result.
#[derive(Clone, Debug)]
pub(super) struct Probes {
    places: Vec<Place>,
    results: Tally,
    /// Sum of all leases ever given; makes each permit's number its own.
    given: u32,
}

/// The lease of one probe, as its permit carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    place: u32,
    number: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Free,
    Out { number: u32, until: Instant },
    Reported,
}

impl Place {
    fn is_free(self, now: Instant) -> bool {
        match self {
            Self::Free => true,
            Self::Out { until, .. } => until <= now,
            Self::Reported => false,
        }
    }
}

impl Lease {
    /// What a permit carries that is no probe.
    pub(super) const NONE: Self = Self { place: u32::MAX, number: 0 };
}

impl Probes {
    pub(super) fn new(places: u32) -> Self {
        Self { places: vec![Place::Free; places as usize], results: Tally::default(), given: 0 }
    }

    /// Makes room for `places`, so that [`Probes::begin`] need not. Changes no place in use.
    pub(super) fn reserve(&mut self, places: u32) {
        self.places.reserve((places as usize).saturating_sub(self.places.len()));
    }

    /// Frees all places, of which there are `places` from now on.
    pub(super) fn begin(&mut self, places: u32) {
        self.places.clear();
        self.places.resize(places as usize, Place::Free);
        self.results = Tally::default();
    }

    /// Takes a place for `lease`, unless all are out or reported.
    pub(super) fn take(&mut self, now: Instant, lease: Duration) -> Option<Lease> {
        let (i, place) = self.places.iter_mut().enumerate().find(|(_, p)| p.is_free(now))?;
        self.given = self.given.wrapping_add(1);
        *place = Place::Out { number: self.given, until: now.plus(lease) };
        Some(Lease { place: u32::try_from(i).unwrap_or(u32::MAX), number: self.given })
    }

    /// Counts the result of a probe whose lease has not ended; whether it did.
    pub(super) fn report(&mut self, now: Instant, lease: Lease, sample: Sample) -> bool {
        let Some(place) = self.held(now, lease) else { return false };
        *place = Place::Reported;
        self.results.add(sample);
        true
    }

    /// Gives a place back.
    pub(super) fn cancel(&mut self, now: Instant, lease: Lease) {
        if let Some(place) = self.held(now, lease) {
            *place = Place::Free;
        }
    }

    pub(super) fn results(&self) -> &Tally {
        &self.results
    }

    pub(super) fn all_reported(&self) -> bool {
        self.results.calls >= self.places.len() as u64
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn free(&self, now: Instant) -> usize {
        self.places.iter().filter(|place| place.is_free(now)).count()
    }

    pub(super) fn has_free(&self, now: Instant) -> bool {
        self.places.iter().any(|place| place.is_free(now))
    }

    /// When the first lease that is out ends.
    pub(super) fn next_free(&self) -> Option<Instant> {
        let ends = self.places.iter().filter_map(|place| match place {
            Place::Out { until, .. } => Some(*until),
            Place::Free | Place::Reported => None,
        });
        ends.min()
    }

    fn held(&mut self, now: Instant, lease: Lease) -> Option<&mut Place> {
        let place = self.places.get_mut(lease.place as usize)?;
        match *place {
            Place::Out { number, until } if number == lease.number && now < until => Some(place),
            _ => None,
        }
    }
}
