//! What the operations mean, in plain f64.

use crate::rows::Activation;

/// `x / sqrt(mean(x^2) + eps) * weight` of one row; without a weight the norm alone.
pub(super) fn rms_norm(x: &[f64], weight: Option<&[f32]>, eps: f32) -> Vec<f64> {
    let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    let scale = 1.0 / (mean + f64::from(eps)).sqrt();
    let weight = |i: usize| weight.map_or(1.0, |weight| f64::from(weight[i]));
    x.iter().enumerate().map(|(i, x)| x * scale * weight(i)).collect()
}

/// `activation(gate) * up`.
pub(super) fn activate_and_mul(activation: Activation, gate: f32, up: f32) -> f64 {
    let (mut gate, mut up) = (f64::from(gate), f64::from(up));
    let active = match activation {
        Activation::Silu => gate / (1.0 + (-gate).exp()),
        // `gate / 2 * (1 + tanh(angle))`, of whose sum nothing is left far below 0.
        Activation::GeluTanh => {
            let angle = (2.0 / std::f64::consts::PI).sqrt() * (gate + 0.044715 * gate.powi(3));
            gate / (1.0 + (-2.0 * angle).exp())
        }
        Activation::SwigluOai => {
            gate = gate.min(7.0);
            up = up.clamp(-7.0, 7.0) + 1.0;
            gate / (1.0 + (-f64::from(1.702f32) * gate).exp())
        }
    };
    active * up
}

pub(super) fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// `x @ weight^T`, with `x` of `[rows, cols]` and `weight` of `[outputs, cols]`.
pub(super) fn linear(x: &[f32], weight: &[f32], cols: usize) -> Vec<f64> {
    x.chunks(cols).flat_map(|x| weight.chunks(cols).map(move |w| dot(x, w))).collect()
}

/// What the squares of [`linear`]'s outputs add up to on average over the signs of the values.
pub(super) fn energy(x: &[f32], weight: &[f32], cols: usize) -> f64 {
    let squares = |rows: &[f32]| -> Vec<f64> {
        (0..cols).map(|k| rows.iter().skip(k).step_by(cols).map(|&x| f64::from(x).powi(2)).sum()).collect()
    };
    squares(x).iter().zip(squares(weight)).map(|(x, w)| x * w).sum()
}

/// A norm of heads.
pub(super) struct Norm {
    pub(super) weight: Option<Vec<f32>>,
    pub(super) eps: f32,
}

/// One head normed where there is a norm, and rotated where there is a row of a rotary table: cosines, then sines, of as many
/// of the head's first dimensions.
pub(super) fn norm_rope(x: &[f32], norm: Option<&Norm>, rope: Option<&[f32]>) -> Vec<f64> {
    let mut x = widened(x);
    if let Some(Norm { weight, eps }) = norm {
        x = rms_norm(&x, weight.as_deref(), *eps);
    }
    let Some(rope) = rope else { return x };
    let half = rope.len() / 2;
    for i in 0..half {
        let (cos, sin) = (f64::from(rope[i]), f64::from(rope[half + i]));
        (x[i], x[half + i]) = (x[i] * cos - x[half + i] * sin, x[half + i] * cos + x[i] * sin);
    }
    x
}

/// How one query head attends.
pub(super) struct Attends {
    pub(super) scale: f64,
    pub(super) soft_cap: Option<f64>,
    pub(super) sink: Option<f64>,
}

impl Attends {
    /// The softmax of the scores, the sink's among them, weighs the values, of which the sink has none.
    pub(super) fn attention(&self, query: &[f32], keys: &[&[f32]], values: &[&[f32]]) -> Vec<f64> {
        let capped = |score: f64| self.soft_cap.map_or(score, |cap| cap * (score / cap).tanh());
        let scores: Vec<f64> = keys.iter().map(|key| capped(dot(query, key) * self.scale)).collect();
        let sink = self.sink.unwrap_or(f64::NEG_INFINITY);
        let largest = scores.iter().copied().fold(sink, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
        let total = weights.iter().sum::<f64>() + (sink - largest).exp();
        let mut out = vec![0.0; query.len()];
        for (weight, value) in weights.iter().zip(values) {
            for (out, &v) in out.iter_mut().zip(*value) {
                *out += weight / total * f64::from(v);
            }
        }
        out
    }
}

pub(super) fn widened(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}
