//! Vectors as arrays: plain Rust that the compiler may vectorise with whatever the target guarantees.

use crate::kernels::generic::simd::{Proof, Simd};

/// Portable Rust.
#[derive(Clone, Copy)]
pub(super) struct Scalar;

/// Two of the 128-bit vectors that most machines have at least.
const LANES: usize = 8;

/// `LANES` results of `f`.
macro_rules! lanes {
    (|$i:ident| $value:expr) => {{
        let mut out = [Default::default(); LANES];
        let mut $i = 0;
        while $i < LANES {
            out[$i] = $value;
            $i += 1;
        }
        out
    }};
}

/// bf16 bits of `x`, ties to even.
fn round_bf16(x: f32) -> u16 {
    half::bf16::from_f32(x).to_bits()
}

fn widen(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

impl Proof for Scalar {
    #[inline(always)]
    unsafe fn assume() -> Self {
        Self
    }
}

impl Simd for Scalar {
    type V = [f32; LANES];
    type U = [u32; LANES];
    const LANES: usize = LANES;
    const ROWS: usize = 4;
    const VECTORS: usize = 1;
    const MATMUL_ROWS: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; LANES]
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::V {
        // SAFETY: `LANES` values can be read.
        unsafe { p.cast::<Self::V>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: Self::V) {
        // SAFETY: `LANES` values can be written.
        unsafe { p.cast::<Self::V>().write_unaligned(v) }
    }

    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize, fill: f32) -> Self::V {
        let mut v = [fill; LANES];
        // SAFETY: `n <= LANES` values can be read.
        unsafe { std::ptr::copy_nonoverlapping(p, v.as_mut_ptr(), n) };
        v
    }

    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, v: Self::V, n: usize) {
        // SAFETY: `n <= LANES` values can be written.
        unsafe { std::ptr::copy_nonoverlapping(v.as_ptr(), p, n) };
    }

    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> Self::V {
        // SAFETY: `LANES` values can be read.
        let bits = unsafe { p.cast::<[u16; LANES]>().read_unaligned() };
        lanes!(|i| half::f16::from_bits(bits[i]).to_f32())
    }

    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> Self::V {
        // SAFETY: `LANES` values can be read.
        let bits = unsafe { p.cast::<[u16; LANES]>().read_unaligned() };
        lanes!(|i| widen(bits[i]))
    }

    #[inline(always)]
    unsafe fn load_bf16_even(self, p: *const u16) -> Self::V {
        // SAFETY: `LANES` pairs can be read.
        let bits = unsafe { p.cast::<[[u16; 2]; LANES]>().read_unaligned() };
        lanes!(|i| widen(bits[i][0]))
    }

    #[inline(always)]
    unsafe fn load_bf16_odd(self, p: *const u16) -> Self::V {
        // SAFETY: `LANES` pairs can be read.
        let bits = unsafe { p.cast::<[[u16; 2]; LANES]>().read_unaligned() };
        lanes!(|i| widen(bits[i][1]))
    }

    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut u16, v: Self::V) {
        let bits: [u16; LANES] = lanes!(|i| round_bf16(v[i]));
        // SAFETY: `LANES` values can be written.
        unsafe { p.cast::<[u16; LANES]>().write_unaligned(bits) }
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(|i| a[i] - b[i])
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(|i| a[i] / b[i])
    }

    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // Not `f32::mul_add`: without the instruction that is a slow library call.
        lanes!(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn round(self, v: Self::V) -> Self::V {
        // Adding 1.5 * 2^23 leaves no bits for a fraction, in any rounding of the addition.
        const MAGIC: f32 = 12_582_912.0;
        lanes!(|i| (v[i] + MAGIC) - MAGIC)
    }

    #[inline(always)]
    fn scale2(self, v: Self::V, n: Self::V) -> Self::V {
        lanes!(|i| v[i] * f32::from_bits(((n[i] as i32 + 127) as u32) << 23))
    }

    #[inline(always)]
    fn zero_below(self, v: Self::V, x: Self::V, bound: Self::V) -> Self::V {
        lanes!(|i| if x[i] >= bound[i] { v[i] } else { 0.0 })
    }

    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]))
    }

    #[inline(always)]
    fn largest(self, v: Self::V) -> f32 {
        v.iter().fold(f32::NEG_INFINITY, |m, &x| if x > m { x } else { m })
    }

    #[inline(always)]
    fn lane0(self, v: Self::V) -> f32 {
        v[0]
    }

    #[inline(always)]
    fn ge_bits(self, a: Self::V, b: Self::V) -> u32 {
        (0..LANES).fold(0, |bits, i| bits | u32::from(a[i] >= b[i]) << i)
    }

    #[inline(always)]
    fn iota(self) -> Self::U {
        lanes!(|i| i as u32)
    }

    #[inline(always)]
    fn splat_u(self, x: u32) -> Self::U {
        [x; LANES]
    }

    #[inline(always)]
    fn add_u(self, a: Self::U, b: Self::U) -> Self::U {
        lanes!(|i| a[i].wrapping_add(b[i]))
    }

    #[inline(always)]
    fn xor_u(self, a: Self::U, b: Self::U) -> Self::U {
        lanes!(|i| a[i] ^ b[i])
    }

    #[inline(always)]
    fn mul_u(self, a: Self::U, b: Self::U) -> Self::U {
        lanes!(|i| a[i].wrapping_mul(b[i]))
    }

    #[inline(always)]
    fn shr_u<const N: u32>(self, a: Self::U) -> Self::U {
        lanes!(|i| a[i] >> N)
    }

    #[inline(always)]
    fn to_f32(self, a: Self::U) -> Self::V {
        lanes!(|i| a[i].cast_signed() as f32)
    }
}
