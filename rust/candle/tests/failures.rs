//! What happens once an operation fails.

#![allow(clippy::unwrap_used)] // tests

use nanovllm_backend::{Backend, DType, Error, SampleRow, Sampled, WeightPart};
use nanovllm_candle::{CandleBackend, CandleOptions};

#[test]
fn the_first_failure_is_reported_once_and_nothing_is_computed_before() {
    let backend = CandleBackend::new(CandleOptions::default()).unwrap();
    let part = WeightPart { dtype: DType::F32, rows: 2, cols: 1, data: &[0; 8] };
    let weight = backend.pack(&part).expect("two rows");
    let ones = backend.upload(&[1.0; 4], 2, 2).expect("a small matrix");
    let norm = backend.upload(&[1.0; 2], 1, 2).expect("a small matrix");
    let mut out = backend.tensor(2, 2).expect("a small matrix");
    let mut column = backend.tensor(2, 1).expect("a small matrix");
    backend.rms_norm(&ones, &norm, 0.0, &mut out);
    assert_eq!(backend.download(&out), [1.0; 4]);

    // There is no row 7, and no more room than for two rows of one column.
    backend.embedding(&weight, &[7], &mut column);
    backend.embedding(&weight, &[0, 1, 0], &mut column);
    let doubled = backend.upload(&[2.0; 2], 1, 2).expect("uploads do not wait for anything");
    backend.rms_norm(&ones, &doubled, 0.0, &mut out);
    assert_eq!(backend.download(&out).len(), 4, "of the right shape, whatever the values");
    let mut tokens = vec![Sampled::from(9); 2];
    backend.sample(&mut out, &[SampleRow::drawn(1.0, 1, 1); 2], &mut tokens);
    assert!(tokens.iter().all(|sampled| sampled.token < 2), "{tokens:?}");

    let error = backend.synchronize().expect_err("an operation failed");
    assert!(matches!(error, Error::Device { device: "candle", .. }), "{error}");
    assert!(error.to_string().contains('7'), "the first failure, not the last: {error}");
    backend.synchronize().expect("it has been reported");
    assert_eq!(backend.download(&out), [1.0; 4], "nothing was computed after the failure");
    backend.rms_norm(&ones, &doubled, 0.0, &mut out);
    assert_eq!(backend.download(&out), [2.0; 4]);
}

#[test]
fn results_that_do_not_fit_are_failures() {
    let backend = CandleBackend::new(CandleOptions::default()).unwrap();
    let ones = backend.upload(&[1.0; 6], 3, 2).expect("a small matrix");
    let norm = backend.upload(&[1.0; 2], 1, 2).expect("a small matrix");
    for (rows, cols) in [(2, 2), (3, 3)] {
        let mut out = backend.tensor(rows, cols).expect("a small matrix");
        backend.rms_norm(&ones, &norm, 0.0, &mut out);
        let error = backend.synchronize().expect_err("too small").to_string();
        assert!(error.contains("3 x 2"), "{error}");
        assert_eq!(backend.download(&out), vec![0.0; rows * cols], "as it was");
    }
}
