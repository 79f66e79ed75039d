//! Floats of any bit pattern and integers: one value an element. Integers and F64 are read as the nearest f32.

#![allow(clippy::unnecessary_wraps)] // encoders share the signature of the block formats', which can fail

use half::{bf16, f16};

use crate::Error;

pub(super) fn from_f32(data: &[u8], out: &mut [f32]) {
    decode(data, out, f32::from_le_bytes);
}

pub(super) fn from_f16(data: &[u8], out: &mut [f32]) {
    decode(data, out, |bytes| f16::from_le_bytes(bytes).to_f32());
}

pub(super) fn from_bf16(data: &[u8], out: &mut [f32]) {
    // As ggml: the bits shifted, NaN payloads included.
    decode(data, out, |bytes| f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16));
}

pub(super) fn from_f64(data: &[u8], out: &mut [f32]) {
    decode(data, out, |bytes| f64::from_le_bytes(bytes) as f32);
}

pub(super) fn from_i8(data: &[u8], out: &mut [f32]) {
    decode(data, out, |bytes| i8::from_le_bytes(bytes) as f32);
}

pub(super) fn from_i16(data: &[u8], out: &mut [f32]) {
    decode(data, out, |bytes| i16::from_le_bytes(bytes) as f32);
}

pub(super) fn from_i32(data: &[u8], out: &mut [f32]) {
    decode(data, out, |bytes| i32::from_le_bytes(bytes) as f32);
}

pub(super) fn from_i64(data: &[u8], out: &mut [f32]) {
    decode(data, out, |bytes| i64::from_le_bytes(bytes) as f32);
}

pub(super) fn to_f32(x: &[f32], out: &mut Vec<u8>) -> Result<(), Error> {
    out.extend(x.iter().flat_map(|value| value.to_le_bytes()));
    Ok(())
}

pub(super) fn to_f16(x: &[f32], out: &mut Vec<u8>) -> Result<(), Error> {
    out.extend(x.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()));
    Ok(())
}

pub(super) fn to_bf16(x: &[f32], out: &mut Vec<u8>) -> Result<(), Error> {
    out.extend(x.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()));
    Ok(())
}

pub(super) fn to_f64(x: &[f32], out: &mut Vec<u8>) -> Result<(), Error> {
    out.extend(x.iter().flat_map(|&value| f64::from(value).to_le_bytes()));
    Ok(())
}

fn decode<const N: usize>(data: &[u8], out: &mut [f32], value: impl Fn([u8; N]) -> f32) {
    let (values, _) = data.as_chunks();
    for (out, &bytes) in out.iter_mut().zip(values) {
        *out = value(bytes);
    }
}
