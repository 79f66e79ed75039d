//! Types whose codes index a codebook.

use nanovllm_backend::DType;

use super::Coding;

/// How `dtype` is stored, if it is one of these.
pub(super) const fn coding(_dtype: DType) -> Option<&'static Coding> {
    None
}
