//! What the operations mean, in plain f64.

/// `x / sqrt(mean(x^2) + eps) * weight` of one row.
pub(super) fn rms_norm(x: &[f64], weight: &[f32], eps: f32) -> Vec<f64> {
    let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    let scale = 1.0 / (mean + f64::from(eps)).sqrt();
    x.iter().zip(weight).map(|(x, &w)| x * scale * f64::from(w)).collect()
}

/// `x * sigmoid(x) * up`.
pub(super) fn silu_and_mul(gate: f32, up: f32) -> f64 {
    let gate = f64::from(gate);
    gate / (1.0 + (-gate).exp()) * f64::from(up)
}

pub(super) fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// `x @ weight^T`, with `x` of `[rows, cols]` and `weight` of `[outputs, cols]`.
pub(super) fn linear(x: &[f32], weight: &[f32], cols: usize) -> Vec<f64> {
    x.chunks(cols).flat_map(|x| weight.chunks(cols).map(move |w| dot(x, w))).collect()
}

/// One head normed where there is a weight, and rotated: `rope` holds the cosines, then the sines.
pub(super) fn norm_rope(x: &[f32], norm: Option<(&[f32], f32)>, rope: &[f32]) -> Vec<f64> {
    let mut x = widened(x);
    if let Some((weight, eps)) = norm {
        x = rms_norm(&x, weight, eps);
    }
    let half = x.len() / 2;
    let mut out = vec![0.0; x.len()];
    for i in 0..half {
        let (cos, sin) = (f64::from(rope[i]), f64::from(rope[half + i]));
        out[i] = x[i] * cos - x[half + i] * sin;
        out[half + i] = x[half + i] * cos + x[i] * sin;
    }
    out
}

/// One head's attention: the softmax of `query . key / sqrt(head_dim)` weighs the values.
pub(super) fn attention(query: &[f32], keys: &[&[f32]], values: &[&[f32]]) -> Vec<f64> {
    let scale = 1.0 / (query.len() as f64).sqrt();
    let scores: Vec<f64> = keys.iter().map(|key| dot(query, key) * scale).collect();
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut out = vec![0.0; query.len()];
    for (weight, value) in weights.iter().zip(values) {
        for (out, &v) in out.iter_mut().zip(*value) {
            *out += weight / total * f64::from(v);
        }
    }
    out
}

pub(super) fn widened(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}
