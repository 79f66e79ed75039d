//! Q5_0 and Q5_1: 5-bit codes per 32, with a scale, or with a scale and a minimum.
//!
//! The low four bits lie as in Q4_0. Bit `i` of `qh`, read as a little-endian u32, is the fifth bit of element `i`.

use super::bits::pack_nibbles;
use super::codec::{Block, Encode};
use super::half_le::LeF16;
use super::numbers::{extreme, inverse};

/// A block of 32 elements, each `d * (q - 16)` for its code `q`.
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

/// A block of 32 elements, each `d * q + m` for its code `q`.
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
    const ELEMENTS: usize = 32;

    fn dequantize(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        unpack(self.qh, &self.qs, out, |q| (i32::from(q) - 16) as f32 * d);
    }
}

impl Encode for BlockQ5_0 {
    fn quantize(x: &[f32]) -> Option<Self> {
        let d = extreme(x) / -16.0;
        let id = inverse(d);
        let (qh, qs) = pack(x, |v| v * id + 16.5);
        Some(Self { d: LeF16::finite(d)?, qh, qs })
    }
}

impl Block for BlockQ5_1 {
    const ELEMENTS: usize = 32;

    fn dequantize(&self, out: &mut [f32]) {
        let (d, m) = (self.d.to_f32(), self.m.to_f32());
        unpack(self.qh, &self.qs, out, |q| q as f32 * d + m);
    }
}

impl Encode for BlockQ5_1 {
    fn quantize(x: &[f32]) -> Option<Self> {
        let min = x.iter().copied().fold(f32::MAX, f32::min);
        let max = x.iter().copied().fold(f32::MIN, f32::max);
        let d = (max - min) / 31.0;
        let id = inverse(d);
        let (qh, qs) = pack(x, |v| (v - min) * id + 0.5);
        Some(Self { d: LeF16::finite(d)?, m: LeF16::finite(min)?, qh, qs })
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

/// Packs codes; `code` gives each plus a half, so that cutting off the fraction rounds it.
fn pack(x: &[f32], code: impl Fn(f32) -> f32) -> ([u8; 4], [u8; 16]) {
    let code = |i: usize| (code(x[i]) as u8).min(31);
    let qh = (0..32).fold(0, |bits, i| bits | u32::from(code(i) >> 4) << i);
    (qh.to_le_bytes(), pack_nibbles(|i| code(i) & 0x0f))
}
