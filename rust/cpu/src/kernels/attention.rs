//! Attention of a tile of query rows over one partition of the cache, generic over vectors and cache types.
//!
//! A row's scores, its softmax and its weighted sum go through the same operations in the same order whichever rows share the
//! tile: sharing only saves loads.

use super::cached::{Cached, GROUP};
use super::math::exp2;
use super::simd::Simd;

/// Positions of a partition.
pub(crate) const PARTITION: usize = 256;

/// Query rows of one key/value head over one partition.
pub(crate) struct AttendTile {
    /// `[rows, head_dim / 2]` of [`Cached::Query`].
    pub(crate) queries: *const u8,
    /// `head_dim / 2`.
    pub(crate) pairs: usize,
    /// `[group][pairs]`, each 32 cache elements.
    pub(crate) keys: *const u8,
    /// `[tokens, value_stride]` cache elements.
    pub(crate) values: *const u8,
    /// Head dimension rounded up to 16.
    pub(crate) value_stride: usize,
    /// Rows, at least 1.
    pub(crate) rows: usize,
    /// Tokens each row attends to: 1 to 256, ascending.
    pub(crate) valid: *const u32,
    /// Scores are multiplied by this: `log2(e) / sqrt(head_dim)`.
    pub(crate) scale: f32,
    /// Scratch, `[rows, 256]`.
    pub(crate) scores: *mut f32,
    /// The result.
    pub(crate) out: Partial,
}

/// Softmax over a part of the positions, not yet normalised: with `p = 2^((s - max) * scale)` of the scores `s` before scaling,
/// `out = sum(p * v)` and `sum = sum(p)`. Subtracting first is exact near the maximum, however large that is.
#[derive(Clone, Copy)]
pub(crate) struct Partial {
    /// `[rows, head_dim rounded up to 16]`.
    pub(crate) out: *mut f32,
    /// `[rows]`.
    pub(crate) max: *mut f32,
    /// `[rows]`.
    pub(crate) sum: *mut f32,
}

/// Converts one query head, `2 * pairs` values, to the form [`attend`] takes.
///
/// # Safety
/// See [`Simd`]; `from` holds `2 * pairs` values and `to` room for `pairs` queries.
#[inline(always)]
pub(crate) unsafe fn prepare_query<C: Cached>(from: *const f32, pairs: usize, to: *mut u8) {
    let to = to.cast::<C::Query>();
    for i in 0..pairs {
        // SAFETY: by this function's contract.
        unsafe { to.add(i).write_unaligned(C::query(*from.add(2 * i), *from.add(2 * i + 1))) };
    }
}

/// Stores one key head; `to` is the token's place in its group's first pair.
///
/// # Safety
/// See [`Simd`]; `from` holds `2 * pairs` values, `to` reaches over the group's `pairs` of 32 elements.
#[inline(always)]
pub(crate) unsafe fn store_key<C: Cached>(from: *const f32, pairs: usize, to: *mut u8) {
    let to = to.cast::<C::Element>();
    // Where element 2i + 1 lies from element 2i.
    let odd = if C::TOKEN == 2 { 1 } else { GROUP };
    let lanes = C::S::LANES;
    let mut staged = [const { std::mem::MaybeUninit::<C::Element>::uninit() }; GROUP];
    let mut done = 0;
    while done < 2 * pairs {
        let n = lanes.min(2 * pairs - done);
        // SAFETY: `n` values remain; a full vector fits `staged` (LANES <= 16) and initialises what is read; `done` and `n`
        // are even, so pair `done / 2 + i` is below `pairs`.
        unsafe {
            C::store(staged.as_mut_ptr().cast(), C::S::load_first(from.add(done), n, 0.0));
            for i in 0..n / 2 {
                let pair = to.add((done / 2 + i) * (2 * GROUP));
                *pair = staged[2 * i].assume_init();
                *pair.add(odd) = staged[2 * i + 1].assume_init();
            }
        }
        done += lanes;
    }
}

/// Stores one value head, padded with zeros to a multiple of 16.
///
/// # Safety
/// See [`Simd`]; `from` holds `dim` values, `to` room for `dim` rounded up to 16.
#[inline(always)]
pub(crate) unsafe fn store_value<C: Cached>(from: *const f32, dim: usize, to: *mut u8) {
    let to = to.cast::<C::Element>();
    let mut done = 0;
    while done < dim {
        // SAFETY: in bounds by this function's contract; LANES divides 16.
        unsafe {
            let n = C::S::LANES.min(dim - done);
            C::store(to.add(done), C::S::load_first(from.add(done), n, 0.0));
        }
        done += C::S::LANES;
    }
}

/// Scores, softmax and weighted values of a tile.
///
/// # Safety
/// See [`Simd`]; everything in `tile` is in bounds of what its fields say, `valid` is ascending within 1..=256, keys and values
/// reach over the largest of it (keys in whole groups), and nothing else touches scratch and result.
#[inline(always)]
pub(crate) unsafe fn attend<C: Cached>(tile: &AttendTile) {
    // SAFETY: by this function's contract.
    unsafe {
        score::<C>(tile);
        for r in 0..tile.rows {
            let n = *tile.valid.add(r) as usize;
            let (max, sum) = softmax::<C::S>(tile.scores.add(r * PARTITION), n, tile.scale);
            *tile.out.max.add(r) = max;
            *tile.out.sum.add(r) = sum;
        }
        weigh::<C>(tile);
    }
}

/// `scores = queries @ keys^T` for every group any row attends to, before scaling.
///
/// # Safety
/// As [`attend`].
#[inline(always)]
unsafe fn score<C: Cached>(tile: &AttendTile) {
    let lanes = C::S::LANES;
    // SAFETY: rows and vectors stay below the tile's; the caller vouches for the rest.
    unsafe {
        let vectors = |row: usize| (*tile.valid.add(row) as usize).div_ceil(lanes);
        let all = vectors(tile.rows - 1);
        // A strip of keys stays in the first-level cache while all rows pass over it.
        let mut first = 0;
        while first < all {
            let mut row = 0;
            while row < tile.rows {
                let rows = C::S::ROWS.min(tile.rows - row);
                let end = vectors(row + rows - 1).min(first + STRIP);
                match rows {
                    1 => score_strip::<C, 1>(tile, row, first, end),
                    2 => score_strip::<C, 2>(tile, row, first, end),
                    3 => score_strip::<C, 3>(tile, row, first, end),
                    4 => score_strip::<C, 4>(tile, row, first, end),
                    5 => score_strip::<C, 5>(tile, row, first, end),
                    _ => score_strip::<C, 6>(tile, row, first, end),
                }
                row += rows;
            }
            first += STRIP;
        }
    }
}

/// Vectors of tokens in a strip of keys.
const STRIP: usize = 4;

/// Scores of `R` rows for the token vectors `first..end`, at most [`STRIP`].
///
/// # Safety
/// As [`attend`]; the rows are the tile's, and the last of them has more than `end - 1` vectors of tokens.
#[inline(always)]
unsafe fn score_strip<C: Cached, const R: usize>(tile: &AttendTile, row: usize, first: usize, end: usize) {
    let mut at = first;
    // SAFETY: by the caller's contract.
    unsafe {
        while C::S::VECTORS >= 4 && at + 4 <= end {
            score_block::<C, R, 4>(tile, row, at);
            at += 4;
        }
        while C::S::VECTORS >= 2 && at + 2 <= end {
            score_block::<C, R, 2>(tile, row, at);
            at += 2;
        }
        while at < end {
            score_block::<C, R, 1>(tile, row, at);
            at += 1;
        }
    }
}

/// Scores of `R` rows for `T` vectors of tokens: one chain of sums, over pairs of dimensions in order, for each score.
///
/// # Safety
/// As [`score_strip`].
#[inline(always)]
#[allow(clippy::needless_range_loop)] // rows and vectors also index memory
unsafe fn score_block<C: Cached, const R: usize, const T: usize>(tile: &AttendTile, row: usize, first: usize) {
    let lanes = C::S::LANES;
    // SAFETY: by the caller's contract; vectors of a group that has a valid token are stored memory.
    unsafe {
        let queries = tile.queries.cast::<C::Query>().add(row * tile.pairs);
        let keys = tile.keys.cast::<C::Element>();
        let mut starts = [keys; T];
        for (t, start) in starts.iter_mut().enumerate() {
            let token = (first + t) * lanes;
            *start = keys.add(token / GROUP * (tile.pairs * 2 * GROUP) + token % GROUP * C::TOKEN);
        }
        let mut acc = [[C::S::splat(0.0); T]; R];
        for i in 0..tile.pairs {
            for step in 0..C::STEPS {
                let mut k = [C::keys(starts[0].add(i * 2 * GROUP), step); T];
                for t in 1..T {
                    k[t] = C::keys(starts[t].add(i * 2 * GROUP), step);
                }
                for r in 0..R {
                    let q = &*queries.add(r * tile.pairs + i);
                    for t in 0..T {
                        acc[r][t] = C::dot(acc[r][t], k[t], q, step);
                    }
                }
            }
        }
        for r in 0..R {
            for t in 0..T {
                C::S::store(tile.scores.add((row + r) * PARTITION + (first + t) * lanes), acc[r][t]);
            }
        }
    }
}

/// Replaces the first `n` scores by `2^((s - max) * scale)`; returns the maximum and the sum.
///
/// # Safety
/// See [`Simd`]; `scores` holds 256 values, and `n` is 1 to 256.
#[inline(always)]
unsafe fn softmax<S: Simd>(scores: *mut f32, n: usize, scale: f32) -> (f32, f32) {
    // SAFETY: a row of scores is 256 values, a multiple of LANES, and `n` is at most that.
    unsafe {
        let whole = n / S::LANES * S::LANES;
        // Finite, so that a score of -inf gives 0 and not NaN.
        let mut largest = S::splat(f32::MIN);
        let mut i = 0;
        while i < whole {
            largest = S::max(S::load(scores.add(i)), largest);
            i += S::LANES;
        }
        if i < n {
            largest = S::max(S::load_first(scores.add(i), n - i, f32::MIN), largest);
        }
        let max = S::largest(largest);
        let (largest, scale) = (S::splat(max), S::splat(scale));
        let mut sum = S::splat(0.0);
        let mut i = 0;
        while i < whole {
            let p = exp2::<S>(S::mul(S::sub(S::load(scores.add(i)), largest), scale));
            S::store(scores.add(i), p);
            sum = S::add(sum, p);
            i += S::LANES;
        }
        if i < n {
            let s = S::load_first(scores.add(i), n - i, f32::NEG_INFINITY);
            let p = exp2::<S>(S::mul(S::sub(s, largest), scale));
            S::store_first(scores.add(i), p, n - i);
            sum = S::add(sum, p);
        }
        (max, S::sum(sum))
    }
}

/// `out = scores @ values`, each row over its own tokens only: what lies beyond may be anything, NaN included.
///
/// # Safety
/// As [`attend`]; the scores are those of [`softmax`].
#[inline(always)]
unsafe fn weigh<C: Cached>(tile: &AttendTile) {
    // SAFETY: rows, tokens and columns stay below the tile's; the caller vouches for the rest.
    unsafe {
        let mut row = 0;
        while row < tile.rows {
            let rows = C::S::ROWS.min(tile.rows - row);
            let shared = *tile.valid.add(row) as usize;
            match rows {
                1 => weigh_rows::<C, 1>(tile, row, 0, shared),
                2 => weigh_rows::<C, 2>(tile, row, 0, shared),
                3 => weigh_rows::<C, 3>(tile, row, 0, shared),
                4 => weigh_rows::<C, 4>(tile, row, 0, shared),
                5 => weigh_rows::<C, 5>(tile, row, 0, shared),
                _ => weigh_rows::<C, 6>(tile, row, 0, shared),
            }
            for r in row..row + rows {
                let n = *tile.valid.add(r) as usize;
                if n > shared {
                    weigh_rows::<C, 1>(tile, r, shared, n);
                }
            }
            row += rows;
        }
    }
}

/// Adds the tokens `from..to` to the sums of `R` rows, or starts the sums when `from` is 0.
///
/// # Safety
/// As [`weigh`]; the rows are the tile's, and each has at least `to` tokens.
#[inline(always)]
unsafe fn weigh_rows<C: Cached, const R: usize>(tile: &AttendTile, row: usize, from: usize, to: usize) {
    let lanes = C::S::LANES;
    let mut column = 0;
    // SAFETY: `value_stride` is a multiple of 16, hence of LANES: columns stay below it.
    unsafe {
        while C::S::VECTORS >= 4 && column + 4 * lanes <= tile.value_stride {
            weigh_block::<C, R, 4>(tile, row, column, from, to);
            column += 4 * lanes;
        }
        while C::S::VECTORS >= 2 && column + 2 * lanes <= tile.value_stride {
            weigh_block::<C, R, 2>(tile, row, column, from, to);
            column += 2 * lanes;
        }
        while column < tile.value_stride {
            weigh_block::<C, R, 1>(tile, row, column, from, to);
            column += lanes;
        }
    }
}

/// `R` rows, `T` vectors of columns: one chain of sums, over tokens in order, for each output.
///
/// # Safety
/// As [`weigh_rows`]; the columns are below `value_stride`.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // rows and vectors also index memory
unsafe fn weigh_block<C: Cached, const R: usize, const T: usize>(
    tile: &AttendTile,
    row: usize,
    column: usize,
    from: usize,
    to: usize,
) {
    let lanes = C::S::LANES;
    // SAFETY: by the caller's contract.
    unsafe {
        let out = tile.out.out.add(row * tile.value_stride + column);
        let scores = tile.scores.add(row * PARTITION);
        let mut acc = [[C::S::splat(0.0); T]; R];
        if from > 0 {
            for r in 0..R {
                for t in 0..T {
                    acc[r][t] = C::S::load(out.add(r * tile.value_stride + t * lanes));
                }
            }
        }
        let mut values = tile.values.cast::<C::Element>().add(from * tile.value_stride + column);
        for token in from..to {
            let mut v = [C::values(values); T];
            for t in 1..T {
                v[t] = C::values(values.add(t * lanes));
            }
            for r in 0..R {
                let p = C::S::splat(*scores.add(r * PARTITION + token));
                for t in 0..T {
                    acc[r][t] = C::S::mul_add(p, v[t], acc[r][t]);
                }
            }
            values = values.add(tile.value_stride);
        }
        for r in 0..R {
            for t in 0..T {
                C::S::store(out.add(r * tile.value_stride + t * lanes), acc[r][t]);
            }
        }
    }
}

/// Adds the partial softmax `next` of later positions to `total`, for `rows` rows of `width` values; `scale` is that of the tile.
///
/// # Safety
/// See [`Simd`]; both hold `rows` rows, `width` is a multiple of 16, and they do not overlap.
#[inline(always)]
pub(crate) unsafe fn merge<S: Simd>(total: Partial, next: Partial, rows: usize, width: usize, scale: f32) {
    // SAFETY: by this function's contract.
    unsafe {
        for r in 0..rows {
            let (a, b) = (*total.max.add(r), *next.max.add(r));
            let max = if a > b { a } else { b };
            let keep = exp2::<S>(S::splat((a - max) * scale));
            let take = exp2::<S>(S::splat((b - max) * scale));
            *total.max.add(r) = max;
            let sum = S::mul(S::splat(*total.sum.add(r)), keep);
            *total.sum.add(r) = S::lane0(S::mul_add(S::splat(*next.sum.add(r)), take, sum));
            let mut i = r * width;
            while i < (r + 1) * width {
                let kept = S::mul(S::load(total.out.add(i)), keep);
                S::store(total.out.add(i), S::mul_add(S::load(next.out.add(i)), take, kept));
                i += S::LANES;
            }
        }
    }
}

/// `to = from / sum`, `dim` values.
///
/// # Safety
/// See [`Simd`]; `from` and `to` hold `dim` values.
#[inline(always)]
pub(crate) unsafe fn finish<S: Simd>(from: *const f32, sum: f32, to: *mut f32, dim: usize) {
    // SAFETY: by this function's contract.
    unsafe {
        let factor = S::splat(1.0 / sum);
        let mut i = 0;
        while i + S::LANES <= dim {
            S::store(to.add(i), S::mul(S::load(from.add(i)), factor));
            i += S::LANES;
        }
        if i < dim {
            S::store_first(to.add(i), S::mul(S::load_first(from.add(i), dim - i, 0.0), factor), dim - i);
        }
    }
}
