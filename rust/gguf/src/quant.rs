//! The block formats: how a block is laid out, read and written, with a file for each family.
//!
//! Reading gives what ggml's reference functions (`ggml-quants.c`) give, bit for bit: codes times f16 scales widened to
//! f32, each product and sum rounded to f32. Written blocks are ggml's too, byte for byte, but for those of IQ4_NL and
//! MXFP4, which say how they do better.
//!
//! A super-block is a block of 256 elements. A new format is a file here and a row in `types.rs`.

mod bits;
mod codebook;
pub(crate) mod codec;
pub(crate) mod dense;
mod half_le;
mod iq1;
mod iq2;
mod iq3;
mod iq4;
mod mxfp4;
mod numbers;
mod q2_k;
mod q3_k;
mod q4;
mod q4_k;
mod q5;
mod q6_k;
mod q8;
mod search;
mod ternary;

pub use half_le::*;
pub use iq1::*;
pub use iq2::*;
pub use iq3::*;
pub use iq4::*;
pub use mxfp4::*;
pub use q2_k::*;
pub use q3_k::*;
pub use q4::*;
pub use q4_k::*;
pub use q5::*;
pub use q6_k::*;
pub use q8::*;
pub use ternary::*;
