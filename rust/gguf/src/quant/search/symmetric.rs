//! The search for groups with a scale alone, whose elements are `scale * (q - half)`.

use crate::quant::numbers::{NEGLIGIBLE, extreme, nearest};

/// The candidates: with candidate `i`, the extreme element lands on `-(half + i / 10)`. The exact fit comes first.
const TRIES: [i8; 19] = [0, -9, -8, -7, -6, -5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 6, 7, 8, 9];

/// The scale, and the codes plus `half`, which are 0 to `2 * half - 1`; errors are weighted by the elements' squares. A
/// negligible group has scale 0 and codes 0.
pub(crate) fn symmetric<const N: usize>(x: &[f32; N], half: u8) -> (f32, [u8; N]) {
    let extreme = extreme(x);
    if extreme.abs() < NEGLIGIBLE {
        return (0.0, [0; N]);
    }
    let half = half as f32;
    let code = |v: f32| nearest(v).clamp(-half, half - 1.0);
    let inverses = TRIES.map(|i| -(half + 0.1 * i as f32) / extreme);
    let (mut sum_lx, mut sum_l2) = ([0.0; TRIES.len()], [0.0; TRIES.len()]);
    for &x in x {
        let w = x * x;
        for t in 0..TRIES.len() {
            let l = code(inverses[t] * x);
            sum_lx[t] += w * x * l;
            sum_l2[t] += w * l * l;
        }
    }
    // With its best scale, a candidate brings the error below that of writing zeros by sum_lx^2 / sum_l2.
    let mut inverse = inverses[0];
    let mut scale = if sum_l2[0] == 0.0 { 0.0 } else { sum_lx[0] / sum_l2[0] };
    let mut gain = scale * sum_lx[0];
    for t in 1..TRIES.len() {
        if sum_l2[t] > 0.0 && sum_lx[t] * sum_lx[t] > gain * sum_l2[t] {
            inverse = inverses[t];
            scale = sum_lx[t] / sum_l2[t];
            gain = scale * sum_lx[t];
        }
    }
    (scale, x.map(|x| (code(inverse * x) + half) as u8))
}

/// Replaces the codes, plus `half`, by those nearest to `x` under the scale as stored, unless that is zero.
pub(crate) fn requantize<const N: usize>(x: &[f32; N], half: u8, scale: f32, codes: &mut [u8; N]) {
    let half = half as f32;
    if scale != 0.0 {
        *codes = x.map(|x| (nearest(x / scale).clamp(-half, half - 1.0) + half) as u8);
    }
}
