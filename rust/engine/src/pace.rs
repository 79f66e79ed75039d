//! How much is prefilled beside tokens that are decoded, so that these do not wait long for each other: by what steps have
//! cost so far.

use std::time::Duration;

/// How much of a new measurement counts.
const WEIGHT: f64 = 0.3;

/// Where no limit is given, how many times as long as without prefill a step may take.
const STRETCH: f64 = 7.0;

/// The fewest rows of a step's prefill; with fewer the weights would be read for next to nothing.
const FEWEST: usize = 16;

/// The most rows that are prefilled at once where nothing is decoded, unless the limit allows more: those who come meanwhile have
/// to wait for them.
const ALONE: usize = 512;

/// After so many steps that prefill, one decodes alone, so that what it costs is known: contexts grow.
const MEASURED_EVERY: usize = 32;

/// What steps have cost so far, in seconds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pace {
    /// The most seconds of a step, if there is such a limit.
    limit: Option<f64>,
    /// A step that decodes alone, by the power of two of its rows.
    decode: [Option<Cost>; 16],
    /// A row of a prefill.
    prefill: Option<f64>,
}

#[derive(Debug, Clone, Copy)]
struct Cost {
    seconds: f64,
    /// Steps with as many rows that have prefilled, too, since it was measured.
    age: usize,
}

/// Moves a mean toward a new value.
fn moved(mean: Option<f64>, value: f64) -> f64 {
    mean.map_or(value, |mean| mean + WEIGHT * (value - mean))
}

impl Pace {
    pub(crate) fn new(limit: Option<f64>) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Takes in what a step with so many rows of each kind has cost.
    pub(crate) fn observe(&mut self, decoded: usize, prefilled: usize, took: Duration) {
        let took = took.as_secs_f64();
        if prefilled == 0 {
            if decoded > 0 {
                let cost = &mut self.decode[bucket(decoded)];
                *cost = Some(Cost { seconds: moved(cost.map(|cost| cost.seconds), took), age: 0 });
            }
            return;
        }
        let mut others = 0.0;
        if decoded > 0 {
            others = self.decode(decoded).unwrap_or(0.0);
            if let Some(cost) = &mut self.decode[bucket(decoded)] {
                cost.age += 1;
            }
        }
        // A step that took no longer than without them has measured nothing.
        let cost = (took - others).max(0.1 * took) / prefilled as f64;
        self.prefill = Some(moved(self.prefill, cost));
    }

    /// How many rows may be prefilled beside these; none where it has to be known first what these cost by themselves.
    pub(crate) fn prefill_rows(&self, decoded: usize) -> usize {
        let Some(cost) = self.prefill else { return ALONE };
        if decoded == 0 {
            return self.limit.map_or(ALONE, |limit| ((limit / cost) as usize).max(ALONE));
        }
        let Some(decode) = self.decode[bucket(decoded)].filter(|cost| cost.age < MEASURED_EVERY) else { return 0 };
        let step = self.limit.unwrap_or(STRETCH * decode.seconds);
        (((step - decode.seconds) / cost) as usize).max(FEWEST)
    }

    /// About what a step costs that decodes so many rows: as the nearest measured one.
    fn decode(&self, rows: usize) -> Option<f64> {
        let at = bucket(rows);
        let by_distance = (0..self.decode.len()).flat_map(|d| [at.checked_sub(d), Some(at + d)]);
        by_distance.flatten().find_map(|at| self.decode.get(at)?.map(|cost| cost.seconds))
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
        // What the longer step leaves, at half a millisecond a row.
        let about = |rows: usize, of: f64| (rows as f64 - of).abs() <= 1.0;
        let left = 20.0 * (STRETCH - 1.0);
        assert!(about(pace.prefill_rows(4), left / 0.5));
        assert!(about(pace.prefill_rows(7), left / 0.5), "about as many rows");
        assert_eq!(pace.prefill_rows(60), 0, "to be measured first");
        assert_eq!(pace.prefill_rows(0), ALONE);
        for _ in 1..MEASURED_EVERY {
            pace.observe(4, 100, ms(120));
        }
        assert!(about(pace.prefill_rows(4), left), "a row costs a millisecond by now");
        pace.observe(4, 100, ms(120));
        assert_eq!(pace.prefill_rows(4), 0, "to be measured again");
        pace.observe(4, 0, ms(20));
        assert!(about(pace.prefill_rows(4), left));
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
