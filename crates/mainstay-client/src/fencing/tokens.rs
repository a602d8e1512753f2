//! The highest token of each lock, as far as there is room: a machine.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::sync::Arc;

use super::{FencingCounts, FencingToken};

/// The highest tokens seen.
#[derive(Debug)]
pub(super) struct Tokens {
    names_max: NonZeroUsize,
    highest: HashMap<Arc<str>, u64>,
    /// The same, lowest first.
    order: BTreeSet<(u64, Arc<str>)>,
    /// The highest token that was forgotten.
    floor: u64,
    counts: FencingCounts,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// None of its tokens is known to be stale.
    Passes,
    /// This one is.
    Stale { token: FencingToken, seen: u64 },
    /// This one may be.
    BelowForgotten { token: FencingToken, seen: u64 },
}

impl Tokens {
    pub(super) fn new(names_max: NonZeroUsize) -> Self {
        Self {
            names_max,
            highest: HashMap::new(),
            order: BTreeSet::new(),
            floor: 0,
            counts: FencingCounts::default(),
        }
    }

    pub(super) const fn counted(&self) -> FencingCounts {
        self.counts
    }

    /// Judges the tokens of one request, and remembers them if it passes.
    pub(super) fn judge(&mut self, tokens: &[FencingToken]) -> Judged {
        for token in tokens {
            match self.highest.get(token.name()) {
                Some(&seen) if token.token() < seen => {
                    self.counts.stale += 1;
                    return Judged::Stale { token: token.clone(), seen };
                }
                None if token.token() < self.floor => {
                    self.counts.below_forgotten += 1;
                    return Judged::BelowForgotten { token: token.clone(), seen: self.floor };
                }
                Some(_) | None => {}
            }
        }
        for token in tokens {
            self.remember(token);
        }
        Judged::Passes
    }

    fn remember(&mut self, token: &FencingToken) {
        let number = token.token();
        if let Some((name, seen)) = self.highest.get_key_value(token.name()) {
            // Lower only beside a higher one of the same lock in the same request.
            if *seen < number {
                let name = Arc::clone(name);
                self.order.remove(&(*seen, Arc::clone(&name)));
                self.order.insert((number, Arc::clone(&name)));
                self.highest.insert(name, number);
            }
            return;
        }
        let name: Arc<str> = token.name().into();
        self.highest.insert(Arc::clone(&name), number);
        self.order.insert((number, name));
        if self.names_max.get() < self.highest.len()
            && let Some((lowest, name)) = self.order.pop_first()
        {
            self.highest.remove(&name);
            self.floor = self.floor.max(lowest);
            self.counts.forgotten += 1;
        }
    }
}
