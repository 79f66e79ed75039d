//! A multiplication that most families do not have.

use nanovllm_backend::{Backend, Scale};

/// Multiplies all rows of `x` by the same number; by 1 costs nothing.
pub(crate) fn multiply<B: Backend>(backend: &B, x: &mut B::Tensor, by: f32) {
    if by != 1.0 {
        backend.scale(x, Scale::All(by));
    }
}
