//! The CPU device: instruction sets as values, packed weights, a spinning thread team, paged attention.
#![allow(unsafe_code)] // kernels; every use says why it is sound

mod activations;
mod buffer;
mod isa;
mod kernels;
mod matmul;
mod pack;
mod team;
mod tensor;

pub use isa::Isa;
pub use matmul::Weight;
pub use team::{Member, Team};
pub use tensor::Tensor;
