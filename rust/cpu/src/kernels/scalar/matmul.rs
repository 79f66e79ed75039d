//! Portable matmul: the same packed layout and the same arithmetic as the vector kernels, four outputs at a time.

use half::{bf16, f16};

use crate::activations::{BlockMeta, LARGEST, Rows, STEP, TINY};
use crate::matmul::{MatmulKernels, Tile};
use crate::pack::{BLOCK, Format};

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
        q8_0: [quantized::<Q8_0, false>, quantized::<Q8_0, true>],
        q4_0: [quantized::<Q4_0, false>, quantized::<Q4_0, true>],
        q4_1: [quantized::<Q4_1, false>, quantized::<Q4_1, true>],
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
        let mut sum = 0;
        for (k, v) in x.iter().enumerate() {
            let q = (v * inverse).round_ties_even() as i32;
            let high = if WIDE { (q + STEP / 2).div_euclid(STEP) } else { q };
            codes[b * BLOCK + k] = high as i8;
            if WIDE {
                low[b * BLOCK + k] = (q - high * STEP) as i8;
            }
            sum = i32::wrapping_add(sum, q);
        }
        *meta = BlockMeta::new(largest / most, sum);
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

/// The integer part of a quantised type.
trait Codes {
    const FORMAT: Format;
    const HAS_MIN: bool = false;
    /// Sum of `code * activation` over the lane's share of a block.
    fn dot(block: &[u8], lane: usize, activations: &[i8]) -> i32;
}

/// The byte of inputs `4 * quad..4 * quad + 4` of a lane.
fn four(block: &[u8], quad: usize, lane: usize) -> &[u8] {
    &block[(quad * LANES + lane) * 4..][..4]
}

/// Nibbles less `offset`, against both halves of the activations.
fn dot_nibbles(block: &[u8], lane: usize, activations: &[i8], offset: i32) -> i32 {
    let (low, high) = activations.split_at(BLOCK / 2);
    let mut sum = 0;
    for quad in 0..BLOCK / 8 {
        for (i, &byte) in four(block, quad, lane).iter().enumerate() {
            sum += (i32::from(byte & 15) - offset) * i32::from(low[4 * quad + i]);
            sum += (i32::from(byte >> 4) - offset) * i32::from(high[4 * quad + i]);
        }
    }
    sum
}

struct Q8_0;
impl Codes for Q8_0 {
    const FORMAT: Format = Format::Q8_0;
    fn dot(block: &[u8], lane: usize, activations: &[i8]) -> i32 {
        let mut sum = 0;
        for (quad, a) in activations.chunks_exact(4).enumerate() {
            for (&w, &a) in four(block, quad, lane).iter().zip(a) {
                sum += i32::from(w as i8) * i32::from(a);
            }
        }
        sum
    }
}

struct Q4_0;
impl Codes for Q4_0 {
    const FORMAT: Format = Format::Q4_0;
    fn dot(block: &[u8], lane: usize, activations: &[i8]) -> i32 {
        dot_nibbles(block, lane, activations, 8)
    }
}

struct Q4_1;
impl Codes for Q4_1 {
    const FORMAT: Format = Format::Q4_1;
    const HAS_MIN: bool = true;
    fn dot(block: &[u8], lane: usize, activations: &[i8]) -> i32 {
        dot_nibbles(block, lane, activations, 0)
    }
}

/// # Safety
/// See [`crate::matmul::TileKernel`].
unsafe fn quantized<C: Codes, const WIDE: bool>(tile: &Tile) {
    let Rows { codes, low, meta, cols, .. } = tile.rows;
    let (blocks, block_bytes) = (cols / BLOCK, C::FORMAT.block_bytes(LANES));
    let code_bytes = C::FORMAT.code_bytes() * LANES;
    // SAFETY: a group holds `blocks` blocks.
    let weight = unsafe { std::slice::from_raw_parts(tile.weight, blocks * block_bytes) };
    for i in 0..tile.count {
        let row = tile.first + i;
        // SAFETY: row `first + i` exists and was converted.
        let (codes, low, meta) = unsafe {
            (
                std::slice::from_raw_parts(codes.add(row * cols), cols),
                std::slice::from_raw_parts(low.add(row * cols), cols),
                std::slice::from_raw_parts(meta.add(row * blocks), blocks),
            )
        };
        let mut sums = [0.0; LANES];
        for (b, (block, meta)) in weight.chunks_exact(block_bytes).zip(meta).enumerate() {
            let plane = |plane: &[i8], lane: usize| C::dot(block, lane, &plane[b * BLOCK..(b + 1) * BLOCK]);
            let half = |i: usize, lane: usize| {
                let at = code_bytes + (i * LANES + lane) * 2;
                f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
            };
            for (lane, sum) in sums.iter_mut().enumerate() {
                let dot = if WIDE { plane(codes, lane) * STEP + plane(low, lane) } else { plane(codes, lane) };
                *sum += dot as f32 * half(0, lane) * meta.scale;
                if C::HAS_MIN {
                    *sum += half(1, lane) * meta.sum;
                }
            }
        }
        // SAFETY: row `i` of the tile exists.
        unsafe { store(tile, i, &sums) };
    }
}
