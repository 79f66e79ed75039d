//! Softmax of a row of scores, and of partial results into whole ones.

use std::ops::Range;

use super::{Partial, SoftCap};
use crate::kernels::math::{exp2, tanh};
use crate::kernels::simd::Simd;

/// Caps the scores that a row sees.
///
/// # Safety
/// See [`Simd`]; `scores` holds 256 values, and `visible` ends at 256 at most.
#[inline(always)]
pub(super) unsafe fn soft_cap<S: Simd>(scores: *mut f32, visible: Range<usize>, cap: SoftCap) {
    // SAFETY: a row of scores is 256 values, a multiple of LANES: the vectors that hold what the row sees end there at most.
    unsafe {
        let (factor, cap) = (S::splat(cap.factor), S::splat(cap.cap));
        let mut i = visible.start / S::LANES * S::LANES;
        while i < visible.end {
            let x = S::mul(S::load(scores.add(i)), factor);
            S::store(scores.add(i), S::mul(tanh::<S>(x), cap));
            i += S::LANES;
        }
    }
}

/// Replaces the scores that a row sees by `2^((s - max) * scale)`; returns the maximum and the sum. Up to a vector of scores
/// before them is overwritten.
///
/// # Safety
/// See [`Simd`]; `scores` holds 256 values, and `visible` is not empty and ends at 256 at most.
#[inline(always)]
pub(super) unsafe fn softmax<S: Simd>(scores: *mut f32, visible: Range<usize>, scale: f32) -> (f32, f32) {
    let Range { start: from, end: to } = visible;
    let first = from / S::LANES * S::LANES;
    // SAFETY: a row of scores is 256 values, a multiple of LANES, and `to` is at most that.
    unsafe {
        // What shares a vector with the first visible score takes part and gives 0.
        for i in first..from {
            *scores.add(i) = f32::NEG_INFINITY;
        }
        let whole = to / S::LANES * S::LANES;
        // Finite, so that a score of -inf gives 0 and not NaN.
        let mut largest = S::splat(f32::MIN);
        let mut i = first;
        while i < whole {
            largest = S::max(S::load(scores.add(i)), largest);
            i += S::LANES;
        }
        if i < to {
            largest = S::max(S::load_first(scores.add(i), to - i, f32::MIN), largest);
        }
        let max = S::largest(largest);
        let (largest, scale) = (S::splat(max), S::splat(scale));
        let mut sum = S::splat(0.0);
        let mut i = first;
        while i < whole {
            let p = exp2::<S>(S::mul(S::sub(S::load(scores.add(i)), largest), scale));
            S::store(scores.add(i), p);
            sum = S::add(sum, p);
            i += S::LANES;
        }
        if i < to {
            let s = S::load_first(scores.add(i), to - i, f32::NEG_INFINITY);
            let p = exp2::<S>(S::mul(S::sub(s, largest), scale));
            S::store_first(scores.add(i), p, to - i);
            sum = S::add(sum, p);
        }
        (max, S::sum(sum))
    }
}

/// Adds the partial softmax `next` of later positions to `total`, for `rows` rows of `width` values; `scale` is that of the tile.
///
/// # Safety
/// See [`Simd`]; both hold `rows` rows, `width` is a multiple of 16, and they do not overlap.
#[inline(always)]
pub(crate) unsafe fn merge<S: Simd>(total: Partial, next: Partial, rows: usize, width: usize, scale: f32) {
    // SAFETY: by this function's contract.
    unsafe {
        for r in 0..rows {
            let (a, b) = (*total.max.add(r), *next.max.add(r));
            let max = if a > b { a } else { b };
            let keep = exp2::<S>(S::splat((a - max) * scale));
            let take = exp2::<S>(S::splat((b - max) * scale));
            *total.max.add(r) = max;
            let sum = S::mul(S::splat(*total.sum.add(r)), keep);
            *total.sum.add(r) = S::lane0(S::mul_add(S::splat(*next.sum.add(r)), take, sum));
            let mut i = r * width;
            while i < (r + 1) * width {
                let kept = S::mul(S::load(total.out.add(i)), keep);
                S::store(total.out.add(i), S::mul_add(S::load(next.out.add(i)), take, kept));
                i += S::LANES;
            }
        }
    }
}

/// `to = from / sum`, `dim` values.
///
/// # Safety
/// See [`Simd`]; `from` and `to` hold `dim` values.
#[inline(always)]
pub(crate) unsafe fn finish<S: Simd>(from: *const f32, sum: f32, to: *mut f32, dim: usize) {
    // SAFETY: by this function's contract.
    unsafe {
        let factor = S::splat(1.0 / sum);
        let mut i = 0;
        while i + S::LANES <= dim {
            S::store(to.add(i), S::mul(S::load(from.add(i)), factor));
            i += S::LANES;
        }
        if i < dim {
            S::store_first(to.add(i), S::mul(S::load_first(from.add(i), dim - i, 0.0), factor), dim - i);
        }
    }
}
