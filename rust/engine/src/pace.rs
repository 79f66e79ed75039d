//! How much is prefilled beside tokens that are decoded, so that these do not wait long for each other: by what steps have
//! cost so far.

use std::time::Duration;

/// How much of a new measurement counts.
const WEIGHT: f64 = 0.2;

/// Where no limit is given, how many times as long as without prefill a step may take.
const STRETCH: f64 = 4.0;

/// The fewest rows of a step's prefill; with fewer the weights would be read for next to nothing.
const FEWEST: usize = 16;

/// The most rows that are prefilled at once where nothing is decoded, unless the limit allows more: those who come meanwhile have
/// to wait for them.
const ALONE: usize = 512;

/// What steps have cost so far, in seconds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pace {
    /// The most seconds of a step, if there is such a limit.
    limit: Option<f64>,
    /// A step that decodes alone, by the power of two of its rows.
    decode: [Option<f64>; 16],
    /// A row of a prefill.
    prefill: Option<f64>,
}

fn toward(mean: &mut Option<f64>, value: f64) {
    *mean = Some(mean.map_or(value, |mean| mean + WEIGHT * (value - mean)));
}

impl Pace {
    pub(crate) fn new(limit: Option<f64>) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Takes in what a step with so many rows of each kind has cost.
    pub(crate) fn observe(&mut self, decoded: usize, prefilled: usize, took: Duration) {
        let took = took.as_secs_f64();
        if prefilled > 0 {
            let decode = if decoded > 0 { self.decode(decoded).unwrap_or(0.0) } else { 0.0 };
            // A step that took no longer than without them has measured nothing.
            let cost = (took - decode).max(0.1 * took) / prefilled as f64;
            toward(&mut self.prefill, cost);
        } else if decoded > 0 {
            toward(&mut self.decode[bucket(decoded)], took);
        }
    }

    /// How many rows may be prefilled beside these.
    pub(crate) fn prefill_rows(&self, decoded: usize) -> usize {
        let decode = if decoded > 0 { self.decode(decoded) } else { None };
        let (Some(cost), Some(step)) = (self.prefill, self.limit.or(decode.map(|decode| STRETCH * decode))) else {
            return ALONE;
        };
        let rows = (((step - decode.unwrap_or(0.0)) / cost) as usize).max(FEWEST);
        if decoded > 0 { rows } else { rows.max(ALONE) }
    }

    /// About what a step costs that decodes so many rows: as the nearest measured one.
    fn decode(&self, rows: usize) -> Option<f64> {
        let at = bucket(rows);
        let by_distance = (0..self.decode.len()).flat_map(|d| [at.checked_sub(d), Some(at + d)]);
        by_distance.flatten().find_map(|at| *self.decode.get(at)?)
    }
}

fn bucket(rows: usize) -> usize {
    (rows.max(1).ilog2() as usize).min(15)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn prefill_follows_what_steps_cost() {
        let mut pace = Pace::new(None);
        assert_eq!(pace.prefill_rows(4), ALONE, "nothing is known");
        pace.observe(0, 1000, ms(500));
        pace.observe(4, 0, ms(20));
        // Three more steps' worth, at half a millisecond a row.
        assert_eq!(pace.prefill_rows(4), 120);
        assert_eq!(pace.prefill_rows(60), 120, "as the nearest that was measured");
        assert_eq!(pace.prefill_rows(0), ALONE);
        for _ in 0..100 {
            pace.observe(4, 100, ms(120));
        }
        assert!((59..=60).contains(&pace.prefill_rows(4)), "a row costs a millisecond by now");
        pace.observe(1, 0, ms(1));
        assert_eq!(pace.prefill_rows(1), FEWEST);
    }

    #[test]
    fn a_limit_bounds_the_step() {
        let mut pace = Pace::new(Some(0.1));
        pace.observe(0, 1000, ms(1000));
        pace.observe(4, 0, ms(20));
        assert_eq!(pace.prefill_rows(4), 80);
        pace.observe(1000, 0, ms(500));
        assert_eq!(pace.prefill_rows(1000), FEWEST, "a prompt goes on, however slow decoding is");
    }
}
