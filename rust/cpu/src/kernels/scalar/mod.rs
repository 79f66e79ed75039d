//! Portable kernels: the reference, and the path of machines without a faster set.

pub(crate) mod matmul;
pub(super) mod simd;
pub(crate) mod table;
