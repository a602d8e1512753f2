//! How the load is spread over levels of priority and zone.
//!
//! A level keeps all of the load until so many of its instances are gone that
//! `overprovision_percent` no longer makes up for it; then the next level takes the rest. The
//! arithmetic is Envoy's ("Priority levels" in its load-balancing documentation), in whole percent.

/// Instances of one level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Those that can be used.
    pub usable: u32,
    /// All.
    pub total: u32,
}

/// What each level carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    /// Health of each level, in percent, 0 to 100.
    pub health: Vec<u32>,
    /// Sum of the healths, at most 100. Below 100 the instances left cannot carry the load.
    pub healthy: u32,
    /// Load of each level, in percent; the sum is 100 unless there is no instance at all.
    pub load: Vec<u32>,
}

impl Spread {
    /// Spreads the load over `levels`, the most preferred first.
    ///
    /// With no usable instance anywhere the load follows the number of instances.
    pub fn over(levels: &[Count], overprovision_percent: u32) -> Self {
        let health: Vec<u32> =
            levels.iter().map(|level| health(*level, overprovision_percent)).collect();
        let healthy = health.iter().sum::<u32>().min(100);
        let load = if healthy > 0 {
            share(&health, healthy)
        } else {
            let totals: Vec<u32> = levels.iter().map(|level| level.total).collect();
            share(&totals, totals.iter().fold(0, |sum: u32, n| sum.saturating_add(*n)))
        };
        Self { health, healthy, load }
    }
}

fn health(level: Count, overprovision_percent: u32) -> u32 {
    if level.total == 0 {
        return 0;
    }
    let health =
        u64::from(overprovision_percent) * u64::from(level.usable) / u64::from(level.total);
    u32::try_from(health).unwrap_or(u32::MAX).min(100)
}

/// 100 given out in parts of `weights` over `sum`, from the first on, what rounding left to the
/// first that has a weight.
fn share(weights: &[u32], sum: u32) -> Vec<u32> {
    let mut left = 100;
    let mut load: Vec<u32> = weights
        .iter()
        .map(|&weight| {
            let part = 100 * u64::from(weight) / u64::from(sum.max(1));
            let part = u32::try_from(part).unwrap_or(u32::MAX).min(left);
            left -= part;
            part
        })
        .collect();
    if let Some(first) = weights.iter().position(|&weight| weight > 0) {
        load[first] += left;
    }
    load
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(levels: &[(u32, u32)], healthy: u32, load: &[u32]) {
        let levels: Vec<Count> =
            levels.iter().map(|&(usable, total)| Count { usable, total }).collect();
        let got = Spread::over(&levels, 140);
        assert_eq!((got.healthy, got.load.as_slice()), (healthy, load), "{levels:?}");
    }

    #[test]
    fn the_next_level_takes_what_the_first_cannot() {
        check(&[(10, 10), (10, 10)], 100, &[100, 0]);
        check(&[(8, 10), (10, 10)], 100, &[100, 0]);
        check(&[(6, 10), (10, 10)], 100, &[84, 16]);
        check(&[(4, 10), (10, 10)], 100, &[56, 44]);
        check(&[(0, 10), (10, 10)], 100, &[0, 100]);
        check(&[(0, 10), (4, 10), (10, 10)], 100, &[0, 56, 44]);
    }

    #[test]
    fn what_is_left_is_scaled_to_a_hundred() {
        check(&[(1, 10), (2, 10)], 42, &[34, 66]);
        check(&[(1, 10), (1, 10), (1, 10)], 42, &[34, 33, 33]);
        check(&[(0, 10), (1, 10), (1, 10), (1, 10)], 42, &[0, 34, 33, 33]);
        check(&[(1, 100)], 1, &[100]);
    }

    #[test]
    fn with_nothing_usable_the_load_follows_the_numbers() {
        check(&[(0, 3), (0, 1)], 0, &[75, 25]);
        check(&[(0, 1), (0, 1), (0, 1)], 0, &[34, 33, 33]);
        check(&[(0, 0)], 0, &[0]);
        check(&[], 0, &[]);
    }
}
