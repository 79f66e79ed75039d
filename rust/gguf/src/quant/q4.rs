//! Q4_0 and Q4_1: nibbles per 32, with a scale, or with a scale and a minimum.
//!
//! Byte `i` of a block holds element `i` in its low nibble and element `i + 16` in its high one.

use super::bits::{pack_nibbles, unpack_nibbles};
use super::codec::{Block, Encode};
use super::half_le::LeF16;
use super::numbers::{extreme, inverse};

/// A block of 32 elements, each `d * (q - 8)` for its code `q`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ4_0 {
    /// The scale; negative where the largest magnitude is positive, so that it lands on code 0.
    pub d: LeF16,
    /// The codes, two a byte.
    pub qs: [u8; 16],
}

/// A block of 32 elements, each `d * q + m` for its code `q`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ4_1 {
    /// The scale.
    pub d: LeF16,
    /// The minimum.
    pub m: LeF16,
    /// The codes, two a byte.
    pub qs: [u8; 16],
}

impl Block for BlockQ4_0 {
    const ELEMENTS: usize = 32;

    fn dequantize(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        unpack_nibbles(&self.qs, out, |q| (i32::from(q) - 8) as f32 * d);
    }
}

impl Encode for BlockQ4_0 {
    fn quantize(x: &[f32]) -> Option<Self> {
        let d = extreme(x) / -8.0;
        let id = inverse(d);
        Some(Self { d: LeF16::finite(d)?, qs: pack(x, |v| v * id + 8.5) })
    }
}

impl Block for BlockQ4_1 {
    const ELEMENTS: usize = 32;

    fn dequantize(&self, out: &mut [f32]) {
        let (d, m) = (self.d.to_f32(), self.m.to_f32());
        unpack_nibbles(&self.qs, out, |q| q as f32 * d + m);
    }
}

impl Encode for BlockQ4_1 {
    fn quantize(x: &[f32]) -> Option<Self> {
        let min = x.iter().copied().fold(f32::MAX, f32::min);
        let max = x.iter().copied().fold(f32::MIN, f32::max);
        let d = (max - min) / 15.0;
        let id = inverse(d);
        Some(Self { d: LeF16::finite(d)?, m: LeF16::finite(min)?, qs: pack(x, |v| (v - min) * id + 0.5) })
    }
}

/// Packs codes; `code` gives each plus a half, so that cutting off the fraction rounds it.
fn pack(x: &[f32], code: impl Fn(f32) -> f32) -> [u8; 16] {
    pack_nibbles(|i| (code(x[i]) as u8).min(15))
}
