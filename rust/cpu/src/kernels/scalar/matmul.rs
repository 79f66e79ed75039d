//! Portable matmul: the same packed layout and the same arithmetic as the vector kernels, four outputs at a time.

use half::{bf16, f16};

use crate::activations::{BlockMeta, LARGEST, Rows, STEP, TINY};
use crate::layout::{BLOCK, Coded, ForLayout, Scaling, for_each};
use crate::matmul::{MatmulKernels, Tile, TileKernel};
use crate::pack::unpack_block;

/// Rows of a packed group.
const LANES: usize = 4;

pub(crate) fn kernels() -> MatmulKernels {
    MatmulKernels {
        lanes: LANES,
        wide: false,
        quantize: [quantize::<false>, quantize::<true>],
        pair: None,
        f32: dense::<F32>,
        f16: dense::<F16>,
        bf16: dense_bf16,
        quantized: for_each::<Tiles>(),
    }
}

/// f32 to i8 blocks: the largest magnitude of 32 becomes 127, or 127 x 128 in wide ones; ties to even.
///
/// # Safety
/// See [`crate::matmul::ConvertKernel`].
unsafe fn quantize<const WIDE: bool>(rows: &Rows, row: usize) {
    let Rows { x, codes, low, meta, cols, .. } = *rows;
    // SAFETY: by the contract, `row` exists in each of the four arrays and is ours.
    let (x, codes, low, meta) = unsafe {
        (
            std::slice::from_raw_parts(x.add(row * cols), cols),
            std::slice::from_raw_parts_mut(codes.cast_mut().add(row * cols), cols),
            std::slice::from_raw_parts_mut(low.cast_mut().add(row * cols), cols),
            std::slice::from_raw_parts_mut(meta.cast_mut().add(row * (cols / BLOCK)), cols / BLOCK),
        )
    };
    let most = if WIDE { LARGEST * STEP } else { LARGEST } as f32;
    for (b, (x, meta)) in x.chunks_exact(BLOCK).zip(meta).enumerate() {
        let largest = x.iter().fold(0f32, |a, v| a.max(v.abs()));
        let inverse = if largest > TINY { most / largest } else { 0.0 };
        let mut sums = [0i32; 2];
        for (k, v) in x.iter().enumerate() {
            let q = (v * inverse).round_ties_even() as i32;
            let high = if WIDE { (q + STEP / 2).div_euclid(STEP) } else { q };
            codes[b * BLOCK + k] = high as i8;
            if WIDE {
                low[b * BLOCK + k] = (q - high * STEP) as i8;
            }
            let sum = &mut sums[k / (BLOCK / 2)];
            *sum = sum.wrapping_add(q);
        }
        *meta = BlockMeta::new(largest / most, sums);
    }
}

/// A dense element type.
trait Dense {
    const BYTES: usize;
    fn value(bytes: &[u8]) -> f32;
}

struct F32;
impl Dense for F32 {
    const BYTES: usize = 4;
    fn value(b: &[u8]) -> f32 {
        f32::from_le_bytes([b[0], b[1], b[2], b[3]])
    }
}

struct F16;
impl Dense for F16 {
    const BYTES: usize = 2;
    fn value(b: &[u8]) -> f32 {
        f16::from_le_bytes([b[0], b[1]]).to_f32()
    }
}

/// # Safety
/// See [`crate::matmul::TileKernel`].
unsafe fn dense<T: Dense>(tile: &Tile) {
    let cols = tile.rows.cols;
    // SAFETY: a group holds `cols * LANES` elements.
    let weight = unsafe { std::slice::from_raw_parts(tile.weight, cols * LANES * T::BYTES) };
    // SAFETY: passed on.
    unsafe {
        for_each_row(tile, |x, sums| {
            for (&x, w) in x.iter().zip(weight.chunks_exact(LANES * T::BYTES)) {
                for (sum, w) in sums.iter_mut().zip(w.chunks_exact(T::BYTES)) {
                    *sum += x * T::value(w);
                }
            }
        });
    }
}

/// # Safety
/// See [`crate::matmul::TileKernel`].
unsafe fn dense_bf16(tile: &Tile) {
    let cols = tile.rows.cols;
    // SAFETY: a group holds `LANES` pairs for every two inputs.
    let weight = unsafe { std::slice::from_raw_parts(tile.weight, cols.div_ceil(2) * LANES * 4) };
    // SAFETY: passed on.
    unsafe {
        for_each_row(tile, |x, sums| {
            for (x, w) in x.chunks(2).zip(weight.chunks_exact(LANES * 4)) {
                for (sum, w) in sums.iter_mut().zip(w.chunks_exact(4)) {
                    for (&x, w) in x.iter().zip(w.chunks_exact(2)) {
                        *sum += x * bf16::from_le_bytes([w[0], w[1]]).to_f32();
                    }
                }
            }
        });
    }
}

/// Gives each f32 row and its four sums to `f`, and stores the sums that exist.
///
/// # Safety
/// See [`crate::matmul::TileKernel`].
unsafe fn for_each_row(tile: &Tile, f: impl Fn(&[f32], &mut [f32; LANES])) {
    let cols = tile.rows.cols;
    for i in 0..tile.count {
        // SAFETY: row `first + i` exists by the contract.
        let x = unsafe { std::slice::from_raw_parts(tile.rows.x.add((tile.first + i) * cols), cols) };
        let mut sums = [0.0; LANES];
        f(x, &mut sums);
        // SAFETY: so does its output.
        unsafe { store(tile, i, &sums) };
    }
}

/// # Safety
/// Row `i` of the tile exists.
unsafe fn store(tile: &Tile, i: usize, sums: &[f32; LANES]) {
    // SAFETY: `lanes` outputs of the row are ours by the tile's contract.
    let out = unsafe { std::slice::from_raw_parts_mut(tile.out.add(i * tile.stride), tile.lanes) };
    out.copy_from_slice(&sums[..tile.lanes]);
}

/// Rows that share the unpacking of a block.
const ROWS: usize = 8;

/// The kernels of every layout.
struct Tiles;

impl ForLayout for Tiles {
    type Result = [TileKernel; 2];
    fn of<C: Coded>() -> [TileKernel; 2] {
        [quantized::<C, false>, quantized::<C, true>]
    }
}

/// # Safety
/// See [`crate::matmul::TileKernel`].
unsafe fn quantized<C: Coded, const WIDE: bool>(tile: &Tile) {
    let Rows { codes, low, meta, cols, .. } = tile.rows;
    let (blocks, bytes) = (cols / BLOCK, C::SHAPE.bytes(LANES));
    // SAFETY: a group holds that many blocks.
    let weight = unsafe { std::slice::from_raw_parts(tile.weight, blocks / C::SHAPE.blocks() * bytes) };
    for first in (0..tile.count).step_by(ROWS) {
        let mut sums = [[0.0; LANES]; ROWS];
        let sums = &mut sums[..ROWS.min(tile.count - first)];
        for at in 0..blocks {
            let shared = &weight[at / C::SHAPE.blocks() * bytes..][..bytes];
            for lane in 0..LANES {
                let (values, scaling) = unpack_block(C::SHAPE, tile.table, LANES, lane, shared, at % C::SHAPE.blocks());
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
                    sums[lane] += block::<C, WIDE>(&values, &scaling, codes, low, meta);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            // SAFETY: row `first + i` of the tile exists.
            unsafe { store(tile, first + i, sums) };
        }
    }
}

/// The part of one output that a block of inputs gives.
fn block<C: Coded, const WIDE: bool>(
    values: &[i8; BLOCK],
    scaling: &Scaling,
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
        scaled += dot as f32 * scaling.scale[i];
    }
    scaled *= meta.scale;
    if C::SHAPE.has_min() {
        if C::SHAPE.runs() == 1 {
            scaled += scaling.min[0] * meta.sum;
        } else {
            scaled += scaling.min[0] * meta.run_sums[0] + scaling.min[1] * meta.run_sums[1];
        }
    }
    scaled
}
