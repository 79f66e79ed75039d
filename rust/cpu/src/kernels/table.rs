//! Which kernels there are, as tables of functions, and the macros that compile the generic ones for an instruction set.

use nanovllm_backend::{Activation, DType};

use super::generic::attention::{AttendTile, PartialSoftmax};
use super::generic::rows::{Norm, Rotation};
use super::generic::sample::{Drawn, Stream};
use super::tile::{ConvertKernel, TileKernel};
use crate::layout::Layout;

/// Every kernel of one instruction set.
///
/// [`new`](Self::new) makes tables of sets that the machine has, and only those, so whoever holds a kernel may call it: what its
/// caller vouches for is what it says of its arguments.
#[derive(Clone, Copy)]
pub(crate) struct Kernels {
    pub(crate) matmul: MatmulKernels,
    pub(crate) rows: RowKernels,
    pub(crate) attention: AttentionKernels,
}

/// The matmul of one instruction set.
#[derive(Clone, Copy)]
pub(crate) struct MatmulKernels {
    /// Rows of a packed group of weights, one in each lane of a vector.
    pub(crate) lanes: usize,
    /// Rows of activations to blocks of codes, and to wide blocks.
    pub(crate) quantize: [ConvertKernel; 2],
    /// Rows of activations to pairs of bf16, where bf16 weights are multiplied with those; elsewhere they take f32 rows.
    pub(crate) pair: Option<ConvertKernel>,
    pub(crate) f32: TileKernel,
    pub(crate) f16: TileKernel,
    pub(crate) bf16: TileKernel,
    /// For each layout, for blocks of codes and for wide blocks.
    pub(crate) quantized: [[TileKernel; 2]; Layout::COUNT],
}

/// Heads, their number and width.
type NormRope = unsafe fn(*mut f32, usize, usize, Option<Norm>, Option<Rotation>);

/// Gates, values, where their products go, and how many there are of each.
pub(crate) type GatedActivation = unsafe fn(*const f32, *const f32, *mut f32, usize);

/// Kernels on one row of activations or logits.
///
/// # Safety
/// Each is the generic function of its name in [`rows`](super::generic::rows), [`sample`](super::generic::sample) or
/// [`truncate`](super::generic::truncate), under that function's contract.
#[derive(Clone, Copy)]
pub(crate) struct RowKernels {
    pub(crate) rms_norm: unsafe fn(*const f32, *const f32, f32, *mut f32, usize),
    pub(crate) add_rms_norm: unsafe fn(*const f32, *mut f32, *const f32, f32, *mut f32, usize),
    pub(crate) silu_and_mul: GatedActivation,
    pub(crate) gelu_and_mul: GatedActivation,
    pub(crate) swiglu_oai: GatedActivation,
    pub(crate) soft_cap: unsafe fn(*mut f32, f32, usize),
    pub(crate) norm_rope: NormRope,
    pub(crate) arg_max: unsafe fn(*const f32, usize) -> u32,
    pub(crate) draw: unsafe fn(*const f32, usize, u32, f32, Stream) -> Drawn,
    pub(crate) mass: unsafe fn(*const f32, usize, f32, f32, f32) -> f64,
    pub(crate) collect: unsafe fn(*const f32, usize, u32, f32, *mut u64) -> usize,
    pub(crate) ahead: unsafe fn(*const f32, usize, f32, usize) -> usize,
}

impl RowKernels {
    /// The gated activation.
    pub(crate) fn activate_and_mul(&self, activation: Activation) -> GatedActivation {
        match activation {
            Activation::Silu => self.silu_and_mul,
            Activation::GeluTanh => self.gelu_and_mul,
            Activation::SwigluOai => self.swiglu_oai,
        }
    }
}

/// The attention of one instruction set.
#[derive(Clone, Copy)]
pub(crate) struct AttentionKernels {
    pub(crate) f32: CacheKernels,
    pub(crate) bf16: CacheKernels,
}

/// Kernels on one type of cache.
///
/// # Safety
/// Each is the generic function of its name in [`attention`](super::generic::attention), under that function's contract and for
/// this type of cache.
#[derive(Clone, Copy)]
pub(crate) struct CacheKernels {
    /// Bytes of a prepared pair of query dimensions.
    pub(crate) query_bytes: usize,
    pub(crate) prepare_query: unsafe fn(*const f32, usize, *mut u8),
    pub(crate) store_key: unsafe fn(*const f32, usize, *mut u8),
    pub(crate) store_value: unsafe fn(*const f32, usize, *mut u8),
    pub(crate) attend: unsafe fn(&AttendTile),
    pub(crate) merge: unsafe fn(PartialSoftmax, PartialSoftmax, usize, usize, f32),
    pub(crate) finish: unsafe fn(*const f32, f32, *mut f32, usize),
}

impl AttentionKernels {
    /// The kernels of a cache of `dtype`, F32 or Bf16.
    pub(crate) fn of(&self, dtype: DType) -> &CacheKernels {
        if dtype == DType::F32 { &self.f32 } else { &self.bf16 }
    }
}

/// Compiles a generic kernel for an instruction set: a function of the same signature, less the proof of type `$proof` that comes
/// first, with the set's features enabled.
macro_rules! compile {
    ([$($features:literal)?], $proof:ty => $kernel:path as fn($($arg:ident: $type:ty),*) $(-> $result:ty)?) => {{
        /// # Safety
        /// The machine has the features, and the arguments are what the generic kernel asks for.
        $(#[target_feature(enable = $features)])?
        unsafe fn compiled($($arg: $type),*) $(-> $result)? {
            // SAFETY: by this function's contract.
            unsafe { $kernel(<$proof as $crate::kernels::generic::simd::Proof>::assume(), $($arg),*) }
        }
        compiled
    }};
}

/// The kernels on rows, on vectors `$simd`.
macro_rules! row_kernels {
    ($features:tt, $simd:ty) => {{
        use $crate::kernels::generic::rows::{self, Norm, Rotation};
        use $crate::kernels::generic::sample::{self, Drawn, Stream};
        use $crate::kernels::generic::truncate;
        use $crate::kernels::table::compile;
        $crate::kernels::table::RowKernels {
            rms_norm: compile!($features, $simd => rows::rms_norm
                as fn(x: *const f32, weight: *const f32, eps: f32, out: *mut f32, n: usize)),
            add_rms_norm: compile!($features, $simd => rows::add_rms_norm
                as fn(x: *const f32, residual: *mut f32, weight: *const f32, eps: f32, out: *mut f32, n: usize)),
            silu_and_mul: compile!($features, $simd => rows::silu_and_mul
                as fn(gate: *const f32, up: *const f32, out: *mut f32, n: usize)),
            gelu_and_mul: compile!($features, $simd => rows::gelu_and_mul
                as fn(gate: *const f32, up: *const f32, out: *mut f32, n: usize)),
            swiglu_oai: compile!($features, $simd => rows::swiglu_oai
                as fn(gate: *const f32, up: *const f32, out: *mut f32, n: usize)),
            soft_cap: compile!($features, $simd => rows::soft_cap as fn(x: *mut f32, cap: f32, n: usize)),
            norm_rope: compile!($features, $simd => rows::norm_rope
                as fn(heads: *mut f32, count: usize, dim: usize, norm: Option<Norm>, rotation: Option<Rotation>)),
            arg_max: compile!($features, $simd => sample::arg_max as fn(logits: *const f32, n: usize) -> u32),
            draw: compile!($features, $simd => sample::draw
                as fn(logits: *const f32, n: usize, first: u32, temperature: f32, stream: Stream) -> Drawn),
            mass: compile!($features, $simd => truncate::mass
                as fn(logits: *const f32, n: usize, largest: f32, temperature: f32, least: f32) -> f64),
            collect: compile!($features, $simd => truncate::collect
                as fn(logits: *const f32, n: usize, first: u32, least: f32, keys: *mut u64) -> usize),
            ahead: compile!($features, $simd => truncate::ahead
                as fn(logits: *const f32, n: usize, own: f32, before: usize) -> usize),
        }
    }};
}

/// The kernels on a cache that `$cached` reads.
macro_rules! cache_kernels {
    ($features:tt, $cached:ty) => {{
        use $crate::kernels::generic::attention::{self, AttendTile, PartialSoftmax};
        use $crate::kernels::generic::cached::Cached;
        use $crate::kernels::table::compile;
        $crate::kernels::table::CacheKernels {
            query_bytes: size_of::<<$cached as Cached>::Query>(),
            prepare_query: compile!($features, $cached => attention::prepare_query
                as fn(from: *const f32, pairs: usize, to: *mut u8)),
            store_key: compile!($features, $cached => attention::store_key
                as fn(from: *const f32, pairs: usize, to: *mut u8)),
            store_value: compile!($features, $cached => attention::store_value
                as fn(from: *const f32, dim: usize, to: *mut u8)),
            attend: compile!($features, $cached => attention::attend as fn(tile: &AttendTile)),
            merge: compile!($features, <$cached as Cached>::S => attention::merge
                as fn(total: PartialSoftmax, next: PartialSoftmax, rows: usize, width: usize, scale: f32)),
            finish: compile!($features, <$cached as Cached>::S => attention::finish
                as fn(from: *const f32, sum: f32, to: *mut f32, dim: usize)),
        }
    }};
}

/// The kernel of dense weights that `$dense` multiplies.
macro_rules! dense_kernel {
    ($features:tt, $dense:ty) => {{
        use $crate::kernels::table::compile;
        use $crate::kernels::tile::Tile;
        compile!($features, $dense => $crate::kernels::generic::dense::tile as fn(tile: &Tile))
    }};
}

/// The kernels of every layout of quantised weights, for blocks of codes and for wide ones, with the byte products `$dot`.
macro_rules! quantized_kernels {
    ([$features:literal], $dot:ty) => {{
        use $crate::kernels::generic::{quantized, simd::Proof};
        use $crate::kernels::tile::{Tile, TileKernel};
        use $crate::layout::{Coded, ForLayout, for_each};
        struct Tiles;
        impl ForLayout for Tiles {
            type Result = [TileKernel; 2];
            fn of<C: Coded>() -> [TileKernel; 2] {
                [tile::<C, 1>, tile::<C, 2>]
            }
        }
        /// # Safety
        /// The machine has the features; the tile is what a [`TileKernel`] asks for.
        #[target_feature(enable = $features)]
        unsafe fn tile<C: Coded, const PLANES: usize>(tile: &Tile) {
            // SAFETY: by this function's contract.
            unsafe { quantized::tile::<_, C, PLANES>(<$dot>::assume(), tile) }
        }
        for_each::<Tiles>()
    }};
}

pub(crate) use {cache_kernels, compile, dense_kernel, quantized_kernels, row_kernels};
