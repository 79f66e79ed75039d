//! The matmul of quantised weights, written once over vectors of bytes and compiled for every layout and every instruction set
//! with byte products.
//!
//! One call computes a *tile*: the outputs of one packed *group* of weight rows, one in each lane, for some rows of activations.
//! The weights of the group are read in blocks of 32 inputs, each of eight *fours* of neighbouring inputs. A byte product (AVX-512's
//! `vpdpbusd`, or what AVX2 has instead) multiplies four codes of each lane with four codes of activations and adds them up.
//!
//! Such products want unsigned bytes on one side and signed ones on the other: weights are unsigned, activations signed. The offset
//! with which weights are stored is taken off by where the sum starts ([`BlockMeta::run_starts`]), which is exact. (AVX2 alone
//! multiplies bytes with an offset of 128 as signed ones, as unsigned ones would overflow the 16 bits that it adds in.) Within a
//! *run* of inputs with one scale, which is a block or half of one, sums stay integers, below 2^28. Then they become f32 and are
//! multiplied with the run's scale, which f32 holds exactly.
//!
//! Wide activations have two *planes* of codes, high and low. The sums over both are added as integers, the high one times 128.
//!
//! A row goes through the same operations in the same order whatever the rows beside it.

mod unpack;

use super::dot::{Dot, U, V};
use super::simd::Simd;
use crate::kernels::codes::{BlockMeta, Rows};
use crate::kernels::tile::Tile;
use crate::layout::{BLOCK, Coded, FOURS, RunScales};
use unpack::{four, halves, multiplied_signed, run_scales};

/// A group of outputs for the rows of a tile; `PLANES` is 2 for wide activations.
///
/// # Safety
/// As for [`TileKernel`](crate::kernels::tile::TileKernel).
#[inline(always)]
pub(crate) unsafe fn tile<D: Dot, C: Coded, const PLANES: usize>(isa: D, tile: &Tile) {
    let mut i = 0;
    // SAFETY: rows `i..i + MR` are within the tile.
    unsafe {
        while D::S::MATMUL_ROWS >= 8 && i + 8 <= tile.count {
            rows::<D, C, PLANES, 8>(isa, tile, i);
            i += 8;
        }
        while i + 4 <= tile.count {
            rows::<D, C, PLANES, 4>(isa, tile, i);
            i += 4;
        }
        if i + 2 <= tile.count {
            rows::<D, C, PLANES, 2>(isa, tile, i);
            i += 2;
        }
        if i < tile.count {
            rows::<D, C, PLANES, 1>(isa, tile, i);
        }
    }
}

/// Rows `i..i + MR` of a tile.
///
/// # Safety
/// As for [`tile`]; rows `i..i + MR` are within the tile.
#[inline(always)]
unsafe fn rows<D: Dot, C: Coded, const PLANES: usize, const MR: usize>(isa: D, tile: &Tile, i: usize) {
    let (s, shape, lanes) = (isa.simd(), C::SHAPE, D::S::LANES);
    let Rows { codes, low, meta, cols, .. } = tile.rows;
    let (row, blocks) = (tile.first + i, cols / BLOCK);
    // The offset makes the entries of a table unsigned; where they are multiplied as signed ones they stay as they are.
    let table = isa.table(tile.table.0, if multiplied_signed::<D, C>() { 0 } else { shape.offset() });
    let mut sums = [s.splat(0.0); MR];
    // SAFETY: the group has `blocks` blocks, each row `blocks` metas and `cols` codes in each plane, and `lanes` outputs.
    unsafe {
        let mut planes = [codes.add(row * cols); PLANES];
        if PLANES == 2 {
            planes[1] = low.add(row * cols);
        }
        let meta = meta.add(row * blocks);
        let mut weight = tile.weight;
        for super_block in 0..blocks / shape.blocks() {
            let scale_bytes = weight.add(shape.blocks() * shape.code_bytes(lanes));
            let halves =
                halves::<D, C>(isa, scale_bytes.add(shape.blocks() * shape.scale_bytes() * lanes), tile.table.1);
            for b in 0..shape.blocks() {
                let stride = shape.bytes(lanes) / shape.blocks();
                for line in (0..stride).step_by(64) {
                    isa.prefetch(weight.wrapping_add(b * stride + D::PREFETCH + line));
                }
                let scales = run_scales::<D, C>(isa, halves, scale_bytes.add(b * shape.scale_bytes() * lanes));
                let codes = weight.add(b * shape.code_bytes(lanes));
                let at = super_block * shape.blocks() + b;
                let mut activations = Block { planes, meta: meta.add(at), cols, blocks };
                for plane in &mut activations.planes {
                    *plane = plane.add(at * BLOCK);
                }
                if D::HOLD {
                    block_by_row::<D, C, PLANES, MR>(isa, codes, table, scales, &activations, &mut sums);
                } else {
                    block_by_four::<D, C, PLANES, MR>(isa, codes, table, scales, &activations, &mut sums);
                }
            }
            weight = weight.add(shape.bytes(lanes));
        }
        for (m, sum) in sums.into_iter().enumerate() {
            s.store_first(tile.out.add((i + m) * tile.stride), sum, tile.lanes);
        }
    }
}

/// The activations of a block of inputs, for `MR` rows.
struct Block<const PLANES: usize> {
    /// Codes of the first row, the high plane first.
    planes: [*const i8; PLANES],
    /// Meta of the first row.
    meta: *const BlockMeta,
    /// Codes from one row to the next.
    cols: usize,
    /// Metas from one row to the next.
    blocks: usize,
}

impl<const PLANES: usize> Block<PLANES> {
    /// Meta of row `m`.
    ///
    /// # Safety
    /// There is a row `m`.
    #[inline(always)]
    unsafe fn meta(&self, m: usize) -> &BlockMeta {
        // SAFETY: rows lie `blocks` metas apart.
        unsafe { &*self.meta.add(m * self.blocks) }
    }

    /// The codes of four `j` of row `m` in `plane`, a byte each.
    ///
    /// # Safety
    /// There is a row `m`.
    #[inline(always)]
    unsafe fn four(&self, plane: *const i8, m: usize, j: usize) -> i32 {
        // SAFETY: rows lie `cols` codes apart, and a block has `FOURS` fours.
        unsafe { plane.add(m * self.cols + 4 * j).cast::<i32>().read_unaligned() }
    }
}

/// Where the integer sum of a run starts: at minus the codes' offset times the sum of its activations.
#[inline(always)]
fn start<D: Dot, C: Coded>(isa: D, meta: &BlockMeta, run: usize) -> U<D> {
    let (s, shape) = (isa.simd(), C::SHAPE);
    let offset = u32::from(shape.offset());
    debug_assert!(
        offset == 0 || offset.is_power_of_two() && (shape.runs() == 2 || offset >= 8),
        "an offset with a start"
    );
    match (offset, shape.runs()) {
        (0, _) => s.splat_u(0),
        _ if multiplied_signed::<D, C>() => s.splat_u(0),
        (_, 2) => isa.shl(s.splat_u(meta.run_starts[run].cast_unsigned()), offset.ilog2()),
        (8, _) => s.splat_u(meta.start8.cast_unsigned()),
        (128, _) => s.splat_u(meta.start128.cast_unsigned()),
        _ => isa.shl(s.splat_u(meta.start8.cast_unsigned()), offset.ilog2() - 3),
    }
}

/// The sum of a run over both planes.
#[inline(always)]
fn total<D: Dot, const PLANES: usize>(isa: D, sums: [D::Sum; PLANES]) -> V<D> {
    let s = isa.simd();
    let high = isa.finish(sums[0]);
    s.to_f32(if PLANES == 2 { s.add_u(isa.shl(high, 7), isa.finish(sums[1])) } else { high })
}

/// Returns `sum + scaled * scale + min * sums`, with the scale and the sums of the activations. `scaled` is the sum over the block's
/// runs of their totals times their weights' scales, and `min` has the sign with which it is added.
#[inline(always)]
fn add<D: Dot, C: Coded>(isa: D, sum: V<D>, scaled: V<D>, min: [V<D>; 2], meta: &BlockMeta) -> V<D> {
    let s = isa.simd();
    let sum = s.mul_add(scaled, s.splat(meta.scale), sum);
    if !C::SHAPE.has_min() {
        sum
    } else if C::SHAPE.runs() == 1 {
        s.mul_add(min[0], s.splat(meta.sum), sum)
    } else {
        let sum = s.mul_add(min[0], s.splat(meta.run_sums[0]), sum);
        s.mul_add(min[1], s.splat(meta.run_sums[1]), sum)
    }
}

/// Runs `$body` for each four `$j` of a block as straight-line code, so that the shifts in [`four`] are by constants.
macro_rules! for_each_four {
    ($j:ident => $body:block) => {
        for_each_four!(@ $j, $body, 0 1 2 3 4 5 6 7)
    };
    (@ $j:ident, $body:block, $($at:literal)*) => {
        const { assert!([$($at),*].len() == FOURS) };
        $({
            let $j: usize = $at;
            $body
        })*
    };
}

/// A block for `MR` rows, one row after the other over weights held in registers.
///
/// # Safety
/// `codes` points to the block's codes, and `activations` has `MR` rows.
#[inline(always)]
unsafe fn block_by_row<D: Dot, C: Coded, const PLANES: usize, const MR: usize>(
    isa: D,
    codes: *const u8,
    table: U<D>,
    RunScales { scale, min }: RunScales<V<D>>,
    activations: &Block<PLANES>,
    sums: &mut [V<D>; MR],
) {
    let (s, fours) = (isa.simd(), FOURS / C::SHAPE.runs());
    let zero = s.splat_u(0);
    let mut w = [zero; FOURS];
    // SAFETY: the block has all of the fours.
    for_each_four!(j => { w[j] = unsafe { four::<D, C>(isa, codes, j, table) } });
    for (m, sum) in sums.iter_mut().enumerate() {
        // SAFETY: there are `MR` rows.
        let meta = unsafe { activations.meta(m) };
        let mut scaled = s.splat(0.0);
        for run in 0..C::SHAPE.runs() {
            let mut dots = [isa.begin(zero); PLANES];
            // In the low plane: the sum of the high one will be multiplied by 128.
            dots[PLANES - 1] = isa.begin(start::<D, C>(isa, meta, run));
            #[allow(clippy::needless_range_loop)] // the compiler unrolls this form
            for j in run * fours..(run + 1) * fours {
                for (dot, plane) in dots.iter_mut().zip(activations.planes) {
                    // SAFETY: there are `MR` rows.
                    *dot = isa.dot::<C>(*dot, j, w[j], unsafe { activations.four(plane, m, j) });
                }
            }
            let total = total(isa, dots);
            scaled = if run == 0 { s.mul(total, scale[0]) } else { s.mul_add(total, scale[run], scaled) };
        }
        *sum = add::<D, C>(isa, *sum, scaled, min, meta);
    }
}

/// A block for `MR` rows, one four of weights after the other, while registers hold the sums of all rows.
///
/// # Safety
/// As for [`block_by_row`].
#[inline(always)]
unsafe fn block_by_four<D: Dot, C: Coded, const PLANES: usize, const MR: usize>(
    isa: D,
    codes: *const u8,
    table: U<D>,
    RunScales { scale, min }: RunScales<V<D>>,
    activations: &Block<PLANES>,
    sums: &mut [V<D>; MR],
) {
    let (s, fours) = (isa.simd(), FOURS / C::SHAPE.runs());
    let zero = s.splat_u(0);
    let mut scaled = [s.splat(0.0); MR];
    let mut dots = [[isa.begin(zero); PLANES]; MR];
    // SAFETY: the block has all of the fours, and there are `MR` rows.
    unsafe {
        for_each_four!(j => {
            let run = j / fours;
            if j.is_multiple_of(fours) {
                for (m, dots) in dots.iter_mut().enumerate() {
                    *dots = [isa.begin(zero); PLANES];
                    dots[PLANES - 1] = isa.begin(start::<D, C>(isa, activations.meta(m), run));
                }
            }
            let w = four::<D, C>(isa, codes, j, table);
            for (m, dots) in dots.iter_mut().enumerate() {
                for (dot, plane) in dots.iter_mut().zip(activations.planes) {
                    *dot = isa.dot::<C>(*dot, j, w, activations.four(plane, m, j));
                }
            }
            if j % fours == fours - 1 {
                for (scaled, dots) in scaled.iter_mut().zip(dots) {
                    let total = total(isa, dots);
                    *scaled =
                        if run == 0 { s.mul(total, scale[0]) } else { s.mul_add(total, scale[run], *scaled) };
                }
            }
        });
        for (m, (sum, scaled)) in sums.iter_mut().zip(scaled).enumerate() {
            *sum = add::<D, C>(isa, *sum, scaled, min, activations.meta(m));
        }
    }
}
