//! The CPU device: instruction sets as values, packed weights, a spinning thread team, paged attention.
#![allow(unsafe_code)] // kernels; every use says why it is sound

mod buffer;
mod isa;
mod team;
mod tensor;

pub use isa::Isa;
pub use team::{Member, Team};
pub use tensor::Tensor;
