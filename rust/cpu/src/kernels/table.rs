//! Tables of kernels, one for each instruction set, and the macro that compiles the generic kernels for it.

use nanovllm_backend::DType;

use super::attention::{AttendTile, Partial};
use super::rows::{Norm, Rotation};
use super::sample::Stream;
use crate::isa::Isa;

/// Heads, their number and width.
type NormRope = unsafe fn(*mut f32, usize, usize, Option<Norm>, Option<Rotation>);

/// Kernels on one row of activations or logits.
///
/// # Safety
/// Each may be called on a machine with its instruction set, under the contract of the generic function of its name in
/// [`rows`](super::rows) and [`sample`](super::sample).
#[derive(Clone, Copy)]
pub(crate) struct RowKernels {
    pub(crate) rms_norm: unsafe fn(*const f32, *const f32, f32, *mut f32, usize),
    pub(crate) add_rms_norm: unsafe fn(*const f32, *mut f32, *const f32, f32, *mut f32, usize),
    pub(crate) silu_and_mul: unsafe fn(*const f32, *const f32, *mut f32, usize),
    pub(crate) norm_rope: NormRope,
    pub(crate) arg_max: unsafe fn(*const f32, usize) -> u32,
    pub(crate) draw: unsafe fn(*const f32, usize, f32, Stream) -> u32,
}

/// Kernels on one cache type.
///
/// # Safety
/// Each may be called on a machine with its instruction set and for its cache type, under the contract of the generic function
/// of its name in [`attention`](super::attention).
#[derive(Clone, Copy)]
pub(crate) struct CacheKernels {
    /// Bytes of a prepared pair of query dimensions.
    pub(crate) query_bytes: usize,
    pub(crate) prepare_query: unsafe fn(*const f32, usize, *mut u8),
    pub(crate) store_key: unsafe fn(*const f32, usize, *mut u8),
    pub(crate) store_value: unsafe fn(*const f32, usize, *mut u8),
    pub(crate) attend: unsafe fn(&AttendTile),
    pub(crate) merge: unsafe fn(Partial, Partial, usize, usize, f32),
    pub(crate) finish: unsafe fn(*const f32, f32, *mut f32, usize),
}

/// The attention of one instruction set.
#[derive(Clone, Copy)]
pub(crate) struct AttentionKernels {
    pub(crate) f32: CacheKernels,
    pub(crate) bf16: CacheKernels,
}

impl RowKernels {
    /// The kernels of `isa`, which the machine must have.
    pub(crate) fn new(isa: Isa) -> Self {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Bf16 => super::avx512::table::rows(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::AvxVnni => super::avx2::table::rows(),
            _ => super::scalar::table::rows(),
        }
    }
}

impl AttentionKernels {
    /// The kernels of `isa`, which the machine must have.
    pub(crate) fn new(isa: Isa) -> Self {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => super::avx512::table::attention_bf16(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => super::avx512::table::attention(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::AvxVnni => super::avx2::table::attention(),
            _ => super::scalar::table::attention(),
        }
    }

    /// The kernels of a cache of `dtype`, F32 or Bf16.
    pub(crate) fn of(&self, dtype: DType) -> &CacheKernels {
        if dtype == DType::F32 { &self.f32 } else { &self.bf16 }
    }
}

/// Compiles a generic kernel for an instruction set: a function of the same signature with the set's features enabled.
macro_rules! compile {
    ($features:literal, $path:path as fn($($arg:ident: $type:ty),*) $(-> $result:ty)?) => {{
        /// # Safety
        /// The machine has the features; otherwise the generic kernel's own contract.
        #[cfg_attr(target_arch = "x86_64", target_feature(enable = $features))]
        unsafe fn compiled($($arg: $type),*) $(-> $result)? {
            // SAFETY: by this function's contract.
            unsafe { $path($($arg),*) }
        }
        compiled
    }};
}

/// The row kernels of vectors `$simd`, compiled with `$features`.
macro_rules! row_kernels {
    ($features:literal, $simd:ty) => {{
        use $crate::kernels::rows::{self, Norm, Rotation};
        use $crate::kernels::sample;
        use $crate::kernels::table::compile;
        $crate::kernels::table::RowKernels {
            rms_norm: compile!(
                $features,
                rows::rms_norm::<$simd> as fn(x: *const f32, weight: *const f32, eps: f32, out: *mut f32, n: usize)
            ),
            add_rms_norm: compile!(
                $features,
                rows::add_rms_norm::<$simd>
                    as fn(x: *const f32, residual: *mut f32, weight: *const f32, eps: f32, out: *mut f32, n: usize)
            ),
            silu_and_mul: compile!(
                $features,
                rows::silu_and_mul::<$simd> as fn(gate: *const f32, up: *const f32, out: *mut f32, n: usize)
            ),
            norm_rope: compile!(
                $features,
                rows::norm_rope::<$simd>
                    as fn(heads: *mut f32, count: usize, dim: usize, norm: Option<Norm>, rotation: Option<Rotation>)
            ),
            arg_max: compile!($features, sample::arg_max::<$simd> as fn(logits: *const f32, n: usize) -> u32),
            draw: compile!(
                $features,
                sample::draw::<$simd>
                    as fn(logits: *const f32, n: usize, temperature: f32, stream: sample::Stream) -> u32
            ),
        }
    }};
}

/// The kernels of cache type `$cached` on vectors `$simd`, compiled with `$features`.
macro_rules! cache_kernels {
    ($features:literal, $simd:ty, $cached:ty) => {{
        use $crate::kernels::attention::{self, AttendTile, Partial};
        use $crate::kernels::cached::Cached;
        use $crate::kernels::table::compile;
        $crate::kernels::table::CacheKernels {
            query_bytes: size_of::<<$cached as Cached>::Query>(),
            prepare_query: compile!(
                $features,
                attention::prepare_query::<$cached> as fn(from: *const f32, pairs: usize, to: *mut u8)
            ),
            store_key: compile!(
                $features,
                attention::store_key::<$cached> as fn(from: *const f32, pairs: usize, to: *mut u8)
            ),
            store_value: compile!(
                $features,
                attention::store_value::<$cached> as fn(from: *const f32, dim: usize, to: *mut u8)
            ),
            attend: compile!($features, attention::attend::<$cached> as fn(tile: &AttendTile)),
            merge: compile!(
                $features,
                attention::merge::<$simd> as fn(total: Partial, next: Partial, rows: usize, width: usize, scale: f32)
            ),
            finish: compile!(
                $features,
                attention::finish::<$simd> as fn(from: *const f32, sum: f32, to: *mut f32, dim: usize)
            ),
        }
    }};
}

pub(crate) use {cache_kernels, compile, row_kernels};
