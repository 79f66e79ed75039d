//! Q5_0 and Q5_1: 5-bit codes per 32, with a scale, or with a scale and a minimum.
//!
//! Low four bits lie as in Q4_0; bit `i` of `qh`, read as a little-endian u32, is the fifth bit of element `i`.

use super::{Block, LeF16};
use crate::GgmlType;

/// 32 elements: `d * (q - 16)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ5_0 {
    /// The scale; negative where the largest magnitude is positive, so that it lands on code 0.
    pub d: LeF16,
    /// The fifth bits, element `i` at bit `i`.
    pub qh: [u8; 4],
    /// The low four bits, two elements a byte.
    pub qs: [u8; 16],
}

/// 32 elements: `d * q + m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ5_1 {
    /// The scale.
    pub d: LeF16,
    /// The minimum.
    pub m: LeF16,
    /// The fifth bits, element `i` at bit `i`.
    pub qh: [u8; 4],
    /// The low four bits, two elements a byte.
    pub qs: [u8; 16],
}

impl Block for BlockQ5_0 {
    const DTYPE: GgmlType = GgmlType::Q5_0;

    fn dequantize(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        unpack(self.qh, &self.qs, out, |q| (i32::from(q) - 16) as f32 * d);
    }
}

impl Block for BlockQ5_1 {
    const DTYPE: GgmlType = GgmlType::Q5_1;

    fn dequantize(&self, out: &mut [f32]) {
        let (d, m) = (self.d.to_f32(), self.m.to_f32());
        unpack(self.qh, &self.qs, out, |q| q as f32 * d + m);
    }
}

fn unpack(qh: [u8; 4], qs: &[u8; 16], out: &mut [f32], value: impl Fn(u8) -> f32) {
    let qh = u32::from_le_bytes(qh);
    let fifth = |i: usize| ((qh >> i & 1) << 4) as u8;
    let (low, high) = out.split_at_mut(16);
    for (i, ((low, high), &byte)) in low.iter_mut().zip(high).zip(qs).enumerate() {
        *low = value(byte & 0x0f | fifth(i));
        *high = value(byte >> 4 | fifth(i + 16));
    }
}
