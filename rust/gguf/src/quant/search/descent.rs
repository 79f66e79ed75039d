//! The search for groups whose elements are `scale * (q - half)`, with so few codes that changing one moves the scale:
//! codes are chosen one after another.

use crate::quant::numbers::{NEGLIGIBLE, extreme, nearest};

/// The most rounds over a group; it ends earlier with a round in which no code changes.
const ROUNDS: usize = 5;

/// The scale, and the codes plus `half`, which are 0 to `2 * half - 1`. They are found by changing one code at a time
/// to what is nearest under the scale that fits the others best; errors are weighted by the elements' squares. A
/// negligible group has scale 0 and codes 0.
pub(crate) fn descent<const N: usize>(x: &[f32; N], half: u8) -> (f32, [u8; N]) {
    let extreme = extreme(x);
    if extreme.abs() < NEGLIGIBLE {
        return (0.0, [0; N]);
    }
    let half = half as f32;
    let code = |v: f32| nearest(v).clamp(-half, half - 1.0);
    let inverse = -half / extreme;
    let mut levels = x.map(|x| code(inverse * x));
    let (mut sum_lx, mut sum_l2) = (0.0, 0.0);
    for (&x, &l) in x.iter().zip(&levels) {
        let w = x * x;
        sum_lx += w * x * l;
        sum_l2 += w * l * l;
    }
    for _ in 0..ROUNDS {
        let mut changed = false;
        for (&x, level) in x.iter().zip(&mut levels) {
            let w = x * x;
            let (mut others_lx, mut others_l2) = (sum_lx - w * x * *level, sum_l2 - w * *level * *level);
            if others_lx <= 0.0 {
                continue;
            }
            let l = code(x * others_l2 / others_lx);
            if l == *level {
                continue;
            }
            others_lx += w * x * l;
            others_l2 += w * l * l;
            if others_l2 > 0.0 && others_lx * others_lx * sum_l2 > sum_lx * sum_lx * others_l2 {
                (*level, sum_lx, sum_l2) = (l, others_lx, others_l2);
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    let scale = if sum_l2 > 0.0 { sum_lx / sum_l2 } else { 0.0 };
    (scale, levels.map(|l| (l + half) as u8))
}
