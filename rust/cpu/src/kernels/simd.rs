//! A vector of f32 as a trait, so that each row kernel is written once and compiled for every instruction set.

/// The operations of one instruction set on vectors of [`LANES`](Self::LANES) values.
///
/// Implementations are `#[inline(always)]` and carry no `target_feature` themselves: they take on the features of the kernel
/// they are inlined into (`kernels!` declares those). Bits may differ between instruction sets, never between two uses of one.
///
/// # Safety
/// Every method may run only on a machine with the instruction set, inlined into a function compiled for it. Methods that take
/// a pointer access `LANES` elements from it, those with a count `n <= LANES` only the first `n`; any alignment is allowed.
pub(crate) trait Simd: 'static {
    /// `LANES` f32.
    type V: Copy;
    /// `LANES` u32.
    type U: Copy;
    /// Values a vector; divides 16.
    const LANES: usize;
    /// Rows of a block of accumulators, [`VECTORS`](Self::VECTORS) each, that leaves registers for as many operands and one more.
    const ROWS: usize;
    /// Vectors in a row of such a block: 1, 2 or 4.
    const VECTORS: usize;

    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(p: *const f32) -> Self::V;
    unsafe fn store(p: *mut f32, v: Self::V);
    /// Lanes from `n` on are `fill`.
    unsafe fn load_first(p: *const f32, n: usize, fill: f32) -> Self::V;
    unsafe fn store_first(p: *mut f32, v: Self::V, n: usize);
    /// Widens bf16.
    unsafe fn load_bf16(p: *const u16) -> Self::V;
    /// Widens the even elements of `2 * LANES` bf16.
    unsafe fn load_bf16_even(p: *const u16) -> Self::V;
    /// Widens the odd elements of `2 * LANES` bf16.
    unsafe fn load_bf16_odd(p: *const u16) -> Self::V;
    /// Rounds to bf16, ties to even.
    unsafe fn store_bf16(p: *mut u16, v: Self::V);

    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, fused where the set has it.
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger; `b` where either is NaN.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// The smaller; `b` where either is NaN.
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// To the nearest integer, ties to even; `|v| < 2^22`.
    unsafe fn round(v: Self::V) -> Self::V;
    /// `v * 2^n` for integral `n` in -126..=127.
    unsafe fn scale2(v: Self::V, n: Self::V) -> Self::V;
    /// `v` where `x >= bound`, else 0.
    unsafe fn zero_below(v: Self::V, x: Self::V, bound: Self::V) -> Self::V;
    /// Sum of all lanes, as a fixed tree.
    unsafe fn sum(v: Self::V) -> f32;
    /// Largest lane; no lane is NaN.
    unsafe fn largest(v: Self::V) -> f32;
    /// Lane 0.
    unsafe fn lane0(v: Self::V) -> f32;
    /// Bit `i` is set where `a[i] >= b[i]`; clear where either is NaN.
    unsafe fn ge_bits(a: Self::V, b: Self::V) -> u32;

    /// 0, 1, 2, ...
    unsafe fn iota() -> Self::U;
    unsafe fn splat_u(x: u32) -> Self::U;
    unsafe fn add_u(a: Self::U, b: Self::U) -> Self::U;
    unsafe fn xor_u(a: Self::U, b: Self::U) -> Self::U;
    /// Wrapping product.
    unsafe fn mul_u(a: Self::U, b: Self::U) -> Self::U;
    unsafe fn shr_u<const N: u32>(a: Self::U) -> Self::U;
    /// Exact for values below 2^24.
    unsafe fn to_f32(a: Self::U) -> Self::V;
}
