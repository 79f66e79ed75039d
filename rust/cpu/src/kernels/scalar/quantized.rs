//! The matmul of quantised weights without byte products: the same packed layout and integer sums as the vector kernels.

use crate::kernels::codes::{BlockMeta, Rows, STEP};
use crate::kernels::generic::simd::Simd;
use crate::kernels::tile::{Tile, TileKernel};
use crate::layout::{BLOCK, Coded, ForLayout, Layout, RunScales, for_each, unpack_block};

/// Rows of a packed group, a lane each.
const LANES: usize = <super::simd::Scalar as Simd>::LANES;

/// Rows of activations for which a block is unpacked once.
const ROWS: usize = 8;

/// The kernels of every layout, for blocks of codes and for wide ones.
pub(super) fn tiles() -> [[TileKernel; 2]; Layout::COUNT] {
    for_each::<Tiles>()
}

struct Tiles;

impl ForLayout for Tiles {
    type Result = [TileKernel; 2];
    fn of<C: Coded>() -> [TileKernel; 2] {
        [quantized::<C, false>, quantized::<C, true>]
    }
}

/// # Safety
/// As for [`TileKernel`].
unsafe fn quantized<C: Coded, const WIDE: bool>(tile: &Tile) {
    let Rows { codes, low, meta, cols, .. } = tile.rows;
    let (blocks, bytes) = (cols / BLOCK, C::SHAPE.bytes(LANES));
    // SAFETY: a group holds `blocks` blocks.
    let weight = unsafe { std::slice::from_raw_parts(tile.weight, blocks / C::SHAPE.blocks() * bytes) };
    for first in (0..tile.count).step_by(ROWS) {
        let mut sums = [[0.0; LANES]; ROWS];
        let sums = &mut sums[..ROWS.min(tile.count - first)];
        for at in 0..blocks {
            let shared = &weight[at / C::SHAPE.blocks() * bytes..][..bytes];
            for lane in 0..LANES {
                let (values, scales) = unpack_block(C::SHAPE, tile.table, LANES, lane, shared, at % C::SHAPE.blocks());
                for (i, sums) in sums.iter_mut().enumerate() {
                    let row = tile.first + first + i;
                    // SAFETY: row `first + i` of the tile exists and was converted.
                    let (codes, low, meta) = unsafe {
                        (
                            &*codes.add(row * cols + at * BLOCK).cast::<[i8; BLOCK]>(),
                            &*low.add(row * cols + at * BLOCK).cast::<[i8; BLOCK]>(),
                            &*meta.add(row * blocks + at),
                        )
                    };
                    sums[lane] += block::<C, WIDE>(&values, &scales, codes, low, meta);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            // SAFETY: row `first + i` of the tile exists, and `lanes` outputs of it are the tile's.
            let out = unsafe { std::slice::from_raw_parts_mut(tile.out.add((first + i) * tile.stride), tile.lanes) };
            out.copy_from_slice(&sums[..tile.lanes]);
        }
    }
}

/// The part of one output that a block of inputs gives.
fn block<C: Coded, const WIDE: bool>(
    values: &[i8; BLOCK],
    scales: &RunScales<f32>,
    codes: &[i8; BLOCK],
    low: &[i8; BLOCK],
    meta: &BlockMeta,
) -> f32 {
    let run = BLOCK / C::SHAPE.runs();
    let mut scaled = 0.0;
    for (i, values) in values.chunks_exact(run).enumerate() {
        let plane = |plane: &[i8; BLOCK]| -> i32 {
            values.iter().zip(&plane[i * run..]).map(|(&w, &a)| i32::from(w) * i32::from(a)).sum()
        };
        let dot = if WIDE { plane(codes) * STEP + plane(low) } else { plane(codes) };
        scaled += dot as f32 * scales.scale[i];
    }
    scaled *= meta.scale;
    if C::SHAPE.has_min() {
        if C::SHAPE.runs() == 1 {
            scaled += scales.min[0] * meta.sum;
        } else {
            scaled += scales.min[0] * meta.run_sums[0] + scales.min[1] * meta.run_sums[1];
        }
    }
    scaled
}
