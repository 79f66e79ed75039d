//! The CPU device: instruction sets as values, packed weights, a spinning thread team, paged attention.
#![allow(unsafe_code)] // kernels; every use says why it is sound
#![allow(clippy::cast_ptr_alignment)] // their loads and stores are the unaligned ones

mod activations;
mod arena;
mod attention;
mod backend;
mod buffer;
mod claims;
mod format;
mod isa;
mod kernels;
mod kv_cache;
mod layout;
mod matmul;
mod pack;
mod rows;
mod sample;
mod store;
mod team;
mod tensor;
#[cfg(test)]
mod testing;

pub use activations::ActivationBits;
pub use backend::{CpuBackend, CpuOptions};
pub use format::packed_bytes;
pub use isa::Isa;
pub use kv_cache::KvCache;
pub use matmul::Weight;
pub use team::{Member, Team};
pub use tensor::Tensor;
