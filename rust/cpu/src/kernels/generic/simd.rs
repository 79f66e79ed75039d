//! A vector of f32 as a trait, so that each kernel is written once and compiled for every instruction set.

/// A value of such a type proves that the machine has an instruction set. So arithmetic, which touches no memory, is safe, and
/// what is unsafe about methods that load and store is their pointers alone.
pub(crate) trait Proof: Copy + 'static {
    /// The proof, taken on trust.
    ///
    /// # Safety
    /// The machine has the instruction set.
    unsafe fn assume() -> Self;
}

/// The operations of one instruction set on vectors of [`LANES`](Self::LANES) values. Pointers may have any alignment.
///
/// Methods are `#[inline(always)]` and carry no `target_feature`: they take on the features of the kernel they are inlined into,
/// which [`compile!`](crate::kernels::table) declares. Called from anywhere else they would be correct and slow.
///
/// Results may differ between instruction sets in their last bits, never between two uses of one.
pub(crate) trait Simd: Proof {
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
    /// The most rows that a matmul computes together, 4 or 8: the sums of each are one register.
    const MATMUL_ROWS: usize;

    /// Loads a vector.
    ///
    /// # Safety
    /// `LANES` values can be read from `p`.
    unsafe fn load(self, p: *const f32) -> Self::V;
    /// Stores a vector.
    ///
    /// # Safety
    /// `LANES` values can be written to `p`.
    unsafe fn store(self, p: *mut f32, v: Self::V);
    /// Loads the first `n` lanes; the others are `fill`.
    ///
    /// # Safety
    /// `n <= LANES` values can be read from `p`.
    unsafe fn load_first(self, p: *const f32, n: usize, fill: f32) -> Self::V;
    /// Stores the first `n` lanes.
    ///
    /// # Safety
    /// `n <= LANES` values can be written to `p`.
    unsafe fn store_first(self, p: *mut f32, v: Self::V, n: usize);
    /// Widens f16.
    ///
    /// # Safety
    /// `LANES` values of 16 bits can be read from `p`.
    unsafe fn load_f16(self, p: *const u16) -> Self::V;
    /// Widens bf16.
    ///
    /// # Safety
    /// `LANES` values of 16 bits can be read from `p`.
    unsafe fn load_bf16(self, p: *const u16) -> Self::V;
    /// Widens the even elements of `2 * LANES` bf16.
    ///
    /// # Safety
    /// `2 * LANES` values of 16 bits can be read from `p`.
    unsafe fn load_bf16_even(self, p: *const u16) -> Self::V;
    /// Widens the odd elements of `2 * LANES` bf16.
    ///
    /// # Safety
    /// `2 * LANES` values of 16 bits can be read from `p`.
    unsafe fn load_bf16_odd(self, p: *const u16) -> Self::V;
    /// Rounds to bf16, ties to even, and stores.
    ///
    /// # Safety
    /// `LANES` values of 16 bits can be written to `p`.
    unsafe fn store_bf16(self, p: *mut u16, v: Self::V);

    fn splat(self, x: f32) -> Self::V;
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, fused where the set has it.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger; `b` where either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller; `b` where either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// To the nearest integer, ties to even; `|v| < 2^22`.
    fn round(self, v: Self::V) -> Self::V;
    /// `v * 2^n` for integral `n` in -126..=127.
    fn scale2(self, v: Self::V, n: Self::V) -> Self::V;
    /// `v` where `x >= bound`, else 0.
    fn zero_below(self, v: Self::V, x: Self::V, bound: Self::V) -> Self::V;
    /// Sum of all lanes, always in the same order.
    fn sum(self, v: Self::V) -> f32;
    /// Largest lane; where one is NaN, any of them.
    fn largest(self, v: Self::V) -> f32;
    /// Lane 0.
    fn lane0(self, v: Self::V) -> f32;
    /// Bit `i` is set where `a[i] >= b[i]`; clear where either is NaN.
    fn ge_bits(self, a: Self::V, b: Self::V) -> u32;

    /// 0, 1, 2, ...
    fn iota(self) -> Self::U;
    fn splat_u(self, x: u32) -> Self::U;
    /// Wrapping sum.
    fn add_u(self, a: Self::U, b: Self::U) -> Self::U;
    fn xor_u(self, a: Self::U, b: Self::U) -> Self::U;
    /// Wrapping product.
    fn mul_u(self, a: Self::U, b: Self::U) -> Self::U;
    fn shr_u<const N: u32>(self, a: Self::U) -> Self::U;
    /// Takes the integers as signed.
    fn to_f32(self, a: Self::U) -> Self::V;
}

/// Methods that touch no memory, whose bodies may use the intrinsics of the set that `self` proves.
macro_rules! arithmetic {
    ($($(#[$attribute:meta])* fn $name:ident$(<const $n:ident: $type:ty>)?($($arg:ident: $arg_type:ty),*) -> $result:ty $body:block)*) => {
        $(
            $(#[$attribute])*
            #[inline(always)]
            fn $name$(<const $n: $type>)?(self, $($arg: $arg_type),*) -> $result {
                // SAFETY: a value of `Self` exists only where the machine has the set, and nothing here touches memory.
                unsafe { $body }
            }
        )*
    };
}
pub(crate) use arithmetic;
