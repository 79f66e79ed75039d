//! Readers of types with fewer than four bits: those whose codes choose points of a codebook, and ternary ones.
//!
//! A point's coordinates are few small integers, so a table of them and the type's own scales hold the weights exactly, in 3.6
//! or 4.3 bits each: less than any type they could be re-quantised to without loss, and no codebook is looked up in the kernel.

use bytemuck::Pod;
use half::f16;
use nanovllm_backend::DType;
use nanovllm_gguf::{
    BlockIQ1_M, BlockIQ1_S, BlockIQ2_S, BlockIQ2_XS, BlockIQ2_XXS, BlockIQ3_S, BlockIQ3_XXS, BlockTQ1_0, BlockTQ2_0,
    LeF16,
};

use super::coding::Coding;
use crate::layout::{Layout, StoredBlock};

/// How weights of type `dtype` are stored, if it is one of these types.
pub(super) const fn coding(dtype: DType) -> Option<&'static Coding> {
    Some(match dtype {
        DType::IQ1_S => const { &of::<BlockIQ1_S>() },
        DType::IQ1_M => const { &of::<BlockIQ1_M>() },
        DType::IQ2_XXS => const { &of::<BlockIQ2_XXS>() },
        DType::IQ2_XS => const { &of::<BlockIQ2_XS>() },
        DType::IQ2_S => const { &of::<BlockIQ2_S>() },
        DType::IQ3_XXS => const { &of::<BlockIQ3_XXS>() },
        DType::IQ3_S => const { &of::<BlockIQ3_S>() },
        DType::TQ1_0 => const { &Coding::linear(Layout::Q2_K, ternary::<BlockTQ1_0>) },
        DType::TQ2_0 => const { &Coding::linear(Layout::Q2_K, ternary::<BlockTQ2_0>) },
        _ => return None,
    })
}

const fn of<B: Codebook>() -> Coding {
    Coding { layout: B::LAYOUT, table: B::TABLE, factor: B::FACTOR, read: read::<B> }
}

/// A block of 256 elements `d * FACTOR * scale * entry`, with a whole `scale` for each 16 or 32 and an `entry` of `TABLE`.
trait Codebook: Pod {
    const DTYPE: DType;
    const LAYOUT: Layout;
    const TABLE: [i8; 16];
    const FACTOR: f32;

    fn d(&self) -> LeF16;
    fn set_d(&mut self, d: LeF16);
    /// Writes the scale byte of each 32 or 16 elements, as the layout has them.
    fn scales(&self, to: &mut [u8; 16]);
}

/// Takes a block apart. The table's entries are found by dequantising the block with `d` = 1, which is exact.
fn read<B: Codebook>(bytes: &[u8], to: &mut StoredBlock) {
    let mut block = *bytemuck::from_bytes::<B>(bytes);
    to.halves[0] = block.d().0;
    block.scales(&mut to.scales);
    block.set_d(LeF16(f16::ONE.to_le_bytes()));
    let mut values = [0.0; 256];
    let done = nanovllm_gguf::dequantize(B::DTYPE, bytemuck::bytes_of(&block), &mut values);
    debug_assert!(done.is_ok(), "one block of {}", B::DTYPE);
    let inverse = const { inverse(&B::TABLE) };
    let run = 32 / const { B::LAYOUT.shape().scale_bytes() };
    for ((values, codes), scale) in values.chunks_exact(run).zip(to.codes.chunks_exact_mut(run)).zip(to.scales) {
        let unit = f32::from(scale) * B::FACTOR;
        for (value, code) in values.iter().zip(codes) {
            *code = inverse[usize::from((value / unit) as i8 as u8)];
        }
    }
}

/// From an entry of the table, as an unsigned byte, to its code.
const fn inverse(table: &[i8; 16]) -> [u8; 256] {
    let mut codes = [0; 256];
    let mut code = 16;
    while code > 0 {
        code -= 1;
        codes[table[code] as u8 as usize] = code as u8;
    }
    codes
}

/// A table of up to eight magnitudes and their negatives.
const fn signed<const N: usize>(magnitudes: [i8; N]) -> [i8; 16] {
    let mut table = [0; 16];
    let mut i = 0;
    while i < N {
        table[i] = magnitudes[i];
        table[N + i] = -magnitudes[i];
        i += 1;
    }
    table
}

/// The coordinates of points of IQ1 in eighths: -1, 0 and 1, shifted up or down by an eighth.
const IQ1_VALUES: [i8; 16] = signed([1, 7, 9]);
/// The coordinates of points of IQ2, in eighths.
const IQ2_VALUES: [i8; 16] = signed([8, 25, 43]);

/// The scale that is stored as `s`: an odd number of halves of a step.
const fn odd(s: u8) -> u8 {
    2 * s + 1
}

/// Scales stored as the nibbles of bytes, the low one first.
fn nibbles(bytes: &[u8], to: &mut [u8]) {
    for (to, byte) in to.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *to = [odd(byte & 15), odd(byte >> 4)];
    }
}

macro_rules! codebook {
    ($block:ty: $dtype:ident, $layout:ident, $table:expr, $factor:expr, |$self:ident, $to:ident| $scales:expr) => {
        impl Codebook for $block {
            const DTYPE: DType = DType::$dtype;
            const LAYOUT: Layout = Layout::$layout;
            const TABLE: [i8; 16] = $table;
            const FACTOR: f32 = $factor;
            fn d(&self) -> LeF16 {
                self.d
            }
            fn set_d(&mut self, d: LeF16) {
                self.d = d;
            }
            fn scales(&$self, $to: &mut [u8; 16]) {
                $scales
            }
        }
    };
}

codebook!(BlockIQ1_S: IQ1_S, Table3Signed, IQ1_VALUES, 0.125, |self, to| {
    for (to, [_, high]) in to.as_chunks_mut::<2>().0.iter_mut().zip(self.qh) {
        *to = [odd(high >> 4 & 7); 2];
    }
});
codebook!(BlockIQ2_XXS: IQ2_XXS, Table3Signed, IQ2_VALUES, 0.125, |self, to| {
    for (to, qs) in to.as_chunks_mut::<2>().0.iter_mut().zip(self.qs) {
        *to = [odd(qs[7] >> 4); 2];
    }
});
codebook!(BlockIQ2_XS: IQ2_XS, Table3Signed, IQ2_VALUES, 0.125, |self, to| nibbles(&self.scales, to));
codebook!(BlockIQ2_S: IQ2_S, Table3Signed, IQ2_VALUES, 0.125, |self, to| nibbles(&self.scales, to));
codebook!(BlockIQ3_XXS: IQ3_XXS, Table4Signed, signed([4, 12, 20, 28, 36, 44, 52, 62]), 0.25, |self, to| {
    for (to, bytes) in to.iter_mut().zip(self.scales_and_signs) {
        *to = odd(bytes[3] >> 4);
    }
});
codebook!(BlockIQ3_S: IQ3_S, Table4Signed, signed([1, 3, 5, 7, 9, 11, 13, 15]), 1.0, |self, to| nibbles(
    &self.scales, to
));

impl Codebook for BlockIQ1_M {
    const DTYPE: DType = DType::IQ1_M;
    const LAYOUT: Layout = Layout::Table3Signed;
    const TABLE: [i8; 16] = IQ1_VALUES;
    const FACTOR: f32 = 0.125;

    fn d(&self) -> LeF16 {
        self.d()
    }

    fn set_d(&mut self, d: LeF16) {
        let d = u16::from_le_bytes(d.0);
        for (i, bytes) in self.scales.iter_mut().enumerate() {
            bytes[1] = bytes[1] & 15 | ((d >> (4 * i) & 15) << 4) as u8;
        }
    }

    fn scales(&self, to: &mut [u8; 16]) {
        for (i, to) in to.iter_mut().enumerate() {
            *to = odd((u16::from_le_bytes(self.scales[i / 4]) >> (i % 4 * 3) & 7) as u8);
        }
    }
}

/// A block of 256 elements `d * (q - 1)`, `q` in 0 to 3.
trait Ternary: Pod {
    fn d(&self) -> LeF16;
    fn digits(&self, to: &mut [u8; 256]);
}

/// Takes a block apart as one of Q2_K: `d * 1 * q - d * 1` is exact for a finite `d`.
fn ternary<B: Ternary>(bytes: &[u8], to: &mut StoredBlock) {
    let block = bytemuck::from_bytes::<B>(bytes);
    block.digits(&mut to.codes);
    to.scales = [0x11; 16];
    to.halves = [block.d().0; 2];
}

impl Ternary for BlockTQ1_0 {
    fn d(&self) -> LeF16 {
        self.d
    }

    fn digits(&self, to: &mut [u8; 256]) {
        let (first, rest) = to.split_at_mut(160);
        let (second, third) = rest.split_at_mut(80);
        for (bytes, to) in [(&self.qs[..32], first), (&self.qs[32..], second), (&self.qh[..], third)] {
            for (to, power) in to.chunks_exact_mut(bytes.len()).zip([1u8, 3, 9, 27, 81]) {
                for (to, byte) in to.iter_mut().zip(bytes) {
                    *to = ((u16::from(byte.wrapping_mul(power)) * 3) >> 8) as u8;
                }
            }
        }
    }
}

impl Ternary for BlockTQ2_0 {
    fn d(&self) -> LeF16 {
        self.d
    }

    fn digits(&self, to: &mut [u8; 256]) {
        for (i, to) in to.chunks_exact_mut(32).enumerate() {
            for (to, byte) in to.iter_mut().zip(&self.qs[i / 4 * 32..]) {
                *to = byte >> (i % 4 * 2) & 3;
            }
        }
    }
}
