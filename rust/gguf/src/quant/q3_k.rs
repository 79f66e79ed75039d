//! Q3_K: 3-bit codes in super-blocks of 256, with a 6-bit scale per 16.

use super::bits::{crumbs, pack_crumbs};
use super::codec::{Block, Encode};
use super::half_le::LeF16;
use super::numbers::{nearest, widest};
use super::search::{descent, requantize};

/// A block of 256 elements, each `d * scale * (q - 4)` for its code `q` and the scale of its 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ3_K {
    /// The third bits: element `32 * j + l` at bit `j` of byte `l`.
    pub hmask: [u8; 32],
    /// The low two bits: element `128 * n + 32 * j + l` at bit `2 * j` of byte `32 * n + l`.
    pub qs: [u8; 64],
    /// The scales, packed: see [`unpacked_scales`](Self::unpacked_scales).
    pub scales: [u8; 12],
    /// The scale of the scales.
    pub d: LeF16,
}

impl BlockQ3_K {
    /// The scale of each 16 elements, -32 to 31.
    ///
    /// The low nibbles of the first eight bytes are those of scales 0 to 7, the high nibbles those of 8 to 15; byte
    /// `8 + j` holds the upper two bits of scales `j`, `j + 4`, `j + 8` and `j + 12`, from its lowest bits up.
    pub fn unpacked_scales(&self) -> [i8; 16] {
        std::array::from_fn(|j| {
            let low = self.scales[j % 8] >> (j / 8 * 4) & 0x0f;
            let high = self.scales[8 + j % 4] >> (j / 4 * 2) & 3;
            (low | high << 4) as i8 - 32
        })
    }
}

impl Block for BlockQ3_K {
    const ELEMENTS: usize = 256;

    fn dequantize(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        for (group, (out, scale)) in out.chunks_exact_mut(16).zip(self.unpacked_scales()).enumerate() {
            let scale = d * scale as f32;
            let third = self.hmask[group % 2 * 16..].iter().map(|bits| bits >> (group / 2) & 1);
            for ((out, q), third) in out.iter_mut().zip(crumbs(&self.qs, group)).zip(third) {
                *out = scale * ((q | third << 2) as f32 - 4.0);
            }
        }
    }
}

impl Encode for BlockQ3_K {
    fn quantize(x: &[f32]) -> Option<Self> {
        let (groups, _) = x.as_chunks::<16>();
        let (mut fits, mut codes) = ([0.0; 16], [[0; 16]; 16]);
        for ((x, fit), codes) in groups.iter().zip(&mut fits).zip(&mut codes) {
            (*fit, *codes) = descent(x, 4);
        }
        let widest = widest(&fits)?;
        if widest == 0.0 {
            return Some(bytemuck::Zeroable::zeroed());
        }
        let inverse = -32.0 / widest;
        let d = LeF16::finite(1.0 / inverse)?;
        let mut scales = [0; 12];
        for (j, ((x, fit), codes)) in groups.iter().zip(&fits).zip(&mut codes).enumerate() {
            let scale = nearest(inverse * fit).clamp(-32.0, 31.0);
            let bits = (scale + 32.0) as u8;
            scales[j % 8] |= (bits & 0x0f) << (j / 8 * 4);
            scales[8 + j % 4] |= bits >> 4 << (j / 4 * 2);
            requantize(x, 4, d.to_f32() * scale, codes);
        }
        let codes: &[u8; 256] = bytemuck::cast_ref(&codes);
        let hmask = std::array::from_fn(|l| (0..8).fold(0, |bits, j| bits | codes[32 * j + l] >> 2 << j));
        Some(Self { hmask, qs: pack_crumbs(&codes.map(|q| q & 3)), scales, d })
    }
}
