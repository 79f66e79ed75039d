//! What a service has done and how fast, for whoever watches it.

use nanovllm_engine::{EngineStats, FinishReason};

/// The upper bounds of a histogram's buckets in seconds; what is above all of them has a bucket of its own.
pub const BOUNDS: [f64; 19] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0,
];

/// Durations in seconds, counted by how long they are.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Histogram {
    counts: [u64; BOUNDS.len() + 1],
    sum: f64,
}

impl Histogram {
    /// Counts a duration `times` times.
    pub(crate) fn observe(&mut self, seconds: f64, times: u64) {
        self.counts[BOUNDS.partition_point(|&bound| bound < seconds)] += times;
        self.sum += seconds * times as f64;
    }

    /// How many were counted of at most each of [`BOUNDS`], and then in all.
    pub fn cumulative(&self) -> [u64; BOUNDS.len() + 1] {
        let mut sum = 0;
        self.counts.map(|count| {
            sum += count;
            sum
        })
    }

    /// The sum of all.
    pub fn sum(&self) -> f64 {
        self.sum
    }
}

/// How requests have ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Endings {
    /// With what they stop at, or once they were embedded.
    pub stop: u64,
    /// At a limit.
    pub length: u64,
    /// Dropped by their callers or others, or failed, once the engine had them.
    pub abort: u64,
}

/// What a service has done since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Metrics {
    /// The engine's counters, queues and pool after its last step; requests that it does not have yet count, and wait.
    pub engine: EngineStats,
    /// How requests have ended.
    pub endings: Endings,
    /// From when a request was handed in to its first token.
    pub time_to_first_token: Histogram,
    /// From a token of a request to its next one; where a step brings several, its time is divided among them.
    pub inter_token_latency: Histogram,
    /// From when a request was handed in to its end; those that were dropped do not count.
    pub request_latency: Histogram,
}

impl Endings {
    pub(crate) fn count(&mut self, reason: FinishReason) {
        match reason {
            FinishReason::Stop => self.stop += 1,
            FinishReason::Length => self.length += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_counted_up_to_their_bounds() {
        let mut histogram = Histogram::default();
        for (seconds, times) in [(0.0005, 1), (0.001, 1), (0.0011, 2), (1000.0, 1), (1001.0, 3)] {
            histogram.observe(seconds, times);
        }
        let cumulative = histogram.cumulative();
        assert_eq!(cumulative[..3], [2, 4, 4]);
        assert_eq!(cumulative[BOUNDS.len() - 1..], [5, 8]);
        assert!((histogram.sum() - (0.0015 + 0.0022 + 1000.0 + 3003.0)).abs() < 1e-9);
        assert!(BOUNDS.is_sorted());
    }
}
