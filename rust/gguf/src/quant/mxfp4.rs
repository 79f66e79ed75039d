//! MXFP4: the OCP microscaling format, 4-bit floats (E2M1) with a power of two per 32.
//!
//! <https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf>

use super::bits::{pack_nibbles, unpack_nibbles};
use super::codec::{Block, Encode};

/// Twice what the E2M1 codes stand for, which makes them integers.
pub const MXFP4_VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// A block of 32 elements, each `scale() * MXFP4_VALUES[q]` for its code `q`.
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
    const ELEMENTS: usize = 32;

    fn dequantize(&self, out: &mut [f32]) {
        let scale = self.scale();
        unpack_nibbles(&self.qs, out, |q| scale * MXFP4_VALUES[usize::from(q & 0x0f)] as f32);
    }
}

impl Encode for BlockMXFP4 {
    /// The standard's rule for the exponent leaves magnitudes of up to 8 (in units of the scale) to codes of at most 6.
    /// Where that costs more than a coarser grid would, the next exponent is taken.
    fn quantize(x: &[f32]) -> Option<Self> {
        let most = x.iter().fold(0.0, |most: f32, v| most.max(v.abs()));
        let e = ((most.to_bits() >> 23) as u8).saturating_sub(2);
        let ((fine, fine_error), (coarse, coarse_error)) = (with_exponent(x, e), with_exponent(x, e + 1));
        // Errors are in units of the squared scale. Past 252, values could overflow f32.
        Some(if e < 252 && 4.0 * coarse_error < fine_error { coarse } else { fine })
    }
}

/// The nearest block of a given exponent, and its squared error over the squared scale.
fn with_exponent(x: &[f32], e: u8) -> (BlockMXFP4, f32) {
    let scale = scale(e);
    let code = |i: usize| {
        let v = x[i] / scale;
        let magnitude = MIDDLES.iter().map(|&middle| u8::from(v.abs() > middle)).sum();
        if v < 0.0 && magnitude > 0 { magnitude | 8 } else { magnitude }
    };
    let codes: [u8; 32] = std::array::from_fn(code);
    let error = x.iter().zip(codes).fold(0.0, |sum, (x, q)| {
        let difference = x / scale - MXFP4_VALUES[usize::from(q & 0x0f)] as f32;
        sum + difference * difference
    });
    (BlockMXFP4 { e, qs: pack_nibbles(|i| codes[i]) }, error)
}

/// The middles between neighbouring magnitudes, past which the larger one is nearer.
const MIDDLES: [f32; 7] = [0.5, 1.5, 2.5, 3.5, 5.0, 7.0, 10.0];

/// `2^(e - 128)`, which is a subnormal f32 for `e` below 2.
fn scale(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { u32::from(e - 1) << 23 })
}
