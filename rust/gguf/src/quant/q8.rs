//! Q8_0 and Q8_1: signed bytes and a scale per 32; Q8_K: per 256.
//!
//! ggml stores only activations in Q8_1 and Q8_K. Their sums serve dot products with formats that have a minimum.

use super::codec::{Block, Encode};
use super::half_le::LeF16;
use super::numbers::{extreme, inverse, nearest};

/// A block of 32 elements, each `d * q` for its code `q`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ8_0 {
    /// The scale.
    pub d: LeF16,
    /// The codes, -127 to 127 as written here; a file may hold -128.
    pub qs: [i8; 32],
}

/// A block of 32 elements, each `d * q` for its code `q`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ8_1 {
    /// The scale.
    pub d: LeF16,
    /// `d` times the sum of the codes.
    pub s: LeF16,
    /// The codes.
    pub qs: [i8; 32],
}

/// A block of 256 elements, each `d * q` for its code `q`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ8_K {
    /// The scale, a little-endian f32.
    pub d: [u8; 4],
    /// The codes.
    pub qs: [i8; 256],
    /// For each 16 codes their sum, a little-endian i16.
    pub bsums: [[u8; 2]; 16],
}

impl Block for BlockQ8_0 {
    const ELEMENTS: usize = 32;

    fn dequantize(&self, out: &mut [f32]) {
        scaled(self.d.to_f32(), &self.qs, out);
    }
}

impl Block for BlockQ8_1 {
    const ELEMENTS: usize = 32;

    fn dequantize(&self, out: &mut [f32]) {
        scaled(self.d.to_f32(), &self.qs, out);
    }
}

impl Block for BlockQ8_K {
    const ELEMENTS: usize = 256;

    fn dequantize(&self, out: &mut [f32]) {
        scaled(f32::from_le_bytes(self.d), &self.qs, out);
    }
}

fn scaled(d: f32, qs: &[i8], out: &mut [f32]) {
    for (out, &q) in out.iter_mut().zip(qs) {
        *out = q as f32 * d;
    }
}

impl Encode for BlockQ8_0 {
    fn quantize(x: &[f32]) -> Option<Self> {
        let (d, qs) = rounded(x);
        Some(Self { d: LeF16::finite(d)?, qs })
    }
}

impl Encode for BlockQ8_1 {
    fn quantize(x: &[f32]) -> Option<Self> {
        let (d, qs) = rounded(x);
        let sum: i32 = qs.iter().map(|&q| i32::from(q)).sum();
        Some(Self { d: LeF16::finite(d)?, s: LeF16::finite(sum as f32 * d)?, qs })
    }
}

impl Encode for BlockQ8_K {
    fn quantize(x: &[f32]) -> Option<Self> {
        let extreme = extreme(x);
        if extreme == 0.0 {
            return Some(bytemuck::Zeroable::zeroed());
        }
        // Negative, so that the extreme lands on -127.
        let inverse = -127.0 / extreme;
        let mut qs = [0; 256];
        for (q, v) in qs.iter_mut().zip(x) {
            *q = nearest(inverse * v).min(127.0) as i8;
        }
        let mut bsums = [[0; 2]; 16];
        for (sum, qs) in bsums.iter_mut().zip(qs.as_chunks::<16>().0) {
            *sum = qs.iter().map(|&q| i16::from(q)).sum::<i16>().to_le_bytes();
        }
        let d = 1.0 / inverse;
        (127.0 * d).is_finite().then_some(Self { d: d.to_le_bytes(), qs, bsums })
    }
}

/// The scale that maps the largest magnitude to 127, and the codes.
fn rounded(x: &[f32]) -> (f32, [i8; 32]) {
    let d = x.iter().fold(0.0, |most: f32, v| most.max(v.abs())) / 127.0;
    let id = inverse(d);
    let mut qs = [0; 32];
    for (q, v) in qs.iter_mut().zip(x) {
        *q = (v * id).round() as i8; // halves away from zero, as roundf
    }
    (d, qs)
}
