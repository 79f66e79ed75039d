//! Scalar quantise and dequantise, one file a family of formats.
//!
//! The layouts and the arithmetic are ggml's reference functions (`ggml-quants.c`), bit for bit: codes times f16 scales
//! widened to f32, each product and sum rounded to f32.

mod dense;
mod half_le;
mod q4;
mod q8;

pub use half_le::LeF16;
pub use q4::{BlockQ4_0, BlockQ4_1};
pub use q8::BlockQ8_0;

use crate::{Error, GgmlType};

/// A block format: a fixed number of elements in a struct of fixed size and no alignment.
trait Block: bytemuck::Pod {
    /// The format's type.
    const DTYPE: GgmlType;

    /// Writes the block's elements to `out`, which holds [`GgmlType::block_size`] of them.
    fn dequantize(&self, out: &mut [f32]);

    /// The block nearest to `x`, which holds [`GgmlType::block_size`] finite elements; `None` if a scale overflows.
    fn quantize(x: &[f32]) -> Option<Self>;
}

/// How a type is read and written; element counts and sizes have been checked.
struct Codec {
    decode: fn(&[u8], &mut [f32]),
    encode: fn(&[f32], &mut Vec<u8>) -> Result<(), Error>,
}

impl Codec {
    /// The implementation of `dtype`, if there is one.
    const fn of(dtype: GgmlType) -> Option<Self> {
        Some(match dtype {
            GgmlType::F32 => Self { decode: dense::from_f32, encode: dense::to_f32 },
            GgmlType::F16 => Self { decode: dense::from_f16, encode: dense::to_f16 },
            GgmlType::Bf16 => Self { decode: dense::from_bf16, encode: dense::to_bf16 },
            GgmlType::Q8_0 => Self::blocks::<BlockQ8_0>(),
            GgmlType::Q4_0 => Self::blocks::<BlockQ4_0>(),
            GgmlType::Q4_1 => Self::blocks::<BlockQ4_1>(),
            _ => return None,
        })
    }

    const fn blocks<B: Block>() -> Self {
        Self { decode: from_blocks::<B>, encode: to_blocks::<B> }
    }
}

/// Whether [`dequantize`] and [`quantize`] know `dtype`.
pub const fn is_supported(dtype: GgmlType) -> bool {
    Codec::of(dtype).is_some()
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
    let codec = Codec::of(dtype).ok_or(Error::UnsupportedType { what: "quantisation", dtype })?;
    let bytes = checked_bytes(dtype, x.len())?;
    out.try_reserve(bytes).map_err(|_| Error::OutOfMemory { what: format!("{dtype} blocks"), bytes })?;
    let before = out.len();
    (codec.encode)(x, out).inspect_err(|_| out.truncate(before))
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

fn to_blocks<B: Block>(x: &[f32], out: &mut Vec<u8>) -> Result<(), Error> {
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
