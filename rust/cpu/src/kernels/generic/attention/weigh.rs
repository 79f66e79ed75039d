//! Values weighed by the softmax of their scores.

use std::ops::Range;

use super::tile::{AttendTile, PARTITION};
use crate::kernels::generic::cached::{Cached, PANEL};
use crate::kernels::generic::simd::Simd;

/// `out = scores @ values`, each row over what it sees only: the rest may be anything, NaN included.
///
/// # Safety
/// As [`attend`](super::attend); the scores are those of [`softmax`](super::softmax::softmax).
#[inline(always)]
pub(super) unsafe fn weigh<C: Cached>(c: C, tile: &AttendTile) {
    // SAFETY: rows, tokens and columns stay below the tile's; the caller vouches for the rest.
    unsafe {
        let mut row = 0;
        while row < tile.rows {
            let rows = C::S::ROWS.min(tile.rows - row);
            // What all of the block see; where that is nothing, its end is where the last of them begins.
            let from = tile.visible(row + rows - 1).start;
            let to = tile.visible(row).end.max(from);
            let begun = tile.visible(row).start < from;
            if begun {
                for r in row..row + rows {
                    let visible = tile.visible(r);
                    weigh_rows::<C, 1>(c, tile, r, visible.start..visible.end.min(from), Sums::Start);
                }
            }
            let (shared, sums) = (from..to, if begun { Sums::Continue } else { Sums::Start });
            match rows {
                1 => weigh_rows::<C, 1>(c, tile, row, shared, sums),
                2 => weigh_rows::<C, 2>(c, tile, row, shared, sums),
                3 => weigh_rows::<C, 3>(c, tile, row, shared, sums),
                4 => weigh_rows::<C, 4>(c, tile, row, shared, sums),
                5 => weigh_rows::<C, 5>(c, tile, row, shared, sums),
                _ => weigh_rows::<C, 6>(c, tile, row, shared, sums),
            }
            for r in row..row + rows {
                let end = tile.visible(r).end;
                if end > to {
                    weigh_rows::<C, 1>(c, tile, r, to..end, Sums::Continue);
                }
            }
            row += rows;
        }
    }
}

/// Whether a row has sums of earlier tokens.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sums {
    Start,
    Continue,
}

/// Adds tokens to the sums of `R` rows.
///
/// # Safety
/// As [`weigh`]; the rows are the tile's, and each sees the tokens.
#[inline(always)]
unsafe fn weigh_rows<C: Cached, const R: usize>(c: C, tile: &AttendTile, row: usize, tokens: Range<usize>, sums: Sums) {
    let lanes = C::S::LANES;
    let mut column = 0;
    // SAFETY: `value_stride` is a multiple of 16, hence of LANES: columns stay below it.
    unsafe {
        while C::S::VECTORS >= 4 && column + 4 * lanes <= tile.value_stride {
            weigh_block::<C, R, 4>(c, tile, row, column, &tokens, sums);
            column += 4 * lanes;
        }
        while C::S::VECTORS >= 2 && column + 2 * lanes <= tile.value_stride {
            weigh_block::<C, R, 2>(c, tile, row, column, &tokens, sums);
            column += 2 * lanes;
        }
        while column < tile.value_stride {
            weigh_block::<C, R, 1>(c, tile, row, column, &tokens, sums);
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
    c: C,
    tile: &AttendTile,
    row: usize,
    column: usize,
    tokens: &Range<usize>,
    sums: Sums,
) {
    let (s, lanes) = (c.simd(), C::S::LANES);
    // SAFETY: by the caller's contract.
    unsafe {
        let out = tile.out.out.add(row * tile.value_stride + column);
        let scores = tile.scores.add(row * PARTITION);
        let mut acc = [[s.splat(0.0); T]; R];
        if sums == Sums::Continue {
            for r in 0..R {
                for t in 0..T {
                    acc[r][t] = s.load(out.add(r * tile.value_stride + t * lanes));
                }
            }
        }
        let mut from = tokens.start;
        while from < tokens.end {
            let to = (from / PANEL * PANEL + PANEL).min(tokens.end);
            let panel = (*tile.values.add(from / PANEL)).cast::<C::Element>();
            let mut values = panel.add(from % PANEL * tile.value_stride + column);
            for token in from..to {
                let mut v = [c.values(values); T];
                for t in 1..T {
                    v[t] = c.values(values.add(t * lanes));
                }
                for r in 0..R {
                    let p = s.splat(*scores.add(r * PARTITION + token));
                    for t in 0..T {
                        acc[r][t] = s.mul_add(p, v[t], acc[r][t]);
                    }
                }
                values = values.add(tile.value_stride);
            }
            from = to;
        }
        for r in 0..R {
            for t in 0..T {
                s.store(out.add(r * tile.value_stride + t * lanes), acc[r][t]);
            }
        }
    }
}
