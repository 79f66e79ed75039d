//! IQ3_XXS and IQ3_S: points of a codebook per 4 elements, with signs and a 4-bit scale per 32.

use super::codebook;
use super::codec::Block;
use super::half_le::LeF16;

static XXS_POINTS: [[u8; 4]; 256] =
    codebook::table(include_bytes!("codebooks/iq3_xxs.bin"), [4, 12, 20, 28, 36, 44, 52, 62]);
static S_POINTS: [[u8; 4]; 512] = codebook::table(include_bytes!("codebooks/iq3_s.bin"), [1, 3, 5, 7, 9, 11, 13, 15]);

/// A block of 256 elements, each `d * (scale + 1/2) / 2` times a magnitude of its point, signed, with a scale for each
/// 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockIQ3_XXS {
    /// The scale of the scales.
    pub d: LeF16,
    /// The points' codes.
    pub qs: [u8; 64],
    /// For each 32 elements a little-endian u32: seven bits of signs for each 8 (an eighth makes them even) and the
    /// scale in the upper four.
    pub scales_and_signs: [[u8; 4]; 8],
}

/// A block of 256 elements, each `d * (2 * scale + 1)` times a magnitude of its point, signed, with a scale for each
/// 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockIQ3_S {
    /// The scale of the scales.
    pub d: LeF16,
    /// The low eight bits of each point's code.
    pub qs: [u8; 64],
    /// The ninth bits of eight codes a byte, from its lowest up.
    pub qh: [u8; 8],
    /// The signs of each 8 elements.
    pub signs: [u8; 32],
    /// For each 64 elements, the scale of the first 32 in the low nibble and of the others in the high one.
    pub scales: [u8; 4],
}

impl Block for BlockIQ3_XXS {
    const ELEMENTS: usize = 256;

    fn dequantize(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        for (i, (out, codes)) in out.chunks_exact_mut(8).zip(self.qs.as_chunks::<2>().0).enumerate() {
            let bits = u32::from_le_bytes(self.scales_and_signs[i / 4]);
            let scale = d * (0.5 + (bits >> 28) as f32) * 0.5;
            let signs = codebook::even_signs(bits >> (i % 4 * 7));
            let [first, second] = codes.map(|code| &XXS_POINTS[usize::from(code)]);
            codebook::signed(&mut out[..4], scale, first, signs);
            codebook::signed(&mut out[4..], scale, second, signs >> 4);
        }
    }
}

impl Block for BlockIQ3_S {
    const ELEMENTS: usize = 256;

    fn dequantize(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        for (i, (out, &low)) in out.chunks_exact_mut(4).zip(&self.qs).enumerate() {
            let high = usize::from(self.qh[i / 8] >> (i % 8) & 1);
            let point = &S_POINTS[usize::from(low) | high << 8];
            let scale = d * (1 + 2 * (self.scales[i / 16] >> (i % 16 / 8 * 4) & 0x0f)) as f32;
            codebook::signed(out, scale, point, self.signs[i / 2] >> (i % 2 * 4));
        }
    }
}
