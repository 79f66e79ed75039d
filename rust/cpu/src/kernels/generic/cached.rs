//! What the attention kernels need to know of a cache's element type, for each instruction set.

use super::simd::{Proof, Simd};

/// Tokens whose keys are interleaved in the cache, a panel.
pub(crate) const PANEL: usize = 16;

/// How one instruction set reads one cache type. Pointers may have any alignment.
pub(crate) trait Cached: Proof {
    type S: Simd;
    /// A stored element.
    type Element: Copy;
    /// Two neighbouring dimensions of a query.
    type Query: Copy;
    /// What one multiplication takes of a pair of dimensions of the keys of `LANES` tokens.
    type Keys: Copy;
    /// Distance between tokens within a pair of dimensions, in elements.
    const TOKEN: usize;
    /// Multiplications that make up a pair of dimensions: one, or one for each dimension.
    const STEPS: usize;

    fn simd(self) -> Self::S;

    /// A pair of dimensions in the form [`dot`](Self::dot) takes.
    fn query(self, even: f32, odd: f32) -> Self::Query;
    /// The keys of multiplication `step` of the pair of dimensions at `p`.
    ///
    /// # Safety
    /// The pair of dimensions of `LANES` tokens can be read from `p`.
    unsafe fn keys(self, p: *const Self::Element, step: usize) -> Self::Keys;
    /// `acc` plus the products of multiplication `step`.
    fn dot(self, acc: <Self::S as Simd>::V, keys: Self::Keys, query: &Self::Query, step: usize)
    -> <Self::S as Simd>::V;
    /// `LANES` values, widened.
    ///
    /// # Safety
    /// `LANES` elements can be read from `p`.
    unsafe fn values(self, p: *const Self::Element) -> <Self::S as Simd>::V;
    /// Stores `LANES` values, rounded.
    ///
    /// # Safety
    /// `LANES` elements can be written to `p`.
    unsafe fn store(self, p: *mut Self::Element, v: <Self::S as Simd>::V);
}

/// An f32 cache.
#[derive(Clone, Copy)]
pub(crate) struct F32<S>(S);
/// A bf16 cache, widened to f32 before it is multiplied.
#[derive(Clone, Copy)]
pub(crate) struct Bf16<S>(S);

impl<S: Simd> Proof for F32<S> {
    #[inline(always)]
    unsafe fn assume() -> Self {
        // SAFETY: the machine has the set.
        Self(unsafe { S::assume() })
    }
}

impl<S: Simd> Cached for F32<S> {
    type S = S;
    type Element = f32;
    type Query = [f32; 2];
    type Keys = S::V;
    const TOKEN: usize = 1;
    const STEPS: usize = 2;

    #[inline(always)]
    fn simd(self) -> S {
        self.0
    }

    #[inline(always)]
    fn query(self, even: f32, odd: f32) -> [f32; 2] {
        [even, odd]
    }

    #[inline(always)]
    unsafe fn keys(self, p: *const f32, step: usize) -> S::V {
        // SAFETY: a pair of dimensions is that of `PANEL` tokens, one after the other.
        unsafe { self.0.load(p.add(step * PANEL)) }
    }

    #[inline(always)]
    fn dot(self, acc: S::V, keys: S::V, query: &[f32; 2], step: usize) -> S::V {
        self.0.mul_add(self.0.splat(query[step]), keys, acc)
    }

    #[inline(always)]
    unsafe fn values(self, p: *const f32) -> S::V {
        // SAFETY: `LANES` values can be read.
        unsafe { self.0.load(p) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: S::V) {
        // SAFETY: `LANES` values can be written.
        unsafe { self.0.store(p, v) }
    }
}

impl<S: Simd> Proof for Bf16<S> {
    #[inline(always)]
    unsafe fn assume() -> Self {
        // SAFETY: the machine has the set.
        Self(unsafe { S::assume() })
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
    fn simd(self) -> S {
        self.0
    }

    #[inline(always)]
    fn query(self, even: f32, odd: f32) -> [f32; 2] {
        [even, odd]
    }

    #[inline(always)]
    unsafe fn keys(self, p: *const u16, step: usize) -> S::V {
        // SAFETY: the pairs of `LANES` tokens can be read.
        unsafe { if step == 0 { self.0.load_bf16_even(p) } else { self.0.load_bf16_odd(p) } }
    }

    #[inline(always)]
    fn dot(self, acc: S::V, keys: S::V, query: &[f32; 2], step: usize) -> S::V {
        self.0.mul_add(self.0.splat(query[step]), keys, acc)
    }

    #[inline(always)]
    unsafe fn values(self, p: *const u16) -> S::V {
        // SAFETY: `LANES` values can be read.
        unsafe { self.0.load_bf16(p) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut u16, v: S::V) {
        // SAFETY: `LANES` values can be written.
        unsafe { self.0.store_bf16(p, v) }
    }
}
