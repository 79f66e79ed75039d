//! IQ2_XXS, IQ2_XS and IQ2_S: points of a codebook per 8 elements, with signs and a 4-bit scale per 32 or 16.

use super::codebook;
use super::codec::Block;
use super::half_le::LeF16;

const MAGNITUDES: [u8; 3] = [8, 25, 43];
static XXS_POINTS: [[u8; 8]; 256] = codebook::table(include_bytes!("codebooks/iq2_xxs.bin"), MAGNITUDES);
static XS_POINTS: [[u8; 8]; 512] = codebook::table(include_bytes!("codebooks/iq2_xs.bin"), MAGNITUDES);
static S_POINTS: [[u8; 8]; 1024] = codebook::table(include_bytes!("codebooks/iq2_s.bin"), MAGNITUDES);

/// A block of 256 elements, each `d * (scale + 1/2) / 4` times a magnitude of its point, signed, with a scale for each
/// 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockIQ2_XXS {
    /// The scale of the scales.
    pub d: LeF16,
    /// For each 32 elements, the codes of four points and a little-endian u32: seven bits of signs for each point
    /// (an eighth makes them even) and the scale in the upper four.
    pub qs: [[u8; 8]; 8],
}

/// A block of 256 elements, each `d * (scale + 1/2) / 4` times a magnitude of its point, signed, with a scale for each
/// 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockIQ2_XS {
    /// The scale of the scales.
    pub d: LeF16,
    /// For each 8 elements a little-endian u16: the code of a point in nine bits, then seven bits of signs (an eighth
    /// makes them even).
    pub qs: [[u8; 2]; 32],
    /// For each 32 elements, the scale of the first 16 in the low nibble and of the others in the high one.
    pub scales: [u8; 8],
}

/// A block of 256 elements, each `d * (scale + 1/2) / 4` times a magnitude of its point, signed, with a scale for each
/// 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockIQ2_S {
    /// The scale of the scales.
    pub d: LeF16,
    /// The low eight bits of each point's code.
    pub qs: [u8; 32],
    /// The signs of each point's elements.
    pub signs: [u8; 32],
    /// The upper two bits of four codes a byte, from its lowest bits up.
    pub qh: [u8; 8],
    /// The scales, laid out as [`BlockIQ2_XS::scales`].
    pub scales: [u8; 8],
}

impl Block for BlockIQ2_XXS {
    const ELEMENTS: usize = 256;

    fn dequantize(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        for (out, &[a, b, c, e, signs @ ..]) in out.chunks_exact_mut(32).zip(&self.qs) {
            let signs = u32::from_le_bytes(signs);
            let scale = scaled(d, (signs >> 28) as u8);
            for (i, (out, code)) in out.chunks_exact_mut(8).zip([a, b, c, e]).enumerate() {
                let point = &XXS_POINTS[usize::from(code)];
                codebook::signed(out, scale, point, codebook::even_signs(signs >> (7 * i)));
            }
        }
    }
}

impl Block for BlockIQ2_XS {
    const ELEMENTS: usize = 256;

    fn dequantize(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        for (i, (out, &code)) in out.chunks_exact_mut(8).zip(&self.qs).enumerate() {
            let code = u16::from_le_bytes(code);
            let point = &XS_POINTS[usize::from(code & 511)];
            let scale = scaled(d, scale_of(self.scales, i));
            codebook::signed(out, scale, point, codebook::even_signs(u32::from(code >> 9)));
        }
    }
}

impl Block for BlockIQ2_S {
    const ELEMENTS: usize = 256;

    fn dequantize(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        for (i, (out, (&low, &signs))) in out.chunks_exact_mut(8).zip(self.qs.iter().zip(&self.signs)).enumerate() {
            let high = usize::from(self.qh[i / 4] >> (i % 4 * 2) & 3);
            let point = &S_POINTS[usize::from(low) | high << 8];
            codebook::signed(out, scaled(d, scale_of(self.scales, i)), point, signs);
        }
    }
}

/// The scale of point `i`; each nibble serves two points.
fn scale_of(scales: [u8; 8], i: usize) -> u8 {
    scales[i / 4] >> (i % 4 / 2 * 4) & 0x0f
}

/// The factor of the magnitudes.
fn scaled(d: f32, scale: u8) -> f32 {
    d * (0.5 + scale as f32) * 0.25
}
