//! The kernels, each written once and compiled for every instruction set.

pub(crate) mod attention;
pub(crate) mod cached;
pub(crate) mod dense;
pub(crate) mod dot;
pub(crate) mod math;
pub(crate) mod quantized;
pub(crate) mod rows;
pub(crate) mod sample;
pub(crate) mod simd;
pub(crate) mod truncate;
