//! f32 values to the blocks of any type and back.

use crate::error::Error;
use crate::types::GgmlType;

/// Whether [`dequantize`] can read `dtype`.
pub const fn is_supported(dtype: GgmlType) -> bool {
    dtype.codec().decode.is_some()
}

/// Whether [`quantize`] can write `dtype`.
pub const fn can_quantize(dtype: GgmlType) -> bool {
    dtype.codec().encode.is_some()
}

/// Decodes `data`, whole blocks of `dtype`, into `out`.
///
/// # Errors
/// [`Error::UnsupportedType`]; [`Error::Length`] unless `data` holds exactly `out.len()` elements.
pub fn dequantize(dtype: GgmlType, data: &[u8], out: &mut [f32]) -> Result<(), Error> {
    let decode = dtype.codec().decode.ok_or(Error::UnsupportedType { what: "dequantisation", dtype })?;
    let bytes = checked_bytes(dtype, out.len())?;
    if data.len() != bytes {
        let expected = format!("{bytes} for {} elements", out.len());
        return Err(Error::Length { dtype, what: "data size in bytes", expected, got: data.len() });
    }
    decode(data, out);
    Ok(())
}

/// Appends `x` to `out` as whole blocks of `dtype`, rounded as ggml's reference does.
///
/// # Errors
/// [`Error::UnsupportedType`]; [`Error::Length`] unless `x` is whole blocks; [`Error::Unquantisable`] where a block
/// format meets a value that is not finite or a scale past f16. `out` is then as before.
pub fn quantize(dtype: GgmlType, x: &[f32], out: &mut Vec<u8>) -> Result<(), Error> {
    let encode = dtype.codec().encode.ok_or(Error::UnsupportedType { what: "quantisation", dtype })?;
    let bytes = checked_bytes(dtype, x.len())?;
    out.try_reserve(bytes).map_err(|_| Error::OutOfMemory { what: format!("{dtype} blocks"), bytes })?;
    let before = out.len();
    encode(x, out).map_err(|block| {
        out.truncate(before);
        Error::Unquantisable { dtype, block }
    })
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
