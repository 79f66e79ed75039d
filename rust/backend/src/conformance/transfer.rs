//! Matrices to the device and back.

use super::promise::Promise;
use super::random::{Random, upload};
use crate::{Backend, Error};

/// A new matrix has its rows, all zeros.
pub(super) fn tensors_start_zeroed<B: Backend>(backend: &B, _: &Promise) {
    for (rows, cols) in [(1, 1), (3, 17), (512, 64), (0, 8)] {
        let x = backend.tensor(rows, cols).expect("a small matrix");
        assert_eq!(backend.download(&x), vec![0.0; rows * cols], "{rows} x {cols} on {}", backend.describe());
    }
    assert!(matches!(backend.tensor(1 << 40, 1 << 40), Err(Error::OutOfMemory { .. })));
    assert!(matches!(backend.tensor(usize::MAX, usize::MAX), Err(Error::OutOfMemory { .. })));
}

/// What is uploaded comes back to the bit, what is not a number included.
pub(super) fn uploads_come_back<B: Backend>(backend: &B, _: &Promise) {
    let mut random = Random::new(1);
    for (rows, cols) in [(1, 1), (1, 33), (7, 16), (65, 100), (0, 5)] {
        let mut data = random.values(rows * cols);
        let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, f32::MIN_POSITIVE / 8.0, f32::MAX];
        for (to, &value) in data.iter_mut().skip(1).zip(&special) {
            *to = value;
        }
        let got = backend.download(&upload(backend, &data, rows, cols));
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&got), bits(&data), "{rows} x {cols} on {}", backend.describe());
    }
}

/// A matrix is not made of fewer or more values than it has.
pub(super) fn wrong_lengths_are_refused<B: Backend>(backend: &B, _: &Promise) {
    for (len, rows, cols) in [(5, 2, 3), (7, 2, 3), (0, 1, 1), (1, 0, 4), (1, usize::MAX, 2)] {
        let error = backend.upload(&vec![0.0; len], rows, cols).map(|_| ()).expect_err("of the wrong length");
        assert!(matches!(error, Error::Shape { got, .. } if got == len), "{error}");
    }
}

/// A device that was given nothing to do reports no failure, however often it is asked.
pub(super) fn nothing_failed<B: Backend>(backend: &B, _: &Promise) {
    for _ in 0..2 {
        backend.synchronize().expect("no operation was issued");
    }
}
