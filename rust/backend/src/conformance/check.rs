//! How results are compared, and tests repeated on drawn cases.

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestRunner};

use crate::Backend;

/// Squared error over the squared magnitude of the expected values. Where nothing or zeros are expected, any error counts.
pub(super) fn nmse(got: &[f32], expected: &[f64]) -> f64 {
    nmse_beside(got, expected, f64::MIN_POSITIVE)
}

/// As [`nmse`], with `least` for a squared magnitude that is below it.
pub(super) fn nmse_beside(got: &[f32], expected: &[f64], least: f64) -> f64 {
    assert_eq!(got.len(), expected.len(), "number of values");
    let error: f64 = got.iter().zip(expected).map(|(&g, &e)| (f64::from(g) - e).powi(2)).sum();
    if error == 0.0 { 0.0 } else { error / expected.iter().map(|e| e * e).sum::<f64>().max(least) }
}

/// Panics unless `error` is within `limit`; a NaN is never within.
pub(super) fn assert_within<B: Backend>(backend: &B, what: &str, error: f64, limit: f64) {
    assert!(error <= limit, "{what} on {}: NMSE {error:.2e}, limit {limit:.0e}", backend.describe());
}

/// Panics unless `got` is within `limit` of `expected`.
pub(super) fn assert_close<B: Backend>(backend: &B, what: &str, got: &[f32], expected: &[f64], limit: f64) {
    assert_within(backend, what, nmse(got, expected), limit);
}

/// Runs `test` on `cases` values of `strategy`, and on simpler ones once it fails.
pub(super) fn for_cases<S: Strategy>(cases: u32, strategy: &S, test: impl Fn(S::Value)) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(strategy, |value| {
        test(value);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
