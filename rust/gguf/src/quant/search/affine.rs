//! The search for groups with a scale and a minimum, whose elements are `scale * q - min`.

use std::array::from_fn;

use crate::quant::half_le::LeF16;
use crate::quant::numbers::nearest;

/// The codes to choose from, and the candidates for the number of steps that a group's range is divided into.
#[derive(Clone, Copy)]
pub(crate) struct Grid {
    /// The largest code.
    pub(crate) largest: u8,
    /// How many candidates there are; candidate `i` has `largest + first + i / 10` steps.
    pub(crate) candidates: u8,
    /// How far the first candidate's number of steps is from `largest`.
    pub(crate) first: f32,
}

impl Grid {
    /// The code nearest to `v`, as a float.
    fn code(self, v: f32) -> f32 {
        nearest(v).clamp(0.0, self.largest as f32)
    }

    /// Replaces codes by those nearest to `x` under the scale and the minimum as stored, unless that scale is zero.
    pub(crate) fn requantize<const N: usize>(self, x: &[f32; N], scale: f32, min: f32, codes: &mut [u8; N]) {
        if scale != 0.0 {
            *codes = x.map(|x| self.code((x + min) / scale) as u8);
        }
    }
}

/// For each of `G` groups the scale, what is subtracted (neither is negative), and the codes.
///
/// Starts from the group's full range, zero included. Each candidate takes the codes of its number of steps, from the
/// least value so far up, and the scale and minimum that fit them best in weighted squares; it is kept if that lowers
/// the sum of `weights` times `error` of the difference. Its minimum is then the least value for those that follow.
pub(crate) fn affine<const G: usize, const N: usize>(
    x: &[[f32; N]; G],
    weights: impl Fn(&[f32; N]) -> [f32; N],
    grid: Grid,
    error: impl Fn(f32) -> f32,
) -> ([f32; G], [f32; G], [[u8; N]; G]) {
    let weights: [_; G] = from_fn(|g| weights(&x[g]));
    let groups = Groups::new(across(x), across(&weights));
    let largest = grid.largest as f32;

    let max = groups.x.iter().fold(groups.x[0], |max, x| from_fn(|g| max[g].max(x[g])));
    let mut min = groups.x.iter().fold([0.0f32; G], |min, x| from_fn(|g| min[g].min(x[g])));
    let flat: [bool; G] = from_fn(|g| max[g] == min[g]);
    let inverse = from_fn(|g| largest / (max[g] - min[g]));
    let mut scale = inverse.map(|inverse| 1.0 / inverse);
    let mut levels = groups.levels(&min, &inverse, grid);
    let mut best = groups.total(&error, &levels, &scale, &min);
    for i in 0..grid.candidates {
        let steps = grid.first + 0.1 * i as f32 + largest;
        let candidate = groups.levels(&min, &from_fn(|g| steps / (max[g] - min[g])), grid);
        let (scales, mins) = groups.fit(&candidate);
        let errors = groups.total(&error, &candidate, &scales, &mins);
        // False for NaN, which stands for a candidate without a fit.
        let better: [bool; G] = from_fn(|g| errors[g] < best[g]);
        if better.contains(&true) {
            take(&mut best, &errors, better);
            take(&mut scale, &scales, better);
            take(&mut min, &mins, better);
            for (level, candidate) in levels.iter_mut().zip(&candidate) {
                take(level, candidate, better);
            }
        }
    }
    let codes = from_fn(|g| if flat[g] { [0; N] } else { from_fn(|i| levels[i][g] as u8) });
    (from_fn(|g| if flat[g] { 0.0 } else { scale[g] }), min.map(|min| -min), codes)
}

/// Element `i` of every group side by side: the groups are a vector's lanes.
fn across<const G: usize, const N: usize>(groups: &[[f32; N]; G]) -> [[f32; G]; N] {
    from_fn(|i| from_fn(|g| groups[g][i]))
}

/// Replaces the entries of `to` that `which` marks by those of `from`.
fn take<const G: usize>(to: &mut [f32; G], from: &[f32; G], which: [bool; G]) {
    *to = from_fn(|g| if which[g] { from[g] } else { to[g] });
}

/// The elements of all groups and their weights, by element and then by group, and the weighted sums over each group.
struct Groups<const G: usize, const N: usize> {
    x: [[f32; G]; N],
    weights: [[f32; G]; N],
    sum_w: [f32; G],
    sum_x: [f32; G],
}

impl<const G: usize, const N: usize> Groups<G, N> {
    fn new(x: [[f32; G]; N], weights: [[f32; G]; N]) -> Self {
        let (mut sum_w, mut sum_x) = ([0.0; G], [0.0; G]);
        for (x, w) in x.iter().zip(&weights) {
            for g in 0..G {
                sum_w[g] += w[g];
                sum_x[g] += w[g] * x[g];
            }
        }
        Self { x, weights, sum_w, sum_x }
    }

    /// The codes of all elements, as floats: their distances from `min`, times `inverse`, rounded.
    fn levels(&self, min: &[f32; G], inverse: &[f32; G], grid: Grid) -> [[f32; G]; N] {
        self.x.map(|x| from_fn(|g| grid.code(inverse[g] * (x[g] - min[g]))))
    }

    /// For each group the weighted sum of `error` of the differences between elements and what their levels stand for.
    fn total(&self, error: &impl Fn(f32) -> f32, levels: &[[f32; G]; N], scale: &[f32; G], min: &[f32; G]) -> [f32; G] {
        let mut sum = [0.0; G];
        for ((x, w), l) in self.x.iter().zip(&self.weights).zip(levels) {
            for g in 0..G {
                sum[g] += w[g] * error(scale[g] * l[g] + min[g] - x[g]);
            }
        }
        sum
    }

    /// The scale and the minimum (at most 0) that fit the levels best in weighted squares; NaN where all are equal.
    fn fit(&self, levels: &[[f32; G]; N]) -> ([f32; G], [f32; G]) {
        let Self { sum_w, sum_x, .. } = self;
        let (mut sum_l, mut sum_l2, mut sum_xl) = ([0.0; G], [0.0; G], [0.0; G]);
        for ((x, w), l) in self.x.iter().zip(&self.weights).zip(levels) {
            for g in 0..G {
                sum_l[g] += w[g] * l[g];
                sum_l2[g] += w[g] * l[g] * l[g];
                sum_xl[g] += w[g] * l[g] * x[g];
            }
        }
        let (mut scale, mut min) = ([f32::NAN; G], [f32::NAN; G]);
        for g in 0..G {
            let determinant = sum_w[g] * sum_l2[g] - sum_l[g] * sum_l[g];
            if determinant > 0.0 {
                scale[g] = (sum_w[g] * sum_xl[g] - sum_x[g] * sum_l[g]) / determinant;
                min[g] = (sum_l2[g] * sum_x[g] - sum_l[g] * sum_xl[g]) / determinant;
                if min[g] > 0.0 {
                    (scale[g], min[g]) = (sum_xl[g] / sum_l2[g], 0.0);
                }
            }
        }
        (scale, min)
    }
}

/// Scales of a super-block's groups, none negative, as multiples of one over `steps` of the largest; `None` if that
/// overflows f16.
pub(crate) fn multiples<const N: usize>(scales: &[f32; N], steps: u8) -> Option<(LeF16, [u8; N])> {
    let largest = scales.iter().copied().fold(0.0, f32::max);
    let steps = steps as f32;
    let inverse = if largest > 0.0 { steps / largest } else { 0.0 };
    let multiples = scales.map(|scale| nearest(inverse * scale).min(steps) as u8);
    Some((LeF16::finite(largest / steps)?, multiples))
}
