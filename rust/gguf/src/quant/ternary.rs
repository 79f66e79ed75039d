//! TQ1_0 and TQ2_0: -1, 0 or 1 times a scale per 256, for models trained ternary (BitNet b1.58, TriLM).

use super::bits::{crumbs, pack_crumbs};
use super::codec::{Block, Encode};
use super::half_le::LeF16;
use super::numbers::inverse;

/// A block of 256 elements, each `d * (q - 1)` for its code `q`, five codes a byte.
///
/// A byte is the fraction `0.abcde` in base 3, in units of 1/256 and rounded up: multiplying it by 3 pushes digit
/// after digit past the byte, without a division.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockTQ1_0 {
    /// Digit `n` of byte `m` is element `32 * n + m` for the first 32 bytes and `160 + 16 * n + m - 32` for the rest.
    pub qs: [u8; 48],
    /// Digit `n` of byte `m` is element `240 + 4 * n + m`; the fifth digit is unused.
    pub qh: [u8; 4],
    /// The scale.
    pub d: LeF16,
}

/// A block of 256 elements, each `d * (q - 1)` for its code `q`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockTQ2_0 {
    /// The codes: element `128 * n + 32 * j + l` at bit `2 * j` of byte `32 * n + l`.
    pub qs: [u8; 64],
    /// The scale.
    pub d: LeF16,
}

impl Block for BlockTQ1_0 {
    const ELEMENTS: usize = 256;

    fn dequantize(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        let (first, rest) = out.split_at_mut(160);
        let (second, third) = rest.split_at_mut(80);
        for (bytes, out) in [(&self.qs[..32], first), (&self.qs[32..], second), (&self.qh[..], third)] {
            for (out, power) in out.chunks_exact_mut(bytes.len()).zip([1u8, 3, 9, 27, 81]) {
                for (out, byte) in out.iter_mut().zip(bytes) {
                    let digit = (u16::from(byte.wrapping_mul(power)) * 3) >> 8;
                    *out = d * (digit as f32 - 1.0);
                }
            }
        }
    }
}

impl Block for BlockTQ2_0 {
    const ELEMENTS: usize = 256;

    fn dequantize(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        for (group, out) in out.chunks_exact_mut(16).enumerate() {
            for (out, q) in out.iter_mut().zip(crumbs(&self.qs, group)) {
                *out = d * (q as f32 - 1.0);
            }
        }
    }
}

impl Encode for BlockTQ1_0 {
    fn quantize(x: &[f32]) -> Option<Self> {
        let (d, digits) = digits(x);
        // Five digits as a fraction in base 3, rounded up to a multiple of 1/256.
        let byte = |digits: [u8; 5]| {
            let number = digits.iter().fold(0, |number, &digit| 3 * number + u16::from(digit));
            (number * 256).div_ceil(243) as u8
        };
        let qs = std::array::from_fn(|m| {
            let (first, stride) = if m < 32 { (m, 32) } else { (128 + m, 16) };
            byte(std::array::from_fn(|n| digits[first + n * stride]))
        });
        let qh =
            std::array::from_fn(|m| byte(std::array::from_fn(|n| if n < 4 { digits[240 + 4 * n + m] } else { 0 })));
        Some(Self { qs, qh, d: LeF16::finite(d)? })
    }
}

impl Encode for BlockTQ2_0 {
    fn quantize(x: &[f32]) -> Option<Self> {
        let (d, digits) = digits(x);
        Some(Self { qs: pack_crumbs(&digits), d: LeF16::finite(d)? })
    }
}

/// The scale, which is the largest magnitude `d`, and the codes: 0, 1 or 2 for an element nearest to `-d`, 0 or `d`.
fn digits(x: &[f32]) -> (f32, [u8; 256]) {
    let d = x.iter().fold(0.0, |most: f32, v| most.max(v.abs()));
    let id = inverse(d);
    (d, std::array::from_fn(|i| 1 + u8::from(x[i] * id >= 0.5) - u8::from(x[i] * id <= -0.5)))
}
