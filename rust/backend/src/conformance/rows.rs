//! Norms, the gated activation and gathering: what works row by row.

use proptest::prelude::*;

use super::check::{assert_close, assert_within, for_cases, nmse_beside};
use super::promise::{ELEMENTWISE, Promise};
use super::random::{Random, random_tensor, room, upload};
use super::reference;
use crate::{Activation, Backend, Scale};

/// Few and many rows, narrow and wide, multiples of a vector and not.
fn shape() -> impl Strategy<Value = (usize, usize, u64)> {
    (prop_oneof![1usize..6, 60usize..70], prop_oneof![1usize..40, 500usize..530], any::<u64>())
}

/// [`Backend::rms_norm`].
pub(super) fn rms_norm_of_rows<B: Backend>(backend: &B, _: &Promise) {
    for_cases(16, &shape(), |(rows, cols, seed)| {
        let mut random = Random::new(seed);
        let (x, data) = random_tensor(backend, &mut random, rows, cols);
        let (weight, weights) = random_tensor(backend, &mut random, 1, cols);
        let mut out = room(backend, rows, cols);
        for eps in [1e-6, 1e-5, 0.5] {
            backend.rms_norm(&x, &weight, eps, &mut out);
            let expected: Vec<f64> = data
                .chunks(cols)
                .flat_map(|row| reference::rms_norm(&reference::widened(row), Some(&weights), eps))
                .collect();
            assert_close(backend, "rms_norm", &backend.download(&out), &expected, ELEMENTWISE);
        }
    });
    // A row of zeros is divided by the root of epsilon alone.
    let mut out = room(backend, 1, 8);
    backend.rms_norm(&upload(backend, &[0.0; 8], 1, 8), &upload(backend, &[1.0; 8], 1, 8), 1e-6, &mut out);
    assert_eq!(backend.download(&out), [0.0; 8], "on {}", backend.describe());
}

/// [`Backend::rms_norm`] of groups of a row, with one weight for all.
pub(super) fn norms_of_groups<B: Backend>(backend: &B, _: &Promise) {
    for_cases(16, &(shape(), 1usize..5), |((rows, width, seed), groups)| {
        let mut random = Random::new(seed);
        let (x, data) = random_tensor(backend, &mut random, rows, groups * width);
        let (weight, weights) = random_tensor(backend, &mut random, 1, width);
        let mut out = room(backend, rows, groups * width);
        backend.rms_norm(&x, &weight, 1e-6, &mut out);
        let normed = |group: &[f32]| reference::rms_norm(&reference::widened(group), Some(&weights), 1e-6);
        let expected: Vec<f64> = data.chunks(width).flat_map(normed).collect();
        assert_close(backend, "norms of groups", &backend.download(&out), &expected, ELEMENTWISE);
    });
}

/// [`Backend::add_rms_norm`]: the residual is the sum, and the output its norm.
pub(super) fn add_rms_norm_of_rows<B: Backend>(backend: &B, _: &Promise) {
    for_cases(16, &shape(), |(rows, cols, seed)| {
        let mut random = Random::new(seed);
        let (x, data) = random_tensor(backend, &mut random, rows, cols);
        let (mut residual, residuals) = random_tensor(backend, &mut random, rows, cols);
        let (weight, weights) = random_tensor(backend, &mut random, 1, cols);
        let mut out = room(backend, rows, cols);
        backend.add_rms_norm(&x, &mut residual, &weight, 1e-6, &mut out);
        let sums: Vec<f64> = data.iter().zip(&residuals).map(|(&a, &b)| f64::from(a) + f64::from(b)).collect();
        assert_close(backend, "the residual", &backend.download(&residual), &sums, ELEMENTWISE);
        let expected: Vec<f64> =
            sums.chunks(cols).flat_map(|row| reference::rms_norm(row, Some(&weights), 1e-6)).collect();
        assert_close(backend, "add_rms_norm", &backend.download(&out), &expected, ELEMENTWISE);
        assert_eq!(backend.download(&x), data, "the input stays");
    });
}

/// Panics unless `got` are the activations expected. Far below 0 they are so small that nothing of them is left in a sum, and
/// lose a digit with each of their exponent: what is below 1e-10 counts as 1e-10.
fn assert_active<B: Backend>(backend: &B, what: &str, got: &[f32], expected: &[f64]) {
    assert_within(backend, what, nmse_beside(got, expected, 1e-20), ELEMENTWISE);
}

const ACTIVATIONS: [Activation; 3] = [Activation::Silu, Activation::GeluTanh, Activation::SwigluOai];

/// [`Backend::activate_and_mul`], from values where an activation is 0 to where it is the gate.
pub(super) fn activations_of_rows<B: Backend>(backend: &B, _: &Promise) {
    for activation in ACTIVATIONS {
        let expected = |data: &[f32], n: usize| -> Vec<f64> {
            let gated = |row: &[f32], i: usize| reference::activate_and_mul(activation, row[i], row[n + i]);
            data.chunks(2 * n).flat_map(|row| (0..n).map(|i| gated(row, i)).collect::<Vec<f64>>()).collect()
        };
        for_cases(16, &(shape(), prop_oneof![Just(1f32), Just(0.01), Just(30.0)]), |((rows, n, seed), scale)| {
            let data: Vec<f32> = Random::new(seed).values(rows * 2 * n).iter().map(|x| x * scale).collect();
            let mut out = room(backend, rows, n);
            backend.activate_and_mul(activation, &upload(backend, &data, rows, 2 * n), &mut out);
            let what = format!("{activation:?}");
            assert_active(backend, &what, &backend.download(&out), &expected(&data, n));
        });
        // Alone, so that what is near 0 is not measured beside larger values.
        for gate in [-6.0f32, -4.5, -3.0, -1e-3, 1e-3] {
            let mut out = room(backend, 1, 1);
            backend.activate_and_mul(activation, &upload(backend, &[gate, 1.0], 1, 2), &mut out);
            let what = format!("{activation:?} of {gate}");
            assert_active(backend, &what, &backend.download(&out), &expected(&[gate, 1.0], 1));
        }
        let extremes = [-200.0, -90.0, 0.0, 90.0, 200.0];
        let data: Vec<f32> = extremes.into_iter().chain([1.0; 5]).collect();
        let mut out = room(backend, 1, 5);
        backend.activate_and_mul(activation, &upload(backend, &data, 1, 10), &mut out);
        let what = format!("{activation:?} of extremes");
        assert_active(backend, &what, &backend.download(&out), &expected(&data, 5));
    }
}

/// [`Backend::activate_and_mul_columns`]: the values stand anywhere in wider rows.
pub(super) fn activations_of_columns<B: Backend>(backend: &B, _: &Promise) {
    for activation in ACTIVATIONS {
        for_cases(16, &(shape(), 0usize..20, 0usize..20), |((rows, n, seed), column, after)| {
            let mut random = Random::new(seed);
            let (gate, gates) = random_tensor(backend, &mut random, rows, n);
            let cols = column + n + after;
            let (values, all) = random_tensor(backend, &mut random, rows, cols);
            let mut out = room(backend, rows, n);
            backend.activate_and_mul_columns(activation, &gate, &values, column, &mut out);
            let gated = |(i, &gate): (usize, &f32)| {
                reference::activate_and_mul(activation, gate, all[i / n * cols + column + i % n])
            };
            let expected: Vec<f64> = gates.iter().enumerate().map(gated).collect();
            assert_active(backend, "gated columns", &backend.download(&out), &expected);
        });
    }
}

/// [`Backend::add`].
pub(super) fn rows_are_added<B: Backend>(backend: &B, _: &Promise) {
    for_cases(16, &shape(), |(rows, cols, seed)| {
        let mut random = Random::new(seed);
        let (x, data) = random_tensor(backend, &mut random, rows, cols);
        let (mut sum, before) = random_tensor(backend, &mut random, rows, cols);
        backend.add(&x, &mut sum);
        let expected: Vec<f32> = data.iter().zip(&before).map(|(a, b)| a + b).collect();
        assert_eq!(backend.download(&sum), expected, "on {}", backend.describe());
        assert_eq!(backend.download(&x), data, "the input stays");
    });
}

/// [`Backend::write`]: as many rows as there are values for, none included, whatever was there before.
pub(super) fn rows_are_written<B: Backend>(backend: &B, _: &Promise) {
    for_cases(16, &shape(), |(rows, cols, seed)| {
        let mut random = Random::new(seed);
        let (mut out, _) = random_tensor(backend, &mut random, rows, cols);
        for count in [rows, 0, rows.div_ceil(2)] {
            let data = random.values(count * cols);
            backend.write(&data, &mut out);
            assert_eq!(backend.download(&out), data, "on {}", backend.describe());
        }
    });
}

/// [`Backend::scale`]: all rows by one factor, and each by its own.
pub(super) fn rows_are_scaled<B: Backend>(backend: &B, _: &Promise) {
    for_cases(16, &(shape(), -3f32..3.0), |((rows, cols, seed), factor)| {
        let mut random = Random::new(seed);
        let (mut x, data) = random_tensor(backend, &mut random, rows, cols);
        let factors = random.values(rows);
        backend.scale(&mut x, Scale::Rows(&factors));
        backend.scale(&mut x, Scale::All(factor));
        let scaled = |(i, &value): (usize, &f32)| f64::from(value) * f64::from(factors[i / cols]) * f64::from(factor);
        let expected: Vec<f64> = data.iter().enumerate().map(scaled).collect();
        assert_close(backend, "scaled rows", &backend.download(&x), &expected, ELEMENTWISE);
    });
}

/// [`Backend::soft_cap`], of values far below and far above the cap.
pub(super) fn rows_are_capped<B: Backend>(backend: &B, _: &Promise) {
    for_cases(16, &(shape(), 0.01f32..50.0), |((rows, cols, seed), cap)| {
        let (mut x, data) = random_tensor(backend, &mut Random::new(seed), rows, cols);
        backend.soft_cap(&mut x, cap);
        let cap = f64::from(cap);
        let expected: Vec<f64> = data.iter().map(|&value| cap * (f64::from(value) / cap).tanh()).collect();
        assert_close(backend, "capped rows", &backend.download(&x), &expected, ELEMENTWISE);
    });
}

/// [`Backend::gather_rows`]: in any order, repeated, exactly.
pub(super) fn rows_are_gathered<B: Backend>(backend: &B, _: &Promise) {
    for_cases(16, &(shape(), 1usize..70), |((rows, cols, seed), count)| {
        let mut random = Random::new(seed);
        let (x, data) = random_tensor(backend, &mut random, rows, cols);
        let chosen: Vec<u32> = (0..count).map(|_| random.below(rows) as u32).collect();
        let mut out = room(backend, 70, cols);
        backend.gather_rows(&x, &chosen, &mut out);
        let expected: Vec<f32> = chosen.iter().flat_map(|&row| data[row as usize * cols..][..cols].to_vec()).collect();
        assert_eq!(backend.download(&out), expected, "on {}", backend.describe());
    });
}

/// An output takes the rows of its input, fewer or more than before up to its capacity, and none at all.
pub(super) fn buffers_are_reused<B: Backend>(backend: &B, _: &Promise) {
    let (capacity, cols) = (9, 24);
    let mut random = Random::new(8);
    let (source, data) = random_tensor(backend, &mut random, capacity, cols);
    let (weight, weights) = random_tensor(backend, &mut random, 1, cols);
    let mut x = backend.tensor(capacity, cols).expect("a small matrix");
    let mut normed = backend.tensor(capacity, cols).expect("a small matrix");
    let mut halved = backend.tensor(capacity, cols / 2).expect("a small matrix");
    for rows in [9, 1, 0, 5, 9, 0, 2] {
        let chosen: Vec<u32> = (0..rows as u32).collect();
        backend.gather_rows(&source, &chosen, &mut x);
        backend.rms_norm(&x, &weight, 1e-6, &mut normed);
        backend.add_rms_norm(&source_rows(backend, &source, &chosen, cols), &mut x, &weight, 1e-6, &mut normed);
        backend.activate_and_mul(Activation::Silu, &x, &mut halved);
        backend.scale(&mut halved, Scale::All(0.5));
        backend.soft_cap(&mut halved, 2.0);
        let sums: Vec<f64> = data[..rows * cols].iter().map(|&v| 2.0 * f64::from(v)).collect();
        let expected: Vec<f64> =
            sums.chunks(cols).flat_map(|row| reference::rms_norm(row, Some(&weights), 1e-6)).collect();
        assert_close(backend, "a reused buffer", &backend.download(&normed), &expected, ELEMENTWISE);
        assert_eq!(backend.download(&halved).len(), rows * cols / 2, "rows on {}", backend.describe());
    }
}

fn source_rows<B: Backend>(backend: &B, source: &B::Tensor, chosen: &[u32], cols: usize) -> B::Tensor {
    let mut rows = backend.tensor(chosen.len(), cols).expect("a small matrix");
    backend.gather_rows(source, chosen, &mut rows);
    rows
}
