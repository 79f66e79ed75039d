//! IQ4_NL and IQ4_XS: 4-bit codes that choose from sixteen unevenly spaced values.

use super::{Block, LeF16, q4};
use crate::GgmlType;

/// What the codes of IQ4_NL and IQ4_XS stand for: denser near zero, as weights are.
pub const IQ4_VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// 32 elements: `d * IQ4_VALUES[q]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockIQ4_NL {
    /// The scale.
    pub d: LeF16,
    /// The codes, two a byte, as in Q4_0.
    pub qs: [u8; 16],
}

/// 256 elements: `d * scale * IQ4_VALUES[q]`, scale of each 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockIQ4_XS {
    /// The scale of the scales.
    pub d: LeF16,
    /// The upper two bits of scale `j` at bit `2 * j`, little-endian.
    pub scales_h: [u8; 2],
    /// The low four bits of scale `2 * j` in the low nibble of byte `j`, of `2 * j + 1` in the high one.
    pub scales_l: [u8; 4],
    /// The codes: 16 bytes, as in Q4_0, for each 32.
    pub qs: [[u8; 16]; 8],
}

impl BlockIQ4_XS {
    /// The scales of the groups of 32, -32 to 31.
    pub fn unpacked_scales(&self) -> [i8; 8] {
        let high = u16::from_le_bytes(self.scales_h);
        std::array::from_fn(|j| {
            let low = self.scales_l[j / 2] >> (j % 2 * 4) & 0x0f;
            (low | ((high >> (2 * j) & 3) << 4) as u8) as i8 - 32
        })
    }
}

impl Block for BlockIQ4_NL {
    const DTYPE: GgmlType = GgmlType::IQ4_NL;

    fn dequantize(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        q4::unpack(&self.qs, out, |q| d * value(q));
    }
}

impl Block for BlockIQ4_XS {
    const DTYPE: GgmlType = GgmlType::IQ4_XS;

    fn dequantize(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        for ((out, qs), scale) in out.chunks_exact_mut(32).zip(&self.qs).zip(self.unpacked_scales()) {
            let scale = d * scale as f32;
            q4::unpack(qs, out, |q| scale * value(q));
        }
    }
}

fn value(q: u8) -> f32 {
    IQ4_VALUES[usize::from(q & 0x0f)] as f32
}
