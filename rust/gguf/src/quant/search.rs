//! The searches for scales and codes, by which a group of elements is quantised.
//!
//! The rule is ggml's (`make_qkx2_quants`, `make_qx_quants`, `make_q3_quants`): the error is weighted, since a weight
//! matters by the activations it meets and large weights meet more of the output; candidate scales spread around the
//! one that spans the range; each candidate's codes are kept and its scale refitted by least squares. Sums run in the
//! same order as ggml's, so the blocks come out the same, byte for byte. Groups, or candidates, are worked on side by
//! side, one a vector lane, which keeps that order within each.

mod affine;
mod descent;
mod symmetric;

pub(super) use affine::{Grid, affine, multiples};
pub(super) use descent::descent;
pub(super) use symmetric::{requantize, symmetric};

/// A group of no larger magnitude is quantised as zeros.
pub(super) const NEGLIGIBLE: f32 = 1e-15;

/// The integer nearest to `v`, ties to even, for magnitudes up to 2^22; larger ones stay about as large.
///
/// The sum's last mantissa bit is worth 1. Unlike `round_ties_even`, this needs no SSE4.1 and vectorises anywhere.
pub(super) fn nearest(v: f32) -> f32 {
    const ONE_AN_ULP: f32 = 12_582_912.0; // 1.5 * 2^23
    (v + ONE_AN_ULP) - ONE_AN_ULP
}

/// The element of largest magnitude, the first of equals; 0 for none.
pub(super) fn extreme(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |most: f32, &v| if most.abs() < v.abs() { v } else { most })
}

/// The scale of largest magnitude; `None` if the sums behind one overflowed, which takes elements no f16 scale reaches.
pub(super) fn widest(scales: &[f32]) -> Option<f32> {
    scales.iter().all(|scale| scale.is_finite()).then(|| extreme(scales))
}
