//! Q4_K and Q5_K: 4- and 5-bit codes in super-blocks of 256, with a 6-bit scale and minimum per 32.

use super::codec::{Block, Encode};
use super::half_le::LeF16;
use super::search::{Grid, affine, multiples};

/// A block of 256 elements, each `d * scale * q - dmin * min` for its code `q` and the scale and minimum of its 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ4_K {
    /// The scale of the scales.
    pub d: LeF16,
    /// The scale of the minimums.
    pub dmin: LeF16,
    /// For each 32 elements a scale and a minimum.
    pub scales: PackedScales,
    /// The codes: element `64 * n + l` in the low nibble of byte `32 * n + l`, `64 * n + 32 + l` in the high one.
    pub qs: [u8; 128],
}

/// A block of 256 elements, each `d * scale * q - dmin * min` for its code `q` and the scale and minimum of its 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ5_K {
    /// The scale of the scales.
    pub d: LeF16,
    /// The scale of the minimums.
    pub dmin: LeF16,
    /// For each 32 elements a scale and a minimum.
    pub scales: PackedScales,
    /// The fifth bits: element `32 * j + l` at bit `j` of byte `l`.
    pub qh: [u8; 32],
    /// The low four bits, as [`BlockQ4_K::qs`].
    pub qs: [u8; 128],
}

/// Eight scales and eight minimums of six bits each in twelve bytes.
///
/// The low six bits of byte `j` are scale `j`, those of byte `4 + j` minimum `j`, for `j < 4`. Byte `8 + j` holds the
/// low nibbles of scale `4 + j` and, above it, of minimum `4 + j`, whose upper two bits are those of bytes `j` and
/// `4 + j`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct PackedScales(pub [u8; 12]);

impl PackedScales {
    /// The eight scales and the eight minimums, each 0 to 63.
    pub fn unpack(&self) -> ([u8; 8], [u8; 8]) {
        let Self(bytes) = self;
        let at = |first: usize, j: usize, nibble: usize| {
            if j < 4 { bytes[first + j] & 0x3f } else { bytes[4 + j] >> nibble & 0x0f | bytes[first + j - 4] >> 6 << 4 }
        };
        (std::array::from_fn(|j| at(0, j, 0)), std::array::from_fn(|j| at(4, j, 4)))
    }

    /// Packs scales and minimums of 0 to 63.
    fn pack(scales: [u8; 8], mins: [u8; 8]) -> Self {
        let upper = |six_bits: u8| six_bits >> 4 << 6;
        let mut bytes = [0; 12];
        for j in 0..4 {
            bytes[j] = scales[j] | upper(scales[4 + j]);
            bytes[4 + j] = mins[j] | upper(mins[4 + j]);
            bytes[8 + j] = scales[4 + j] & 0x0f | mins[4 + j] << 4;
        }
        Self(bytes)
    }
}

impl Block for BlockQ4_K {
    const ELEMENTS: usize = 256;

    fn dequantize(&self, out: &mut [f32]) {
        let (d, dmin) = (self.d.to_f32(), self.dmin.to_f32());
        let (scales, mins) = self.scales.unpack();
        for (j, out) in out.chunks_exact_mut(32).enumerate() {
            let (scale, min) = (d * scales[j] as f32, dmin * mins[j] as f32);
            for (out, q) in out.iter_mut().zip(low_bits(&self.qs, j)) {
                *out = scale * q as f32 - min;
            }
        }
    }
}

impl Block for BlockQ5_K {
    const ELEMENTS: usize = 256;

    fn dequantize(&self, out: &mut [f32]) {
        let (d, dmin) = (self.d.to_f32(), self.dmin.to_f32());
        let (scales, mins) = self.scales.unpack();
        for (j, out) in out.chunks_exact_mut(32).enumerate() {
            let (scale, min) = (d * scales[j] as f32, dmin * mins[j] as f32);
            for ((out, q), bits) in out.iter_mut().zip(low_bits(&self.qs, j)).zip(&self.qh) {
                *out = scale * (q | (bits >> j & 1) << 4) as f32 - min;
            }
        }
    }
}

impl Encode for BlockQ4_K {
    fn quantize(x: &[f32]) -> Option<Self> {
        let (d, dmin, scales, codes) = super_block(x, Grid { largest: 15, candidates: 21, first: -1.0 })?;
        Some(Self { d, dmin, scales, qs: pack_low_bits(&codes) })
    }
}

impl Encode for BlockQ5_K {
    fn quantize(x: &[f32]) -> Option<Self> {
        let (d, dmin, scales, codes) = super_block(x, Grid { largest: 31, candidates: 16, first: -0.5 })?;
        let qh = std::array::from_fn(|l| (0..8).fold(0, |bits, j| bits | codes[j][l] >> 4 << j));
        Some(Self { d, dmin, scales, qh, qs: pack_low_bits(&codes) })
    }
}

/// Quantises 256 elements to what Q4_K and Q5_K store: `d`, `dmin`, the packed scales and minimums, and the codes of
/// each 32 elements.
fn super_block(x: &[f32], grid: Grid) -> Option<(LeF16, LeF16, PackedScales, [[u8; 32]; 8])> {
    let groups = x.as_chunks().0.first_chunk::<8>()?;
    let weights = |x: &[f32; 32]| {
        let root_mean_square = (x.iter().fold(0.0, |sum, x| sum + x * x) / 32.0).sqrt();
        x.map(|x| root_mean_square + x.abs())
    };
    let (fits, mins, mut codes) = affine(groups, weights, grid, |difference| difference * difference);
    let (d, fits) = multiples(&fits, 63)?;
    let (dmin, mins) = multiples(&mins, 63)?;
    for (j, (x, codes)) in groups.iter().zip(&mut codes).enumerate() {
        grid.requantize(x, d.to_f32() * fits[j] as f32, dmin.to_f32() * mins[j] as f32, codes);
    }
    Some((d, dmin, PackedScales::pack(fits, mins), codes))
}

/// Packs the low four bits of all codes as [`low_bits`] finds them.
fn pack_low_bits(codes: &[[u8; 32]; 8]) -> [u8; 128] {
    std::array::from_fn(|byte| {
        let (pair, l) = (byte / 32 * 2, byte % 32);
        codes[pair][l] & 0x0f | codes[pair + 1][l] << 4
    })
}

/// The low four bits of the elements of group `j` of 32.
fn low_bits(qs: &[u8; 128], j: usize) -> impl Iterator<Item = u8> {
    qs[j / 2 * 32..][..32].iter().map(move |byte| byte >> (j % 2 * 4) & 0x0f)
}
