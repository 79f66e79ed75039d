//! Operations that work row by row or head by head.

use candle_core::{D, Result, Tensor};
use nanovllm_backend::Activation;

/// `x / sqrt(mean(x^2) + eps)` over the last dimension, of size `n`, times `weight`, `[1, n]`, if there is one.
pub(crate) fn rms_norm(x: &Tensor, weight: Option<&Tensor>, eps: f32) -> Result<Tensor> {
    let n = x.dim(D::Minus1)?;
    let mean = (x.sqr()?.sum_keepdim(D::Minus1)? / n as f64)?;
    let normed = x.broadcast_div(&(mean + f64::from(eps))?.sqrt()?)?;
    if let Some(weight) = weight { normed.broadcast_mul(weight) } else { Ok(normed) }
}

/// `activation(x[:, :n]) * x[:, n:]` with `x` of width `2n`.
pub(crate) fn activate_and_mul(activation: Activation, x: &Tensor) -> Result<Tensor> {
    let n = x.dim(1)? / 2;
    let gate = x.narrow(1, 0, n)?.contiguous()?;
    gated(activation, &gate, &x.narrow(1, n, n)?.contiguous()?)
}

/// `activation(x) * up`.
pub(crate) fn gated(activation: Activation, x: &Tensor, up: &Tensor) -> Result<Tensor> {
    match activation {
        Activation::Silu => x.silu()?.mul(up),
        // As `x * sigmoid(2 * angle)`: candle's own takes `1 + tanh(angle)`, of which nothing is left far below 0.
        Activation::GeluTanh => {
            let cubed = (x.sqr()? * x)?;
            let twice = ((x + (cubed * 0.044715)?)? * (2.0 * (2.0 / std::f64::consts::PI).sqrt()))?;
            (x / (twice.neg()?.exp()? + 1.0)?)?.mul(up)
        }
        Activation::SwigluOai => {
            let limit = Activation::SWIGLU_OAI_LIMIT;
            let x = x.minimum(limit)?;
            let denominator = ((&x * f64::from(-Activation::SWIGLU_OAI_ALPHA))?.exp()? + 1.0)?;
            (x / denominator)?.mul(&(up.clamp(-limit, limit)? + 1.0)?)
        }
    }
}

/// Rotates the halves of the first `width` dimensions of each head: `x` is `[rows, heads, head_dim]`, `rope` (`[rows,
/// width]`) the cosines, then the sines, of each row's position.
pub(crate) fn rotate(x: &Tensor, rope: &Tensor) -> Result<Tensor> {
    let (head_dim, width) = (x.dim(2)?, rope.dim(1)?);
    let half = width / 2;
    let cos = rope.narrow(1, 0, half)?.unsqueeze(1)?;
    let sin = rope.narrow(1, half, half)?.unsqueeze(1)?;
    let (first, second) = (x.narrow(2, 0, half)?, x.narrow(2, half, half)?);
    let mut parts = vec![
        (first.broadcast_mul(&cos)? - second.broadcast_mul(&sin)?)?,
        (second.broadcast_mul(&cos)? + first.broadcast_mul(&sin)?)?,
    ];
    if width < head_dim {
        parts.push(x.narrow(2, width, head_dim - width)?);
    }
    Tensor::cat(&parts, 2)
}

/// The softmax of the last dimension.
pub(crate) fn softmax(x: &Tensor) -> Result<Tensor> {
    let weights = x.broadcast_sub(&x.max_keepdim(D::Minus1)?)?.exp()?;
    weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)
}
