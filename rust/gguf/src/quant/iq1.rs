//! IQ1_S and IQ1_M: ternary points of a codebook per 8 elements, shifted by an eighth up or down, with a 3-bit scale
//! per 32 or 16.

use super::codebook;
use super::codec::Block;
use super::half_le::LeF16;

static POINTS: [[i8; 8]; 2048] = codebook::table(include_bytes!("codebooks/iq1_s.bin"), [-1, 0, 1]);

/// A block of 256 elements, each `d * (2 * scale + 1)` times its point's coordinate plus or minus 1/8, with a scale for
/// each 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockIQ1_S {
    /// The scale of the scales.
    pub d: LeF16,
    /// The low eight bits of each point's code.
    pub qs: [u8; 32],
    /// For each 32 elements a little-endian u16: the upper three bits of four codes from the lowest up, the scale in
    /// bits 12 to 14 and whether the shift is down in bit 15.
    pub qh: [[u8; 2]; 8],
}

/// A block of 256 elements, each `d * (2 * scale + 1)` times its point's coordinate plus or minus 1/8, with a scale for
/// each 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockIQ1_M {
    /// The low eight bits of each point's code.
    pub qs: [u8; 32],
    /// For each point, in a nibble: the upper three bits of its code and, above, whether its shift is down.
    pub qh: [u8; 16],
    /// Four little-endian u16: the scales of four groups of 16 from the lowest bits up, three bits each, and in the
    /// upper four bits a nibble of [`d`](Self::d), the lowest first.
    pub scales: [[u8; 2]; 4],
}

impl BlockIQ1_M {
    /// The scale of the scales.
    pub fn d(&self) -> LeF16 {
        let nibbles = self.scales.iter().rev().map(|&bytes| u16::from_le_bytes(bytes) >> 12);
        LeF16(nibbles.fold(0, |bits, nibble| bits << 4 | nibble).to_le_bytes())
    }
}

impl Block for BlockIQ1_S {
    const ELEMENTS: usize = 256;

    fn dequantize(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        for (i, (out, &low)) in out.chunks_exact_mut(8).zip(&self.qs).enumerate() {
            let bits = u16::from_le_bytes(self.qh[i / 4]);
            let scale = d * (2 * (bits >> 12 & 7) + 1) as f32;
            shifted(out, scale, low, (bits >> (i % 4 * 3) & 7).into(), bits >> 15 == 1);
        }
    }
}

impl Block for BlockIQ1_M {
    const ELEMENTS: usize = 256;

    fn dequantize(&self, out: &mut [f32]) {
        let d = self.d().to_f32();
        for (i, (out, &low)) in out.chunks_exact_mut(8).zip(&self.qs).enumerate() {
            let scale = u16::from_le_bytes(self.scales[i / 8]) >> (i % 8 / 2 * 3) & 7;
            let nibble = self.qh[i / 2] >> (i % 2 * 4);
            shifted(out, d * (2 * scale + 1) as f32, low, (nibble & 7).into(), nibble & 8 == 8);
        }
    }
}

/// Writes the eight coordinates of the point with the code `low + 256 * high`, each shifted and scaled.
fn shifted(out: &mut [f32], scale: f32, low: u8, high: usize, down: bool) {
    let shift = if down { -0.125 } else { 0.125 };
    for (out, &coordinate) in out.iter_mut().zip(&POINTS[usize::from(low) | high << 8]) {
        *out = scale * (coordinate as f32 + shift);
    }
}
