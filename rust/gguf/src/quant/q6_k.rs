//! Q6_K: 6-bit codes in super-blocks of 256, with an 8-bit scale per 16.

use super::bits::{crumbs, pack_crumbs};
use super::codec::{Block, Encode};
use super::half_le::LeF16;
use super::numbers::{NEGLIGIBLE, nearest, widest};
use super::search::{requantize, symmetric};

/// A block of 256 elements, each `d * scale * (q - 32)` for its code `q` and the scale of its 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ6_K {
    /// The low four bits: of byte `64 * n + l`, `l < 64`, element `128 * n + l` in the low nibble and
    /// `128 * n + 64 + l` in the high one.
    pub ql: [u8; 128],
    /// The upper two bits: element `128 * n + 32 * j + l` at bit `2 * j` of byte `32 * n + l`.
    pub qh: [u8; 64],
    /// A scale for each 16 elements.
    pub scales: [i8; 16],
    /// The scale of the scales.
    pub d: LeF16,
}

impl Block for BlockQ6_K {
    const ELEMENTS: usize = 256;

    fn dequantize(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        for (group, (out, &scale)) in out.chunks_exact_mut(16).zip(&self.scales).enumerate() {
            let scale = d * scale as f32;
            let ql = self.ql[group / 8 * 64 + group % 4 * 16..].iter().map(|byte| byte >> (group % 8 / 4 * 4) & 0x0f);
            for ((out, low), high) in out.iter_mut().zip(ql).zip(crumbs(&self.qh, group)) {
                *out = scale * ((low | high << 4) as f32 - 32.0);
            }
        }
    }
}

impl Encode for BlockQ6_K {
    fn quantize(x: &[f32]) -> Option<Self> {
        let (groups, _) = x.as_chunks::<16>();
        let (mut fits, mut codes) = ([0.0; 16], [[0; 16]; 16]);
        for ((x, fit), codes) in groups.iter().zip(&mut fits).zip(&mut codes) {
            (*fit, *codes) = symmetric(x, 32);
        }
        let widest = widest(&fits)?;
        if widest.abs() < NEGLIGIBLE {
            return Some(bytemuck::Zeroable::zeroed());
        }
        let inverse = -128.0 / widest;
        let d = LeF16::finite(1.0 / inverse)?;
        let scales = fits.map(|fit| nearest(inverse * fit).min(127.0) as i8);
        for ((x, &scale), codes) in groups.iter().zip(&scales).zip(&mut codes) {
            requantize(x, 32, d.to_f32() * scale as f32, codes);
        }
        let codes: &[u8; 256] = bytemuck::cast_ref(&codes);
        let ql = std::array::from_fn(|byte| {
            let at = byte / 64 * 128 + byte % 64;
            codes[at] & 0x0f | codes[at + 64] << 4
        });
        Some(Self { ql, qh: pack_crumbs(&codes.map(|q| q >> 4)), scales, d })
    }
}
