//! Floats and integers stored one by one. All are read as the nearest f32; floats of any bit pattern are written.

use half::{bf16, f16};

use super::codec::{Codec, DecodeFn, EncodeFn};

pub(crate) const F32: Codec =
    codec::<f32>(|data, out| decode(data, out, f32::from_le_bytes), Some(|x, out| encode(x, out, f32::to_le_bytes)));
pub(crate) const F16: Codec = codec::<f16>(
    |data, out| decode(data, out, |bytes| f16::from_le_bytes(bytes).to_f32()),
    Some(|x, out| encode(x, out, |value| f16::from_f32(value).to_le_bytes())),
);
pub(crate) const BF16: Codec = codec::<bf16>(
    // As ggml: the bits shifted, NaN payloads included.
    |data, out| decode(data, out, |bytes| f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)),
    Some(|x, out| encode(x, out, |value| bf16::from_f32(value).to_le_bytes())),
);
pub(crate) const F64: Codec = codec::<f64>(
    |data, out| decode(data, out, |bytes| f64::from_le_bytes(bytes) as f32),
    Some(|x, out| encode(x, out, |value| f64::from(value).to_le_bytes())),
);
pub(crate) const I8: Codec = codec::<i8>(|data, out| decode(data, out, |bytes| i8::from_le_bytes(bytes) as f32), None);
pub(crate) const I16: Codec =
    codec::<i16>(|data, out| decode(data, out, |bytes| i16::from_le_bytes(bytes) as f32), None);
pub(crate) const I32: Codec =
    codec::<i32>(|data, out| decode(data, out, |bytes| i32::from_le_bytes(bytes) as f32), None);
pub(crate) const I64: Codec =
    codec::<i64>(|data, out| decode(data, out, |bytes| i64::from_le_bytes(bytes) as f32), None);

/// The codec of elements that take as many bytes as a `T`.
const fn codec<T>(decode: DecodeFn, encode: Option<EncodeFn>) -> Codec {
    Codec { block_size: 1, type_size: size_of::<T>(), decode: Some(decode), encode }
}

fn decode<const N: usize>(data: &[u8], out: &mut [f32], value: impl Fn([u8; N]) -> f32) {
    let (values, _) = data.as_chunks();
    for (out, &bytes) in out.iter_mut().zip(values) {
        *out = value(bytes);
    }
}

#[allow(clippy::unnecessary_wraps)] // block formats, whose signature this is, can fail
fn encode<const N: usize>(x: &[f32], out: &mut Vec<u8>, bytes: impl Fn(f32) -> [u8; N]) -> Result<(), usize> {
    out.extend(x.iter().flat_map(|&value| bytes(value)));
    Ok(())
}
