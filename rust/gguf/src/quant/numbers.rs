//! Arithmetic that the quantisers share.

/// A group of elements whose largest magnitude is below this is quantised as zeros.
pub(super) const NEGLIGIBLE: f32 = 1e-15;

/// `1 / d`, or 0 for a scale of 0, which a block of zeros has.
pub(super) fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// The integer nearest to `v`, ties to even, for magnitudes up to 2^22; larger ones stay about as large.
///
/// The sum's last mantissa bit is worth 1. Unlike `round_ties_even`, this needs no SSE4.1 and vectorises anywhere.
pub(super) fn nearest(v: f32) -> f32 {
    const ONE_AN_ULP: f32 = 12_582_912.0; // 1.5 * 2^23
    (v + ONE_AN_ULP) - ONE_AN_ULP
}

/// The element of largest magnitude, sign included; the first of several, and 0 where there is none.
pub(super) fn extreme(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |most: f32, &v| if most.abs() < v.abs() { v } else { most })
}

/// The scale of largest magnitude; `None` if one is not finite because the sums behind it overflowed, which takes
/// elements that no f16 scale reaches.
pub(super) fn widest(scales: &[f32]) -> Option<f32> {
    scales.iter().all(|scale| scale.is_finite()).then(|| extreme(scales))
}
