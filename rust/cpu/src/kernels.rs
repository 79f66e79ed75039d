//! The kernels: every loop over weights, activations, cached keys and values, and logits.
//!
//! [`generic`] has each kernel once, written over a vector of f32 as a trait. An instruction set is a folder that implements
//! that trait, the byte products of quantised weights and the conversion of activations, and compiles the generic kernels with
//! the set's features: `scalar` is portable Rust, `avx2` has AVX2 with and without AVX-VNNI, `avx512` has AVX-512 with and
//! without BF16. [`table`] says which kernels there are, and
//! [`Kernels::new`] hands out those of a set.
//!
//! To add a set (NEON, say): a folder `neon` with `simd.rs`, `dot.rs`, `convert.rs` and `table.rs` like those of `avx2`, a row
//! in [`isa`](crate::isa) with what detects it, and here its module and the arms that the compiler then asks for. Tests,
//! conformance and options take their sets from [`Isa::ALL`](crate::isa::Isa::ALL). Nothing here knows who calls it.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod codes;
pub(crate) mod generic;
mod scalar;
pub(crate) mod table;
pub(crate) mod tile;

use crate::isa::Isa;
use table::Kernels;

#[cfg(all(test, target_arch = "x86_64"))]
pub(crate) use avx2::matmul_evex;

impl Kernels {
    /// The kernels of `isa`; none where the machine does not have it.
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_unsafe))] // portable code is safe
    pub(crate) fn new(isa: Isa) -> Option<Self> {
        if !isa.is_available() {
            return None;
        }
        // SAFETY: the machine has the set.
        Some(unsafe {
            match isa {
                Isa::Scalar => scalar::kernels(),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => avx2::kernels(),
                #[cfg(target_arch = "x86_64")]
                Isa::AvxVnni => avx2::kernels_vnni(),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => avx512::kernels(),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512Bf16 => avx512::kernels_bf16(),
                #[cfg(not(target_arch = "x86_64"))]
                Isa::Avx2 | Isa::AvxVnni | Isa::Avx512 | Isa::Avx512Bf16 => return None,
            }
        })
    }
}
