//! Softmax of a row of scores, and of partial results into whole ones.

use std::ops::Range;

use super::tile::{PartialSoftmax, SoftCap};
use crate::kernels::generic::math::{exp2, tanh};
use crate::kernels::generic::simd::Simd;

/// Caps the scores that a row sees.
///
/// # Safety
/// `scores` holds 256 values, and `visible` ends at 256 at most.
#[inline(always)]
pub(super) unsafe fn soft_cap<S: Simd>(s: S, scores: *mut f32, visible: Range<usize>, cap: SoftCap) {
    // SAFETY: a row of scores is 256 values, a multiple of LANES: the vectors that hold what the row sees end there at most.
    unsafe {
        let (factor, cap) = (s.splat(cap.factor), s.splat(cap.cap));
        let mut i = visible.start / S::LANES * S::LANES;
        while i < visible.end {
            let x = s.mul(s.load(scores.add(i)), factor);
            s.store(scores.add(i), s.mul(tanh(s, x), cap));
            i += S::LANES;
        }
    }
}

/// Replaces the scores that a row sees by `2^((s - max) * scale)`; returns the maximum and the sum. Up to a vector of scores
/// before them is overwritten.
///
/// # Safety
/// `scores` holds 256 values, and `visible` is not empty and ends at 256 at most.
#[inline(always)]
pub(super) unsafe fn softmax<S: Simd>(s: S, scores: *mut f32, visible: Range<usize>, scale: f32) -> (f32, f32) {
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
        let mut largest = s.splat(f32::MIN);
        let mut i = first;
        while i < whole {
            largest = s.max(s.load(scores.add(i)), largest);
            i += S::LANES;
        }
        if i < to {
            largest = s.max(s.load_first(scores.add(i), to - i, f32::MIN), largest);
        }
        let max = s.largest(largest);
        let (largest, scale) = (s.splat(max), s.splat(scale));
        let mut sum = s.splat(0.0);
        let mut i = first;
        while i < whole {
            let p = exp2(s, s.mul(s.sub(s.load(scores.add(i)), largest), scale));
            s.store(scores.add(i), p);
            sum = s.add(sum, p);
            i += S::LANES;
        }
        if i < to {
            let score = s.load_first(scores.add(i), to - i, f32::NEG_INFINITY);
            let p = exp2(s, s.mul(s.sub(score, largest), scale));
            s.store_first(scores.add(i), p, to - i);
            sum = s.add(sum, p);
        }
        (max, s.sum(sum))
    }
}

/// Adds the partial softmax `next` of later positions to `total`, for `rows` rows of `width` values; `scale` is that of the tile.
///
/// # Safety
/// Both hold `rows` rows, `width` is a multiple of 16, and they do not overlap.
#[inline(always)]
pub(crate) unsafe fn merge<S: Simd>(
    s: S,
    total: PartialSoftmax,
    next: PartialSoftmax,
    rows: usize,
    width: usize,
    scale: f32,
) {
    // SAFETY: by this function's contract.
    unsafe {
        for r in 0..rows {
            let (a, b) = (*total.max.add(r), *next.max.add(r));
            let max = if a > b { a } else { b };
            let keep = exp2(s, s.splat((a - max) * scale));
            let take = exp2(s, s.splat((b - max) * scale));
            *total.max.add(r) = max;
            let sum = s.mul(s.splat(*total.sum.add(r)), keep);
            *total.sum.add(r) = s.lane0(s.mul_add(s.splat(*next.sum.add(r)), take, sum));
            let mut i = r * width;
            while i < (r + 1) * width {
                let kept = s.mul(s.load(total.out.add(i)), keep);
                s.store(total.out.add(i), s.mul_add(s.load(next.out.add(i)), take, kept));
                i += S::LANES;
            }
        }
    }
}

/// `to = from / sum`, `dim` values.
///
/// # Safety
/// `from` and `to` hold `dim` values.
#[inline(always)]
pub(crate) unsafe fn finish<S: Simd>(s: S, from: *const f32, sum: f32, to: *mut f32, dim: usize) {
    // SAFETY: by this function's contract.
    unsafe {
        let factor = s.splat(1.0 / sum);
        let mut i = 0;
        while i + S::LANES <= dim {
            s.store(to.add(i), s.mul(s.load(from.add(i)), factor));
            i += S::LANES;
        }
        if i < dim {
            s.store_first(to.add(i), s.mul(s.load_first(from.add(i), dim - i, 0.0), factor), dim - i);
        }
    }
}
