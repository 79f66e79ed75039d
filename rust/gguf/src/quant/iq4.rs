//! IQ4_NL and IQ4_XS: 4-bit codes that choose from sixteen unevenly spaced values.

use super::bits::{pack_nibbles, unpack_nibbles};
use super::codec::{Block, Encode};
use super::half_le::LeF16;
use super::numbers::{NEGLIGIBLE, extreme, inverse, nearest, widest};

/// What the codes of IQ4_NL and IQ4_XS stand for: denser near zero, as weights are.
pub const IQ4_VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// A block of 32 elements, each `d * IQ4_VALUES[q]` for its code `q`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockIQ4_NL {
    /// The scale.
    pub d: LeF16,
    /// The codes, two a byte, as in Q4_0.
    pub qs: [u8; 16],
}

/// A block of 256 elements, each `d * scale * IQ4_VALUES[q]` for its code `q` and the scale of its 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockIQ4_XS {
    /// The scale of the scales.
    pub d: LeF16,
    /// The upper two bits of scale `j` at bit `2 * j`, little-endian.
    pub scales_h: [u8; 2],
    /// The low four bits of scale `2 * j` in the low nibble of byte `j`, of `2 * j + 1` in the high one.
    pub scales_l: [u8; 4],
    /// The codes: 16 bytes, as in Q4_0, for each 32.
    pub qs: [[u8; 16]; 8],
}

impl BlockIQ4_XS {
    /// The scale of each 32 elements, -32 to 31.
    pub fn unpacked_scales(&self) -> [i8; 8] {
        let high = u16::from_le_bytes(self.scales_h);
        std::array::from_fn(|j| {
            let low = self.scales_l[j / 2] >> (j % 2 * 4) & 0x0f;
            (low | ((high >> (2 * j) & 3) << 4) as u8) as i8 - 32
        })
    }
}

impl Block for BlockIQ4_NL {
    const ELEMENTS: usize = 32;

    fn dequantize(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        unpack_nibbles(&self.qs, out, |q| d * value(q));
    }
}

impl Block for BlockIQ4_XS {
    const ELEMENTS: usize = 256;

    fn dequantize(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        for ((out, qs), scale) in out.chunks_exact_mut(32).zip(&self.qs).zip(self.unpacked_scales()) {
            let scale = d * scale as f32;
            unpack_nibbles(qs, out, |q| scale * value(q));
        }
    }
}

fn value(q: u8) -> f32 {
    IQ4_VALUES[usize::from(q & 0x0f)] as f32
}

impl Encode for BlockIQ4_NL {
    /// The better of two blocks in plain squared error: ggml has a quantiser with a search and one without, and either
    /// can come out ahead.
    fn quantize(x: &[f32]) -> Option<Self> {
        let found = search(x);
        let searched = Self { d: LeF16::finite(found)?, qs: pack(x, inverse(found)) };
        // Without a search, the extreme element is mapped to the lowest value, -127.
        let id = inverse(extreme(x) / IQ4_VALUES[0] as f32);
        let fitted = Fit::new(x, id).scale();
        let direct = Self { d: LeF16::finite(fitted)?, qs: pack(x, id) };
        Some(if direct.squared_error(x) < searched.squared_error(x) { direct } else { searched })
    }
}

impl BlockIQ4_NL {
    fn squared_error(&self, x: &[f32]) -> f32 {
        let mut back = [0.0; 32];
        self.dequantize(&mut back);
        x.iter().zip(back).fold(0.0, |sum, (x, back)| sum + (x - back) * (x - back))
    }
}

impl Encode for BlockIQ4_XS {
    fn quantize(x: &[f32]) -> Option<Self> {
        let (groups, _) = x.as_chunks::<32>();
        let mut fits = [0.0; 8];
        for (fit, x) in fits.iter_mut().zip(groups) {
            *fit = search(x);
        }
        let d = -widest(&fits)? / 32.0;
        let id = inverse(d);
        let (mut scales_h, mut scales_l, mut qs) = (0, [0; 4], [[0; 16]; 8]);
        for (j, (x, fit)) in groups.iter().zip(fits).enumerate() {
            let scale = nearest(id * fit).clamp(-32.0, 31.0);
            let bits = (scale + 32.0) as u8;
            scales_l[j / 2] |= (bits & 0x0f) << (j % 2 * 4);
            scales_h |= u16::from(bits >> 4) << (2 * j);
            qs[j] = pack(x, inverse(d * scale));
        }
        Some(Self { d: LeF16::finite(d)?, scales_h: scales_h.to_le_bytes(), scales_l, qs })
    }
}

/// The scale of 32 elements as ggml's `quantize_row_iq4_nl_impl` finds it: the extreme element is mapped to 127 and to
/// numbers around -127, and the scale is refitted to the codes that each gives.
fn search(x: &[f32]) -> f32 {
    let extreme = extreme(x);
    if extreme.abs() < NEGLIGIBLE {
        return 0.0;
    }
    let mut best = Fit::new(x, 1.0 / (extreme / 127.0));
    for target in -134i16..=-120 {
        let fit = Fit::new(x, target as f32 / extreme);
        if fit.q2 > 0.0 && fit.qx * fit.qx > best.gain() * fit.q2 {
            best = fit;
        }
    }
    best.scale()
}

/// What refitting the scale of a group needs to know of its codes: two sums, weighted by the elements' squares.
struct Fit {
    /// The sum of the products of elements and the values that their codes stand for.
    qx: f32,
    /// The sum of the squares of those values.
    q2: f32,
}

impl Fit {
    /// The codes are those nearest to `inverse` times the elements.
    fn new(x: &[f32], inverse: f32) -> Self {
        x.iter().fold(Self { qx: 0.0, q2: 0.0 }, |sums, &x| {
            let (w, q) = (x * x, value(nearest_code(inverse * x)));
            Self { qx: sums.qx + w * q * x, q2: sums.q2 + w * q * q }
        })
    }

    /// The best scale for these codes.
    fn scale(&self) -> f32 {
        if self.q2 > 0.0 { self.qx / self.q2 } else { 0.0 }
    }

    /// By how much that scale brings the squared error below that of writing zeros.
    fn gain(&self) -> f32 {
        self.scale() * self.qx
    }
}

fn pack(x: &[f32], inverse: f32) -> [u8; 16] {
    pack_nibbles(|i| nearest_code(inverse * x[i]))
}

/// The code whose value is nearest to `v`; of two as near, the upper one.
fn nearest_code(v: f32) -> u8 {
    const LOWEST: f32 = IQ4_VALUES[0] as f32;
    const HIGHEST: f32 = IQ4_VALUES[15] as f32;
    /// For each integer from the lowest value up, the largest code whose value is not larger.
    const FLOORS: [u8; 256] = {
        let (mut floors, mut i, mut code) = ([15; 256], 0, 0);
        while code < 15 {
            if IQ4_VALUES[0] as i32 + i as i32 == IQ4_VALUES[code + 1] as i32 {
                code += 1;
            }
            floors[i] = code as u8;
            i += 1;
        }
        floors
    };
    /// For each code, the number from which on the next code is at least as near.
    const MIDDLES: [f32; 16] = {
        let (mut middles, mut code) = ([f32::INFINITY; 16], 0);
        while code < 15 {
            middles[code] = f32::midpoint(IQ4_VALUES[code] as f32, IQ4_VALUES[code + 1] as f32);
            code += 1;
        }
        middles
    };
    let floor = FLOORS[usize::from((v.clamp(LOWEST, HIGHEST) - LOWEST) as u8)];
    floor + u8::from(v >= MIDDLES[usize::from(floor & 0x0f)])
}
