//! Products of the queries of a tile and the keys of a partition.

use std::ops::Range;

use super::tile::{AttendTile, PARTITION};
use crate::kernels::generic::cached::{Cached, PANEL};
use crate::kernels::generic::simd::Simd;

/// `scores = queries @ keys^T` for every vector of tokens that holds one any row sees, before scaling.
///
/// # Safety
/// As [`attend`](super::attend).
#[inline(always)]
pub(super) unsafe fn score<C: Cached>(c: C, tile: &AttendTile) {
    let lanes = C::S::LANES;
    // SAFETY: rows and vectors stay below the tile's; the caller vouches for the rest.
    unsafe {
        let begin = |row: usize| tile.visible(row).start / lanes;
        let end = |row: usize| tile.visible(row).end.div_ceil(lanes);
        let all = end(tile.rows - 1);
        // A strip of keys stays in the first-level cache while all rows pass over it.
        let mut first = begin(0);
        while first < all {
            let mut row = 0;
            while row < tile.rows {
                let rows = C::S::ROWS.min(tile.rows - row);
                let strip = begin(row).max(first)..end(row + rows - 1).min(first + STRIP);
                match rows {
                    1 => score_strip::<C, 1>(c, tile, row, strip),
                    2 => score_strip::<C, 2>(c, tile, row, strip),
                    3 => score_strip::<C, 3>(c, tile, row, strip),
                    4 => score_strip::<C, 4>(c, tile, row, strip),
                    5 => score_strip::<C, 5>(c, tile, row, strip),
                    _ => score_strip::<C, 6>(c, tile, row, strip),
                }
                row += rows;
            }
            first += STRIP;
        }
    }
}

/// Vectors of tokens in a strip of keys.
const STRIP: usize = 4;

/// Scores of `R` rows for a strip of token vectors, at most [`STRIP`]; none where it ends before it begins.
///
/// # Safety
/// As [`attend`](super::attend); the rows are the tile's, and the last of them sees a token in or beyond the last vector.
#[inline(always)]
unsafe fn score_strip<C: Cached, const R: usize>(c: C, tile: &AttendTile, row: usize, strip: Range<usize>) {
    let Range { start: mut at, end } = strip;
    // SAFETY: by the caller's contract.
    unsafe {
        while C::S::VECTORS >= 4 && at + 4 <= end {
            score_block::<C, R, 4>(c, tile, row, at);
            at += 4;
        }
        while C::S::VECTORS >= 2 && at + 2 <= end {
            score_block::<C, R, 2>(c, tile, row, at);
            at += 2;
        }
        while at < end {
            score_block::<C, R, 1>(c, tile, row, at);
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
unsafe fn score_block<C: Cached, const R: usize, const T: usize>(c: C, tile: &AttendTile, row: usize, first: usize) {
    let (s, lanes) = (c.simd(), C::S::LANES);
    // SAFETY: by the caller's contract; vectors of a panel that has a valid token are stored memory.
    unsafe {
        let queries = tile.queries.cast::<C::Query>().add(row * tile.pairs);
        let mut starts = [std::ptr::null::<C::Element>(); T];
        for (t, start) in starts.iter_mut().enumerate() {
            let token = (first + t) * lanes;
            let panel = *tile.keys.add(token / PANEL);
            *start = panel.cast::<C::Element>().add(token % PANEL * C::TOKEN);
        }
        let mut acc = [[s.splat(0.0); T]; R];
        for i in 0..tile.pairs {
            for step in 0..C::STEPS {
                let mut k = [c.keys(starts[0].add(i * 2 * PANEL), step); T];
                for t in 1..T {
                    k[t] = c.keys(starts[t].add(i * 2 * PANEL), step);
                }
                for r in 0..R {
                    let q = &*queries.add(r * tile.pairs + i);
                    for t in 0..T {
                        acc[r][t] = c.dot(acc[r][t], k[t], q, step);
                    }
                }
            }
        }
        for r in 0..R {
            for t in 0..T {
                s.store(tile.scores.add((row + r) * PARTITION + (first + t) * lanes), acc[r][t]);
            }
        }
    }
}
