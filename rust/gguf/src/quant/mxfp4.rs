//! MXFP4: the OCP microscaling format, 4-bit floats (E2M1) with a power of two per 32.
//!
//! <https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf>

use super::{Block, q4};
use crate::GgmlType;

/// Twice what the E2M1 codes stand for, which makes them integers.
pub const MXFP4_VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// 32 elements: `scale() * MXFP4_VALUES[q]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockMXFP4 {
    /// The shared exponent (E8M0), biased by 127. As in ggml, 255 is 2^128 and no NaN.
    pub e: u8,
    /// The codes, two a byte, as in Q4_0.
    pub qs: [u8; 16],
}

impl BlockMXFP4 {
    /// Half the shared scale, `2^(e - 128)`: the values are doubled.
    pub fn scale(&self) -> f32 {
        scale(self.e)
    }
}

impl Block for BlockMXFP4 {
    const DTYPE: GgmlType = GgmlType::MXFP4;

    fn dequantize(&self, out: &mut [f32]) {
        let scale = self.scale();
        q4::unpack(&self.qs, out, |q| scale * MXFP4_VALUES[usize::from(q & 0x0f)] as f32);
    }
}

/// `2^(e - 128)`, subnormal below 2.
fn scale(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { u32::from(e - 1) << 23 })
}
