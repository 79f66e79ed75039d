//! The gated activation of the MLP.

use nanovllm_backend::{Activation, Backend};

/// `silu(gate) * up`, the activation between the projections of a gated MLP.
pub struct SiluAndMul;

impl SiluAndMul {
    /// `x` is `[rows, 2 n]` with the gates first, `out` is `[rows, n]`.
    pub fn forward<B: Backend>(backend: &B, x: &B::Tensor, out: &mut B::Tensor) {
        backend.activate_and_mul(Activation::Silu, x, out);
    }
}
