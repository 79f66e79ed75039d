//! The matmul of dense weights, written once over vectors and compiled for every type and instruction set.
//!
//! A sum goes through its inputs in order, whatever the rows beside it.

use std::marker::PhantomData;

use super::simd::{Proof, Simd};
use crate::kernels::codes::Rows;
use crate::kernels::tile::Tile;

/// How weights of one dense type meet the rows on one instruction set, one *step* after the other: a step is one vector of
/// weights, of one input or of a pair of inputs for every output of the group.
pub(crate) trait Dense: Proof {
    type S: Simd;
    /// A vector of weights.
    type W: Copy;
    /// Whether two steps go by at a time: where that is faster, or weights lie in pairs and a step would ask which it is.
    const TWO: bool;

    fn simd(self) -> Self::S;

    /// Steps of a row.
    fn steps(self, rows: &Rows) -> usize;
    /// The weights of a step.
    ///
    /// # Safety
    /// `group` holds the packed group of as many steps as the rows have, `step` among them.
    unsafe fn weights(self, group: *const u8, step: usize) -> Self::W;
    /// `sum` plus the products of the weights of a step with a row.
    ///
    /// # Safety
    /// `row` is one of `rows`, converted for this type, and has the step.
    unsafe fn add(
        self,
        sum: <Self::S as Simd>::V,
        w: Self::W,
        rows: &Rows,
        row: usize,
        step: usize,
    ) -> <Self::S as Simd>::V;
}

/// A group of outputs for the rows of a tile.
///
/// # Safety
/// As for [`TileKernel`](crate::kernels::tile::TileKernel).
#[inline(always)]
pub(crate) unsafe fn tile<D: Dense>(d: D, tile: &Tile) {
    let mut i = 0;
    // SAFETY: rows `i..i + MR` are within the tile.
    unsafe {
        while D::S::MATMUL_ROWS >= 8 && i + 8 <= tile.count {
            rows::<D, 8>(d, tile, i);
            i += 8;
        }
        while i + 4 <= tile.count {
            rows::<D, 4>(d, tile, i);
            i += 4;
        }
        if i + 2 <= tile.count {
            rows::<D, 2>(d, tile, i);
            i += 2;
        }
        if i < tile.count {
            rows::<D, 1>(d, tile, i);
        }
    }
}

/// Rows `i..i + MR` of a tile.
///
/// # Safety
/// As for [`tile`]; the rows exist.
#[inline(always)]
unsafe fn rows<D: Dense, const MR: usize>(d: D, tile: &Tile, i: usize) {
    let s = d.simd();
    let mut sums = [s.splat(0.0); MR];
    let steps = d.steps(&tile.rows);
    // SAFETY: the tile's weight is a packed group, its rows are converted, and both have these steps.
    unsafe {
        let twos = if D::TWO { steps / 2 * 2 } else { 0 };
        for step in (0..twos).step_by(2) {
            add::<D, MR>(d, tile, i, step, &mut sums);
            add::<D, MR>(d, tile, i, step + 1, &mut sums);
        }
        for step in twos..steps {
            add::<D, MR>(d, tile, i, step, &mut sums);
        }
    }
    for (m, sum) in sums.into_iter().enumerate() {
        // SAFETY: `lanes` outputs of the row are the tile's.
        unsafe { s.store_first(tile.out.add((i + m) * tile.stride), sum, tile.lanes) };
    }
}

/// Adds a step to the sums of rows `i..i + MR` of a tile.
///
/// # Safety
/// As for [`rows`]; the rows have the step.
#[inline(always)]
unsafe fn add<D: Dense, const MR: usize>(d: D, tile: &Tile, i: usize, step: usize, sums: &mut [<D::S as Simd>::V; MR]) {
    // SAFETY: the tile's weight is a packed group, its rows are converted, and both have the step.
    unsafe {
        let w = d.weights(tile.weight, step);
        for (m, sum) in sums.iter_mut().enumerate() {
            *sum = d.add(*sum, w, &tile.rows, tile.first + i + m, step);
        }
    }
}

/// A type whose weights are widened to f32 and multiplied with f32 rows, an input a step.
pub(crate) trait Widened: Copy + 'static {
    /// See [`Dense::TWO`].
    const TWO: bool;

    /// The weights of input `k`.
    ///
    /// # Safety
    /// `group` holds a packed group, and input `k` is one of its.
    unsafe fn load<S: Simd>(s: S, group: *const u8, k: usize) -> S::V;
}

/// [`Widened`] weights of type `T` on vectors `S`.
#[derive(Clone, Copy)]
pub(crate) struct Plain<S, T>(S, PhantomData<T>);

impl<S: Simd, T: Widened> Proof for Plain<S, T> {
    #[inline(always)]
    unsafe fn assume() -> Self {
        // SAFETY: the machine has the set.
        Self(unsafe { S::assume() }, PhantomData)
    }
}

impl<S: Simd, T: Widened> Dense for Plain<S, T> {
    type S = S;
    type W = S::V;
    const TWO: bool = T::TWO;

    #[inline(always)]
    fn simd(self) -> S {
        self.0
    }

    #[inline(always)]
    fn steps(self, rows: &Rows) -> usize {
        rows.cols
    }

    #[inline(always)]
    unsafe fn weights(self, group: *const u8, step: usize) -> S::V {
        // SAFETY: a step is an input.
        unsafe { T::load(self.0, group, step) }
    }

    #[inline(always)]
    unsafe fn add(self, sum: S::V, w: S::V, rows: &Rows, row: usize, step: usize) -> S::V {
        // SAFETY: the row has `cols` values, `step` among them.
        let x = unsafe { *rows.x.add(row * rows.cols + step) };
        self.0.mul_add(self.0.splat(x), w, sum)
    }
}

/// `[input][lane]` of f32.
#[derive(Clone, Copy)]
pub(crate) struct F32;
/// `[input][lane]` of f16.
#[derive(Clone, Copy)]
pub(crate) struct F16;
/// `[input / 2][lane][input % 2]` of bf16.
#[derive(Clone, Copy)]
pub(crate) struct Bf16;

impl Widened for F32 {
    const TWO: bool = false;

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, group: *const u8, k: usize) -> S::V {
        // SAFETY: a group holds a vector for every input.
        unsafe { s.load(group.cast::<f32>().add(k * S::LANES)) }
    }
}

impl Widened for F16 {
    const TWO: bool = true;

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, group: *const u8, k: usize) -> S::V {
        // SAFETY: a group holds a vector for every input.
        unsafe { s.load_f16(group.cast::<u16>().add(k * S::LANES)) }
    }
}

impl Widened for Bf16 {
    const TWO: bool = true;

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, group: *const u8, k: usize) -> S::V {
        // SAFETY: a group holds a vector of pairs for every two inputs, an odd last one included.
        unsafe {
            let pairs = group.cast::<u16>().add(k / 2 * 2 * S::LANES);
            if k.is_multiple_of(2) { s.load_bf16_even(pairs) } else { s.load_bf16_odd(pairs) }
        }
    }
}
