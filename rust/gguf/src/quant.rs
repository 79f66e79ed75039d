//! Scalar quantise and dequantise, one file a family of formats.
//!
//! The layouts and the arithmetic are ggml's reference functions (`ggml-quants.c`), bit for bit: codes times f16 scales
//! widened to f32, each product and sum rounded to f32. Written blocks are ggml's too, byte for byte, but for IQ4_NL and
//! MXFP4, which say how they do better.

mod codebook;
mod dense;
mod half_le;
mod iq1;
mod iq2;
mod iq3;
mod iq4;
mod mxfp4;
mod q2_k;
mod q3_k;
mod q4;
mod q4_k;
mod q5;
mod q6_k;
mod q8;
mod search;
mod ternary;

pub use half_le::LeF16;
pub use iq1::{BlockIQ1_M, BlockIQ1_S};
pub use iq2::{BlockIQ2_S, BlockIQ2_XS, BlockIQ2_XXS};
pub use iq3::{BlockIQ3_S, BlockIQ3_XXS};
pub use iq4::{BlockIQ4_NL, BlockIQ4_XS, IQ4_VALUES};
pub use mxfp4::{BlockMXFP4, MXFP4_VALUES};
pub use q2_k::BlockQ2_K;
pub use q3_k::BlockQ3_K;
pub use q4::{BlockQ4_0, BlockQ4_1};
pub use q4_k::{BlockQ4_K, BlockQ5_K, PackedScales};
pub use q5::{BlockQ5_0, BlockQ5_1};
pub use q6_k::BlockQ6_K;
pub use q8::{BlockQ8_0, BlockQ8_1, BlockQ8_K};
pub use ternary::{BlockTQ1_0, BlockTQ2_0};

use crate::{Error, GgmlType};

/// A block format: a fixed number of elements in a struct of fixed size and no alignment.
trait Block: bytemuck::Pod {
    /// The format's type.
    const DTYPE: GgmlType;

    /// Writes the block's elements to `out`, which holds [`GgmlType::block_size`] of them.
    fn dequantize(&self, out: &mut [f32]);
}

/// A block format that can be written.
trait Encode: Block {
    /// The block nearest to `x`, which holds [`GgmlType::block_size`] finite elements; `None` if a scale overflows.
    fn quantize(x: &[f32]) -> Option<Self>;
}

/// How a type is read and written; element counts and sizes have been checked.
struct Codec {
    decode: Decode,
    encode: Option<EncodeFn>,
}

type Decode = fn(&[u8], &mut [f32]);
type EncodeFn = fn(&[f32], &mut Vec<u8>) -> Result<(), Error>;

impl Codec {
    /// The implementation of `dtype`, if there is one.
    #[allow(clippy::unnecessary_wraps)] // ggml adds types: one may be named in files before it is read
    const fn of(dtype: GgmlType) -> Option<Self> {
        Some(match dtype {
            GgmlType::F32 => Self { decode: dense::from_f32, encode: Some(dense::to_f32) },
            GgmlType::F16 => Self { decode: dense::from_f16, encode: Some(dense::to_f16) },
            GgmlType::Bf16 => Self { decode: dense::from_bf16, encode: Some(dense::to_bf16) },
            GgmlType::Q4_0 => Self::both::<BlockQ4_0>(),
            GgmlType::Q4_1 => Self::both::<BlockQ4_1>(),
            GgmlType::Q5_0 => Self::both::<BlockQ5_0>(),
            GgmlType::Q5_1 => Self::both::<BlockQ5_1>(),
            GgmlType::Q8_0 => Self::both::<BlockQ8_0>(),
            GgmlType::Q8_1 => Self::both::<BlockQ8_1>(),
            GgmlType::Q2_K => Self::both::<BlockQ2_K>(),
            GgmlType::Q3_K => Self::both::<BlockQ3_K>(),
            GgmlType::Q4_K => Self::both::<BlockQ4_K>(),
            GgmlType::Q5_K => Self::both::<BlockQ5_K>(),
            GgmlType::Q6_K => Self::both::<BlockQ6_K>(),
            GgmlType::Q8_K => Self::both::<BlockQ8_K>(),
            GgmlType::IQ4_NL => Self::both::<BlockIQ4_NL>(),
            GgmlType::IQ4_XS => Self::both::<BlockIQ4_XS>(),
            GgmlType::MXFP4 => Self::both::<BlockMXFP4>(),
            GgmlType::IQ2_XXS => Self::reader::<BlockIQ2_XXS>(),
            GgmlType::IQ2_XS => Self::reader::<BlockIQ2_XS>(),
            GgmlType::IQ2_S => Self::reader::<BlockIQ2_S>(),
            GgmlType::IQ3_XXS => Self::reader::<BlockIQ3_XXS>(),
            GgmlType::IQ3_S => Self::reader::<BlockIQ3_S>(),
            GgmlType::IQ1_S => Self::reader::<BlockIQ1_S>(),
            GgmlType::IQ1_M => Self::reader::<BlockIQ1_M>(),
            GgmlType::TQ1_0 => Self::both::<BlockTQ1_0>(),
            GgmlType::TQ2_0 => Self::both::<BlockTQ2_0>(),
            GgmlType::I8 => Self { decode: dense::from_i8, encode: None },
            GgmlType::I16 => Self { decode: dense::from_i16, encode: None },
            GgmlType::I32 => Self { decode: dense::from_i32, encode: None },
            GgmlType::I64 => Self { decode: dense::from_i64, encode: None },
            GgmlType::F64 => Self { decode: dense::from_f64, encode: Some(dense::to_f64) },
        })
    }

    /// A format that is only read.
    const fn reader<B: Block>() -> Self {
        const {
            assert!(size_of::<B>() == B::DTYPE.type_size(), "the block's size is the format's");
            assert!(align_of::<B>() == 1, "a block can be read wherever it lies");
        }
        Self { decode: from_blocks::<B>, encode: None }
    }

    const fn both<B: Encode>() -> Self {
        Self { encode: Some(to_blocks::<B>), ..Self::reader::<B>() }
    }
}

/// Whether [`dequantize`] knows `dtype`.
pub const fn is_supported(dtype: GgmlType) -> bool {
    Codec::of(dtype).is_some()
}

/// Whether [`quantize`] knows `dtype`.
pub const fn can_quantize(dtype: GgmlType) -> bool {
    matches!(Codec::of(dtype), Some(Codec { encode: Some(_), .. }))
}

/// Decodes `data`, whole blocks of `dtype`, into `out`.
///
/// # Errors
/// [`Error::UnsupportedType`]; [`Error::Length`] unless `data` holds exactly `out.len()` elements.
pub fn dequantize(dtype: GgmlType, data: &[u8], out: &mut [f32]) -> Result<(), Error> {
    let codec = Codec::of(dtype).ok_or(Error::UnsupportedType { what: "dequantisation", dtype })?;
    let bytes = checked_bytes(dtype, out.len())?;
    if data.len() != bytes {
        let expected = format!("{bytes} for {} elements", out.len());
        return Err(Error::Length { dtype, what: "data size in bytes", expected, got: data.len() });
    }
    (codec.decode)(data, out);
    Ok(())
}

/// Appends `x` to `out` as whole blocks of `dtype`, rounded as ggml's reference does.
///
/// # Errors
/// [`Error::UnsupportedType`]; [`Error::Length`] unless `x` is whole blocks; [`Error::Unquantisable`] where a block
/// format meets a value that is not finite or a scale past f16. `out` is then as before.
pub fn quantize(dtype: GgmlType, x: &[f32], out: &mut Vec<u8>) -> Result<(), Error> {
    let encode = Codec::of(dtype).and_then(|codec| codec.encode);
    let encode = encode.ok_or(Error::UnsupportedType { what: "quantisation", dtype })?;
    let bytes = checked_bytes(dtype, x.len())?;
    out.try_reserve(bytes).map_err(|_| Error::OutOfMemory { what: format!("{dtype} blocks"), bytes })?;
    let before = out.len();
    encode(x, out).inspect_err(|_| out.truncate(before))
}

/// The bytes of `elements` elements, which must be whole blocks.
fn checked_bytes(dtype: GgmlType, elements: usize) -> Result<usize, Error> {
    dtype.bytes_for(elements).ok_or_else(|| Error::Length {
        dtype,
        what: "element count",
        expected: format!("a multiple of {}", dtype.block_size()),
        got: elements,
    })
}

fn from_blocks<B: Block>(data: &[u8], out: &mut [f32]) {
    let blocks = data.chunks_exact(size_of::<B>()).map(bytemuck::from_bytes::<B>);
    for (block, out) in blocks.zip(out.chunks_exact_mut(B::DTYPE.block_size())) {
        block.dequantize(out);
    }
}

fn to_blocks<B: Encode>(x: &[f32], out: &mut Vec<u8>) -> Result<(), Error> {
    for (block, x) in x.chunks_exact(B::DTYPE.block_size()).enumerate() {
        let finite = x.iter().all(|v| v.is_finite());
        let encoded = finite.then(|| B::quantize(x)).flatten();
        let encoded = encoded.ok_or(Error::Unquantisable { dtype: B::DTYPE, block })?;
        out.extend_from_slice(bytemuck::bytes_of(&encoded));
    }
    Ok(())
}

/// `1 / d`, or 0 where the block is all zeros.
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// Group `group` of 16 two-bit fields of a super-block: element `128 * n + 32 * j + l` lies at bit `2 * j` of byte
/// `32 * n + l`.
fn crumbs(fields: &[u8; 64], group: usize) -> impl Iterator<Item = u8> {
    let shift = group % 8 / 2 * 2;
    fields[group / 8 * 32 + group % 2 * 16..][..16].iter().map(move |byte| byte >> shift & 3)
}

/// The inverse of [`crumbs`], for all groups.
fn pack_crumbs(fields: &[u8; 256]) -> [u8; 64] {
    std::array::from_fn(|byte| {
        let at = byte / 32 * 128 + byte % 32;
        fields[at] | fields[at + 32] << 2 | fields[at + 64] << 4 | fields[at + 96] << 6
    })
}
