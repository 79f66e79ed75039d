//! Q2_K: 2-bit codes in super-blocks of 256, with a 4-bit scale and minimum per 16.

use super::bits::{crumbs, pack_crumbs};
use super::codec::{Block, Encode};
use super::half_le::LeF16;
use super::search::{Grid, affine, multiples};

/// A block of 256 elements, each `d * scale * q - dmin * min` for its code `q` and the scale and minimum of its 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ2_K {
    /// A byte for each 16 elements: the scale in the low nibble, the minimum in the high one.
    pub scales: [u8; 16],
    /// The codes: element `128 * n + 32 * j + l` at bit `2 * j` of byte `32 * n + l`.
    pub qs: [u8; 64],
    /// The scale of the scales.
    pub d: LeF16,
    /// The scale of the minimums.
    pub dmin: LeF16,
}

impl Block for BlockQ2_K {
    const ELEMENTS: usize = 256;

    fn dequantize(&self, out: &mut [f32]) {
        let (d, dmin) = (self.d.to_f32(), self.dmin.to_f32());
        for (group, (out, &scale)) in out.chunks_exact_mut(16).zip(&self.scales).enumerate() {
            let (scale, min) = (d * (scale & 0x0f) as f32, dmin * (scale >> 4) as f32);
            for (out, q) in out.iter_mut().zip(crumbs(&self.qs, group)) {
                *out = scale * q as f32 - min;
            }
        }
    }
}

impl Encode for BlockQ2_K {
    fn quantize(x: &[f32]) -> Option<Self> {
        const GRID: Grid = Grid { largest: 3, candidates: 16, first: -0.5 };
        let groups = x.as_chunks().0.first_chunk::<16>()?;
        // Absolute differences: with four codes, squares would let outliers rule the group.
        let (fits, mins, mut codes) = affine(groups, |x: &[f32; 16]| x.map(f32::abs), GRID, f32::abs);
        let (d, fits) = multiples(&fits, 15)?;
        let (dmin, mins) = multiples(&mins, 15)?;
        for (j, (x, codes)) in groups.iter().zip(&mut codes).enumerate() {
            GRID.requantize(x, d.to_f32() * fits[j] as f32, dmin.to_f32() * mins[j] as f32, codes);
        }
        let scales = std::array::from_fn(|j| fits[j] | mins[j] << 4);
        Some(Self { scales, qs: pack_crumbs(bytemuck::cast_ref(&codes)), d, dmin })
    }
}
