//! Vectors of bytes and their products as a trait, for the matmul of quantised weights.

use super::simd::{Proof, Simd};
use crate::layout::Coded;

/// Integers of a set's vectors.
pub(crate) type U<D> = <<D as Dot>::S as Simd>::U;
/// Floats of a set's vectors.
pub(crate) type V<D> = <<D as Dot>::S as Simd>::V;

/// Byte vectors and their products on one instruction set. A vector has four bytes for each f32 lane.
/// Pointers may have any alignment.
pub(crate) trait Dot: Proof {
    type S: Simd;
    /// Sums of byte products in progress.
    type Sum: Copy;
    /// Whether registers hold a block's weights while rows go by; otherwise they hold the rows' sums while weights go by.
    const HOLD: bool;
    /// Whether codes with an offset of 128 are multiplied as signed ones.
    const SIGNED: bool;
    /// Bytes to fetch ahead of use: weights stream from memory once, and the hardware's prefetcher stops at pages.
    const PREFETCH: usize;

    fn simd(self) -> Self::S;

    /// Asks for the cache line of `p`, which need not be mapped.
    fn prefetch(self, p: *const u8);
    /// Loads a vector.
    ///
    /// # Safety
    /// A vector can be read from `p`.
    unsafe fn load(self, p: *const u8) -> U<Self>;
    /// Each byte shifted left (right where negative), then masked; bits that come from a neighbour must be masked away.
    fn bits(self, v: U<Self>, left: i32, mask: u8) -> U<Self>;
    fn or(self, a: U<Self>, b: U<Self>) -> U<Self>;
    fn and(self, a: U<Self>, b: U<Self>) -> U<Self>;
    /// Flips the sign bit of each byte.
    fn flip(self, v: U<Self>) -> U<Self>;
    /// A table for [`lookup`](Self::lookup), `offset` added to each entry.
    fn table(self, table: &[i8; 16], offset: u8) -> U<Self>;
    /// The entries of codes below 16.
    fn lookup(self, table: U<Self>, codes: U<Self>) -> U<Self>;
    /// Shifts each 32 bits left.
    fn shl(self, v: U<Self>, n: u32) -> U<Self>;

    /// Begins sums of products, those of each lane at `start`.
    fn begin(self, start: U<Self>) -> Self::Sum;
    /// Adds, in each lane, the products of its four codes with four activations, the bytes of `activations`. The codes are four
    /// `j` of a block of layout `C`, which tells how large they may be.
    fn dot<C: Coded>(self, sum: Self::Sum, j: usize, codes: U<Self>, activations: i32) -> Self::Sum;
    /// The sums, once every four of a run was added, in order.
    fn finish(self, sum: Self::Sum) -> U<Self>;

    /// Widens an unsigned byte for each lane.
    ///
    /// # Safety
    /// `LANES` bytes can be read from `p`.
    unsafe fn bytes(self, p: *const u8) -> U<Self>;
    /// Widens a signed byte for each lane.
    ///
    /// # Safety
    /// `LANES` bytes can be read from `p`.
    unsafe fn signed_bytes(self, p: *const u8) -> U<Self>;
    /// `2^(byte - 128)` for each lane, exact for every byte.
    ///
    /// # Safety
    /// `LANES` bytes can be read from `p`.
    unsafe fn exponents(self, p: *const u8) -> V<Self>;
}
