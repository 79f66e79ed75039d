//! The kernels, one folder for each instruction set.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod scalar;

pub(crate) mod attention;
pub(crate) mod cached;
mod math;
#[cfg(target_arch = "x86_64")]
pub(crate) mod quantized;
pub(crate) mod rows;
pub(crate) mod sample;
pub(crate) mod simd;
pub(crate) mod table;
