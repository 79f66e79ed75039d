//! Vectors as arrays: plain Rust that the compiler may vectorise with whatever the target guarantees.

use crate::kernels::simd::Simd;

/// Portable Rust.
pub(crate) struct Scalar;

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

impl Simd for Scalar {
    type V = [f32; LANES];
    type U = [u32; LANES];
    const LANES: usize = LANES;
    const ROWS: usize = 4;
    const VECTORS: usize = 1;

    // SAFETY: arithmetic, no memory.
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        [x; LANES]
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::V {
        // SAFETY: the trait's contract: `LANES` readable elements.
        unsafe { p.cast::<Self::V>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::V) {
        // SAFETY: the trait's contract: `LANES` writable elements.
        unsafe { p.cast::<Self::V>().write_unaligned(v) }
    }

    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize, fill: f32) -> Self::V {
        let mut v = [fill; LANES];
        // SAFETY: the trait's contract: `n <= LANES` readable elements.
        unsafe { std::ptr::copy_nonoverlapping(p, v.as_mut_ptr(), n) };
        v
    }

    #[inline(always)]
    unsafe fn store_first(p: *mut f32, v: Self::V, n: usize) {
        // SAFETY: the trait's contract: `n <= LANES` writable elements.
        unsafe { std::ptr::copy_nonoverlapping(v.as_ptr(), p, n) };
    }

    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self::V {
        // SAFETY: the trait's contract: `LANES` readable elements.
        let bits = unsafe { p.cast::<[u16; LANES]>().read_unaligned() };
        lanes!(|i| widen(bits[i]))
    }

    #[inline(always)]
    unsafe fn load_bf16_even(p: *const u16) -> Self::V {
        // SAFETY: the trait's contract: `LANES` readable pairs.
        let bits = unsafe { p.cast::<[[u16; 2]; LANES]>().read_unaligned() };
        lanes!(|i| widen(bits[i][0]))
    }

    #[inline(always)]
    unsafe fn load_bf16_odd(p: *const u16) -> Self::V {
        // SAFETY: the trait's contract: `LANES` readable pairs.
        let bits = unsafe { p.cast::<[[u16; 2]; LANES]>().read_unaligned() };
        lanes!(|i| widen(bits[i][1]))
    }

    #[inline(always)]
    unsafe fn store_bf16(p: *mut u16, v: Self::V) {
        let bits: [u16; LANES] = lanes!(|i| round_bf16(v[i]));
        // SAFETY: the trait's contract: `LANES` writable elements.
        unsafe { p.cast::<[u16; LANES]>().write_unaligned(bits) }
    }

    // SAFETY: arithmetic, no memory.
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        lanes!(|i| a[i] + b[i])
    }

    // SAFETY: arithmetic, no memory.
    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        lanes!(|i| a[i] - b[i])
    }

    // SAFETY: arithmetic, no memory.
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        lanes!(|i| a[i] * b[i])
    }

    // SAFETY: arithmetic, no memory.
    #[inline(always)]
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
        lanes!(|i| a[i] / b[i])
    }

    // SAFETY: arithmetic, no memory.
    #[inline(always)]
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // Not `f32::mul_add`: without the instruction that is a slow library call.
        lanes!(|i| a[i] * b[i] + c[i])
    }

    // SAFETY: arithmetic, no memory.
    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        lanes!(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    // SAFETY: arithmetic, no memory.
    #[inline(always)]
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
        lanes!(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }

    // SAFETY: arithmetic, no memory.
    #[inline(always)]
    unsafe fn round(v: Self::V) -> Self::V {
        // Adding 1.5 * 2^23 leaves no bits for a fraction, in any rounding of the addition.
        const MAGIC: f32 = 12_582_912.0;
        lanes!(|i| (v[i] + MAGIC) - MAGIC)
    }

    // SAFETY: arithmetic, no memory.
    #[inline(always)]
    unsafe fn scale2(v: Self::V, n: Self::V) -> Self::V {
        lanes!(|i| v[i] * f32::from_bits(((n[i] as i32 + 127) as u32) << 23))
    }

    // SAFETY: arithmetic, no memory.
    #[inline(always)]
    unsafe fn zero_below(v: Self::V, x: Self::V, bound: Self::V) -> Self::V {
        lanes!(|i| if x[i] >= bound[i] { v[i] } else { 0.0 })
    }

    // SAFETY: arithmetic, no memory.
    #[inline(always)]
    unsafe fn sum(v: Self::V) -> f32 {
        ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]))
    }

    // SAFETY: arithmetic, no memory.
    #[inline(always)]
    unsafe fn largest(v: Self::V) -> f32 {
        v.iter().fold(f32::NEG_INFINITY, |m, &x| if x > m { x } else { m })
    }

    // SAFETY: arithmetic, no memory.
    #[inline(always)]
    unsafe fn lane0(v: Self::V) -> f32 {
        v[0]
    }

    // SAFETY: arithmetic, no memory.
    #[inline(always)]
    unsafe fn ge_bits(a: Self::V, b: Self::V) -> u32 {
        (0..LANES).fold(0, |bits, i| bits | u32::from(a[i] >= b[i]) << i)
    }

    // SAFETY: arithmetic, no memory.
    #[inline(always)]
    unsafe fn iota() -> Self::U {
        lanes!(|i| i as u32)
    }

    // SAFETY: arithmetic, no memory.
    #[inline(always)]
    unsafe fn splat_u(x: u32) -> Self::U {
        [x; LANES]
    }

    // SAFETY: arithmetic, no memory.
    #[inline(always)]
    unsafe fn add_u(a: Self::U, b: Self::U) -> Self::U {
        lanes!(|i| a[i].wrapping_add(b[i]))
    }

    // SAFETY: arithmetic, no memory.
    #[inline(always)]
    unsafe fn xor_u(a: Self::U, b: Self::U) -> Self::U {
        lanes!(|i| a[i] ^ b[i])
    }

    // SAFETY: arithmetic, no memory.
    #[inline(always)]
    unsafe fn mul_u(a: Self::U, b: Self::U) -> Self::U {
        lanes!(|i| a[i].wrapping_mul(b[i]))
    }

    // SAFETY: arithmetic, no memory.
    #[inline(always)]
    unsafe fn shr_u<const N: u32>(a: Self::U) -> Self::U {
        lanes!(|i| a[i] >> N)
    }

    // SAFETY: arithmetic, no memory.
    #[inline(always)]
    unsafe fn to_f32(a: Self::U) -> Self::V {
        lanes!(|i| a[i] as f32)
    }
}
