//! The CPU device: instruction sets as values, packed weights, a spinning thread team, paged attention.
//!
//! ```
//! use nanovllm_backend::{Backend, DType, WeightPart};
//! use nanovllm_cpu::{CpuBackend, CpuOptions};
//!
//! # fn main() -> nanovllm_backend::Result<()> {
//! let cpu = CpuBackend::new(CpuOptions::default())?;
//! // Two outputs of three inputs each, as a file stores them.
//! let data: Vec<u8> = [1f32, 2.0, 3.0, 4.0, 5.0, 6.0].iter().flat_map(|x| x.to_le_bytes()).collect();
//! let weight = cpu.pack(&WeightPart { dtype: DType::F32, rows: 2, cols: 3, data: &data })?;
//! let x = cpu.upload(&[1.0, 0.0, -1.0], 1, 3)?;
//! let mut out = cpu.tensor(1, 2)?;
//! cpu.linear(&x, &weight, None, &mut out);
//! assert_eq!(cpu.download(&out), [-2.0, -2.0]);
//! # Ok(())
//! # }
//! ```
//!
//! `backend` answers to the contract. Below it, one file drives each operation over the threads of a `team`: `matmul`,
//! `attention`, `rows`, `store` and `sample`. The loops themselves are in `kernels`, one table of functions for each instruction
//! set. `format` says how each GGUF type is stored, `layout` how that lies in memory, and `pack` brings a matrix there.
#![allow(unsafe_code)] // kernels; every use says why it is sound
#![allow(clippy::cast_ptr_alignment)] // loads and stores of vectors are the unaligned ones

#[cfg(target_endian = "big")]
compile_error!("packed dense weights are the file's bytes, which are little-endian");

mod activations;
mod arena;
mod attention;
mod backend;
mod buffer;
mod claims;
mod experts;
mod format;
mod isa;
// Portable code, the only set of other machines so far, has no byte products.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, unused_imports, unused_macros))]
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
