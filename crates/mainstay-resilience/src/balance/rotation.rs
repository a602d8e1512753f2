//! Smooth weighted round robin, as in nginx (`ngx_http_upstream_round_robin.c`).
//!
//! Weights 5, 1, 1 give a a b a c a a: the heavy one is spread over the turn instead of getting
//! five calls in a row. Over one turn the shares are exact. The price is a memory that all callers
//! share, and a look at every instance for each call.

use super::pick::Rule;
use super::snapshot::Level;
use super::{Ask, Picker, Unpicked};

/// Whose turn it is. Lock it for the length of a pick.
#[derive(Clone, Debug, Default)]
pub struct RoundRobin {
    /// What each instance has saved up, in 1024ths of weight; the sum is zero.
    current: Vec<i64>,
}

impl RoundRobin {
    /// The instance whose turn it is. Allocates only when the picker has more instances than any
    /// before.
    ///
    /// # Errors
    ///
    /// [`Unpicked`] when nobody can be asked.
    pub fn pick(
        &mut self,
        picker: &Picker,
        ask: &Ask<'_>,
        admits: impl Fn(usize) -> bool,
    ) -> Result<usize, Unpicked> {
        if self.current.len() < picker.instances() {
            self.current.resize(picker.instances(), 0);
        }
        picker.pick_with(ask, admits, InTurn { picker, ask, current: &mut self.current })
    }

    /// The same rotation for another set of `instances`: `previous` tells the old index of a new
    /// one, so that nobody gets a second turn because somebody else came or went.
    #[must_use]
    pub fn moved(&self, instances: usize, previous: impl Fn(usize) -> Option<usize>) -> Self {
        let saved = |index| previous(index).and_then(|old| self.current.get(old).copied());
        Self { current: (0..instances).map(|index| saved(index).unwrap_or(0)).collect() }
    }
}

struct InTurn<'a> {
    picker: &'a Picker,
    ask: &'a Ask<'a>,
    current: &'a mut [i64],
}

impl Rule for InTurn<'_> {
    fn pick(&mut self, level: &Level, can: &impl Fn(usize) -> bool) -> Option<usize> {
        let mut total = 0_i64;
        let mut best: Option<usize> = None;
        for member in level.members.iter().filter(|member| can(member.index)) {
            // Below 2^42, so that neither sum can come near the limit.
            let weight = self.picker.parts(member, self.ask.now).cast_signed();
            total += weight;
            let current = &mut self.current[member.index];
            *current = current.saturating_add(weight);
            let current = *current;
            if best.is_none_or(|best| current > self.current[best]) {
                best = Some(member.index);
            }
        }
        let best = best?;
        self.current[best] = self.current[best].saturating_sub(total);
        Some(best)
    }
}
