//! What the attention kernels need to know of a cache's element type, for each instruction set.

use super::simd::Simd;

/// Tokens whose keys are interleaved.
pub(crate) const GROUP: usize = 16;

/// How one instruction set reads one cache type.
///
/// # Safety
/// As for [`Simd`]: methods run inlined into a function compiled for the set; pointers reach `LANES` tokens or values.
pub(crate) trait Cached: 'static {
    type S: Simd;
    /// A stored element.
    type Element: Copy;
    /// Two neighbouring dimensions of a query.
    type Query: Copy;
    /// One step's share of a pair of dimensions of the keys of `LANES` tokens.
    type Keys: Copy;
    /// Distance between tokens within a pair of dimensions, in elements.
    const TOKEN: usize;
    /// Multiplications that make up a pair of dimensions: one, or one for each dimension.
    const STEPS: usize;

    /// A pair of dimensions in the form [`dot`](Self::dot) takes.
    ///
    /// # Safety
    /// See the trait; so too the following.
    unsafe fn query(even: f32, odd: f32) -> Self::Query;
    /// Step `step` of the pair of dimensions at `p`.
    unsafe fn keys(p: *const Self::Element, step: usize) -> Self::Keys;
    /// `acc` plus the products of one step.
    unsafe fn dot(
        acc: <Self::S as Simd>::V,
        keys: Self::Keys,
        query: &Self::Query,
        step: usize,
    ) -> <Self::S as Simd>::V;
    /// `LANES` values, widened.
    unsafe fn values(p: *const Self::Element) -> <Self::S as Simd>::V;
    /// Stores `LANES` values, rounded.
    unsafe fn store(p: *mut Self::Element, v: <Self::S as Simd>::V);
}

/// An f32 cache.
pub(crate) struct F32<S>(std::marker::PhantomData<S>);
/// A bf16 cache, widened to f32 before it is multiplied.
pub(crate) struct Bf16<S>(std::marker::PhantomData<S>);

impl<S: Simd> Cached for F32<S> {
    type S = S;
    type Element = f32;
    type Query = [f32; 2];
    type Keys = S::V;
    const TOKEN: usize = 1;
    const STEPS: usize = 2;

    #[inline(always)]
    unsafe fn query(even: f32, odd: f32) -> [f32; 2] {
        [even, odd]
    }

    #[inline(always)]
    unsafe fn keys(p: *const f32, step: usize) -> S::V {
        // SAFETY: by the trait's contract.
        unsafe { S::load(p.add(step * GROUP)) }
    }

    #[inline(always)]
    unsafe fn dot(acc: S::V, keys: S::V, query: &[f32; 2], step: usize) -> S::V {
        // SAFETY: by the trait's contract.
        unsafe { S::mul_add(S::splat(query[step]), keys, acc) }
    }

    #[inline(always)]
    unsafe fn values(p: *const f32) -> S::V {
        // SAFETY: by the trait's contract.
        unsafe { S::load(p) }
    }

    #[inline(always)]
    unsafe fn store(p: *mut f32, v: S::V) {
        // SAFETY: by the trait's contract.
        unsafe { S::store(p, v) }
    }
}

impl<S: Simd> Cached for Bf16<S> {
    type S = S;
    type Element = u16;
    type Query = [f32; 2];
    type Keys = S::V;
    const TOKEN: usize = 2;
    const STEPS: usize = 2;

    #[inline(always)]
    unsafe fn query(even: f32, odd: f32) -> [f32; 2] {
        [even, odd]
    }

    #[inline(always)]
    unsafe fn keys(p: *const u16, step: usize) -> S::V {
        // SAFETY: by the trait's contract.
        unsafe { if step == 0 { S::load_bf16_even(p) } else { S::load_bf16_odd(p) } }
    }

    #[inline(always)]
    unsafe fn dot(acc: S::V, keys: S::V, query: &[f32; 2], step: usize) -> S::V {
        // SAFETY: by the trait's contract.
        unsafe { S::mul_add(S::splat(query[step]), keys, acc) }
    }

    #[inline(always)]
    unsafe fn values(p: *const u16) -> S::V {
        // SAFETY: by the trait's contract.
        unsafe { S::load_bf16(p) }
    }

    #[inline(always)]
    unsafe fn store(p: *mut u16, v: S::V) {
        // SAFETY: by the trait's contract.
        unsafe { S::store_bf16(p, v) }
    }
}
