//! Products with weights of every type.

use proptest::prelude::*;

use super::check::{assert_close, assert_within, for_cases, nmse_beside};
use super::promise::{PRODUCT, Promise};
use super::random::{Random, StoredMatrix, random_tensor, room, rounded};
use super::reference;
use crate::{Backend, DType};

/// Checks one product.
pub(super) fn product<B: Backend>(
    backend: &B,
    promise: &Promise,
    random: &mut Random,
    stored: &StoredMatrix,
    rows: usize,
) {
    let weight = stored.pack(backend);
    let (x, data) = random_tensor(backend, random, rows, stored.cols);
    let mut out = room(backend, rows, stored.rows);
    backend.linear(&x, &weight, None, &mut out);
    let what = format!("[{rows}, {}] x {} of {} rows", stored.cols, stored.dtype, stored.rows);
    assert_product(backend, &what, &backend.download(&out), &data, stored, promise.product(stored.dtype));
}

/// Checks `got` against `x @ stored^T`, with `x` as it is or rounded to the weight's own dense type.
fn assert_product<B: Backend>(backend: &B, what: &str, got: &[f32], x: &[f32], stored: &StoredMatrix, limit: f64) {
    // A few products may cancel to nearly nothing: their error counts beside what such products come to on average. It may
    // also be many times the error that they have on average.
    let few = got.len() < 16;
    let least = if few { reference::energy(x, &stored.values, stored.cols) } else { f64::MIN_POSITIVE };
    let limit = if few { 20.0 * limit } else { limit };
    let error = |x: &[f32]| nmse_beside(got, &reference::linear(x, &stored.values, stored.cols), least);
    let exact = error(x);
    let nearer = match stored.dtype {
        DType::F16 | DType::Bf16 => exact.min(error(&rounded(stored.dtype, x))),
        _ => exact,
    };
    assert_within(backend, what, nearer, limit);
}

/// Every promised type, for batches from one row to more than a tile.
pub(super) fn linear_of_every_type<B: Backend>(backend: &B, promise: &Promise) {
    let mut random = Random::new(9);
    for &dtype in &promise.dtypes {
        // An odd number of columns for dense types, which may lie in pairs.
        let cols = match dtype.block_size() {
            1 => 97,
            block => 96_usize.next_multiple_of(block).max(2 * block),
        };
        let stored = StoredMatrix::new(&mut random, dtype, 50, cols);
        for rows in [1, 2, 3, 8, 13, 65] {
            product(backend, promise, &mut random, &stored, rows);
        }
    }
}

/// Shapes that are not multiples of anything but the type's block.
pub(super) fn linear_of_odd_shapes<B: Backend>(backend: &B, promise: &Promise) {
    let strategy = (proptest::sample::select(promise.dtypes.clone()), 1usize..20, 1usize..60, 1usize..9, any::<u64>());
    for_cases(32, &strategy, |(dtype, rows, outputs, length, seed): (DType, _, _, _, _)| {
        let mut random = Random::new(seed);
        let cols = match dtype.block_size() {
            1 => 11 * length - 10,
            32 => 32 * length,
            block => block * length.div_ceil(4),
        };
        let stored = StoredMatrix::new(&mut random, dtype, outputs, cols);
        product(backend, promise, &mut random, &stored, rows);
    });
}

/// The outputs of a stacked weight are its parts' in order, whatever their types.
pub(super) fn linear_of_stacked_parts<B: Backend>(backend: &B, promise: &Promise) {
    let mut random = Random::new(10);
    let cols = promise.dtypes.iter().map(|d| d.block_size()).max().unwrap_or(1).max(64);
    let mut types = promise.dtypes.clone();
    types.extend_from_slice(&promise.dtypes);
    random.shuffle(&mut types);
    let outputs = [7, 16, 1, 30];
    let stored: Vec<_> = types
        .iter()
        .zip(outputs.into_iter().cycle())
        .map(|(&dtype, outputs)| StoredMatrix::new(&mut random, dtype, outputs, cols))
        .collect();
    let total: usize = stored.iter().map(|s| s.rows).sum();
    let weight = backend.concat(stored.iter().map(|s| s.pack(backend)).collect()).expect("of equal columns");
    for rows in [1, 5, 24] {
        let (x, data) = random_tensor(backend, &mut random, rows, cols);
        let mut out = room(backend, rows, total);
        backend.linear(&x, &weight, None, &mut out);
        let got = backend.download(&out);
        let mut first = 0;
        for part in &stored {
            let end = first + part.rows;
            let got: Vec<f32> = got.chunks(total).flat_map(|row| row[first..end].to_vec()).collect();
            let what = format!("outputs {first}..{end} of {total}, {}", part.dtype);
            assert_product(backend, &what, &got, &data, part, promise.product(part.dtype));
            first = end;
        }
    }
}

/// The bias is added to every row, once.
pub(super) fn linear_adds_the_bias<B: Backend>(backend: &B, promise: &Promise) {
    let mut random = Random::new(11);
    for &dtype in &promise.dtypes {
        let cols = dtype.block_size().max(32);
        let stored = StoredMatrix::new(&mut random, dtype, 21, cols);
        let weight = stored.pack(backend);
        let (bias, biases) = random_tensor(backend, &mut random, 1, stored.rows);
        for rows in [1, 6] {
            let (x, _) = random_tensor(backend, &mut random, rows, cols);
            let (mut plain, mut biased) = (room(backend, rows, stored.rows), room(backend, rows, stored.rows));
            backend.linear(&x, &weight, None, &mut plain);
            backend.linear(&x, &weight, Some(&bias), &mut biased);
            let expected: Vec<f64> = backend
                .download(&plain)
                .iter()
                .zip(biases.iter().cycle())
                .map(|(&y, &b)| f64::from(y) + f64::from(b))
                .collect();
            let what = format!("a bias on {dtype}");
            assert_close(backend, &what, &backend.download(&biased), &expected, PRODUCT);
        }
    }
}
