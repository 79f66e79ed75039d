//! The matmul of quantised weights, written once over vectors of bytes and compiled for every layout and instruction set.
//!
//! Weight codes are unsigned and activations signed, as the byte products of the hardware want them. A code stored with an
//! offset is not made signed: the integer sum starts at minus the offset times the sum of the activations, which is exact.
//! Within a run of inputs with one scale all sums are integers; scales, which are exact products, are applied as f32.
//!
//! For a row, every variant of the kernel runs the same operations in the same order, whatever the rows beside it.

use crate::activations::{BlockMeta, Rows};
use crate::kernels::simd::Simd;
use crate::layout::{BLOCK, Coded, FOURS, Scales, Values};
use crate::matmul::Tile;

/// Integers of a set's vectors.
type U<D> = <<D as Dot>::S as Simd>::U;
/// Floats of a set's vectors.
type V<D> = <<D as Dot>::S as Simd>::V;

/// Byte vectors and their products on one instruction set. A vector has four bytes for each f32 lane.
///
/// # Safety
/// As for [`Simd`]. Methods that take a pointer to weights read a vector of the type they name, at any alignment.
pub(crate) trait Dot: 'static {
    type S: Simd;
    /// Sums of byte products in progress.
    type Sum: Copy;
    /// The most rows computed together, 4 or 8.
    const ROWS: usize;
    /// Whether registers hold a block's weights while rows go by; otherwise they hold the rows' sums.
    const HOLD: bool;
    /// Whether codes with an offset of 128 are multiplied as signed ones.
    const SIGNED: bool;
    /// Bytes to fetch ahead of use: weights stream from memory once, and the hardware's prefetcher stops at pages.
    const PREFETCH: usize;

    unsafe fn prefetch(p: *const u8);
    unsafe fn load(p: *const u8) -> U<Self>;
    /// Each byte shifted left (right where negative), then masked; bits that come from a neighbour must be masked away.
    unsafe fn bits(v: U<Self>, left: i32, mask: u8) -> U<Self>;
    unsafe fn or(a: U<Self>, b: U<Self>) -> U<Self>;
    unsafe fn and(a: U<Self>, b: U<Self>) -> U<Self>;
    /// Flips the sign bit of each byte.
    unsafe fn flip(v: U<Self>) -> U<Self>;
    /// A table for [`lookup`](Self::lookup), `offset` added to each entry.
    unsafe fn table(table: &[i8; 16], offset: u8) -> U<Self>;
    /// The entries of codes below 16.
    unsafe fn lookup(table: U<Self>, codes: U<Self>) -> U<Self>;
    /// Shifts each 32 bits left.
    unsafe fn shl(v: U<Self>, n: u32) -> U<Self>;
    /// Converts signed integers.
    unsafe fn to_f32(v: U<Self>) -> V<Self>;

    /// Sums that start at `start`.
    unsafe fn begin(start: U<Self>) -> Self::Sum;
    /// Adds the products of four `j` of `C`'s codes with four activations, the same for every lane.
    unsafe fn dot<C: Coded>(sum: Self::Sum, j: usize, codes: U<Self>, activations: *const i8) -> Self::Sum;
    /// The sums once every four of a run was added, in order.
    unsafe fn finish(sum: Self::Sum) -> U<Self>;

    /// Widens f16.
    unsafe fn halves(p: *const u8) -> V<Self>;
    /// Widens unsigned bytes.
    unsafe fn bytes(p: *const u8) -> U<Self>;
    /// Widens signed bytes.
    unsafe fn signed_bytes(p: *const u8) -> U<Self>;
    /// `2^(byte - 128)`, exact for every byte.
    unsafe fn exponents(p: *const u8) -> V<Self>;
}

/// A group of outputs for the rows of a tile; `PLANES` is 2 for wide activations.
///
/// # Safety
/// See [`crate::matmul::TileKernel`] and [`Dot`].
#[inline(always)]
pub(crate) unsafe fn tile<D: Dot, C: Coded, const PLANES: usize>(tile: &Tile) {
    let mut i = 0;
    // SAFETY: rows `i..i + MR` are within the tile.
    unsafe {
        while D::ROWS >= 8 && i + 8 <= tile.count {
            rows::<D, C, PLANES, 8>(tile, i);
            i += 8;
        }
        while i + 4 <= tile.count {
            rows::<D, C, PLANES, 4>(tile, i);
            i += 4;
        }
        if i + 2 <= tile.count {
            rows::<D, C, PLANES, 2>(tile, i);
            i += 2;
        }
        if i < tile.count {
            rows::<D, C, PLANES, 1>(tile, i);
        }
    }
}

/// Rows `i..i + MR` of a tile.
///
/// # Safety
/// As for [`tile`]; the rows exist.
#[inline(always)]
unsafe fn rows<D: Dot, C: Coded, const PLANES: usize, const MR: usize>(tile: &Tile, i: usize) {
    let shape = C::SHAPE;
    let lanes = D::S::LANES;
    let Rows { codes, low, meta, cols, .. } = tile.rows;
    let (row, blocks) = (tile.first + i, cols / BLOCK);
    // SAFETY: a group has `blocks` blocks, each row `blocks` metas and `cols` codes in each plane; prefetching past the end is
    // harmless.
    unsafe {
        let mut planes = [codes.add(row * cols); PLANES];
        if PLANES == 2 {
            planes[1] = low.add(row * cols);
        }
        let meta = meta.add(row * blocks);
        let signed = D::SIGNED && shape.offset() == 128;
        let table = D::table(tile.table.0, if signed { 0 } else { shape.offset() });
        let mut sums = [D::S::splat(0.0); MR];
        let mut weight = tile.weight;
        for shared in 0..blocks / shape.blocks() {
            let scale_bytes = weight.add(shape.blocks() * shape.code_bytes(lanes));
            let halves = halves::<D, C>(scale_bytes.add(shape.blocks() * shape.scale_bytes() * lanes), tile.table.1);
            for b in 0..shape.blocks() {
                let share = shape.bytes(lanes) / shape.blocks();
                for line in (0..share).step_by(64) {
                    D::prefetch(weight.wrapping_add(b * share + D::PREFETCH + line));
                }
                let scaling = scaling::<D, C>(halves, scale_bytes.add(b * shape.scale_bytes() * lanes));
                let codes = weight.add(b * shape.code_bytes(lanes));
                let at = shared * shape.blocks() + b;
                let mut activations = Block { planes, meta: meta.add(at), cols, blocks };
                for plane in &mut activations.planes {
                    *plane = plane.add(at * BLOCK);
                }
                if D::HOLD {
                    block_by_row::<D, C, PLANES, MR>(codes, table, scaling, &activations, &mut sums);
                } else {
                    block_by_four::<D, C, PLANES, MR>(codes, table, scaling, &activations, &mut sums);
                }
            }
            weight = weight.add(shape.bytes(lanes));
        }
        for (m, sum) in sums.into_iter().enumerate() {
            D::S::store_first(tile.out.add((i + m) * tile.stride), sum, tile.lanes);
        }
    }
}

/// The activations of a block of inputs.
struct Block<const PLANES: usize> {
    /// Codes of the first row, the high plane first.
    planes: [*const i8; PLANES],
    /// Meta of the first row.
    meta: *const BlockMeta,
    /// Codes from row to row.
    cols: usize,
    /// Metas from row to row.
    blocks: usize,
}

/// Scales of the two runs of a block and minimums to add; those a layout lacks are not used.
type Scaling<V> = ([V; 2], [V; 2]);

/// `d` and `m` of the blocks that share halves, `m` such that it is added.
///
/// # Safety
/// As for [`tile`]; `p` points to the halves.
#[inline(always)]
unsafe fn halves<D: Dot, C: Coded>(p: *const u8, factor: f32) -> [V<D>; 2] {
    let shape = C::SHAPE;
    // SAFETY: as many vectors of halves as the shape has.
    unsafe {
        let mut halves = [D::S::splat(0.0); 2];
        for (i, half) in halves.iter_mut().enumerate() {
            if i < shape.halves() {
                *half = D::halves(p.add(i * D::S::LANES * 2));
            }
        }
        if matches!(shape.values, Values::Table(_)) {
            halves[0] = D::S::mul(halves[0], D::S::splat(factor));
        }
        if matches!(shape.scales, Scales::Minimum | Scales::MinimumPairs) {
            halves[1] = D::S::mul(halves[1], D::S::splat(-1.0));
        }
        halves
    }
}

/// The scaling of a block; every product is exact.
///
/// # Safety
/// As for [`tile`]; `p` points to the block's scale bytes.
#[inline(always)]
unsafe fn scaling<D: Dot, C: Coded>([d, m]: [V<D>; 2], p: *const u8) -> Scaling<V<D>> {
    // SAFETY: as many vectors of bytes as the shape has.
    unsafe {
        let second = p.wrapping_add(D::S::LANES);
        let unused = [m; 2];
        match C::SHAPE.scales {
            Scales::Half | Scales::HalfMin => ([d; 2], [m; 2]),
            Scales::Exponent => ([D::exponents(p); 2], unused),
            Scales::Signed => ([D::S::mul(d, D::to_f32(D::signed_bytes(p))); 2], unused),
            Scales::SignedPairs => {
                let first = D::S::mul(d, D::to_f32(D::signed_bytes(p)));
                ([first, D::S::mul(d, D::to_f32(D::signed_bytes(second)))], unused)
            }
            Scales::Minimum => {
                let scale = D::S::mul(d, D::to_f32(D::bytes(p)));
                ([scale; 2], [D::S::mul(m, D::to_f32(D::bytes(second))); 2])
            }
            Scales::MinimumPairs => {
                let (mut scale, mut min) = ([d; 2], [m; 2]);
                for run in 0..2 {
                    let pair = D::bytes(p.wrapping_add(run * D::S::LANES));
                    scale[run] = D::S::mul(d, D::to_f32(D::and(pair, D::S::splat_u(15))));
                    min[run] = D::S::mul(m, D::to_f32(D::S::shr_u::<4>(pair)));
                }
                (scale, min)
            }
        }
    }
}

/// Four `j` of a block's codes, unsigned or [`SIGNED`](Dot::SIGNED).
///
/// # Safety
/// As for [`tile`]; `codes` points to the block's.
#[inline(always)]
unsafe fn four<D: Dot, C: Coded>(codes: *const u8, j: usize, table: U<D>) -> U<D> {
    let shape = C::SHAPE;
    let (low, width) = (shape.low(j), D::S::LANES * 4);
    // SAFETY: a block has `bits` vectors of codes.
    unsafe {
        let mut w = D::load(codes.add(low.vector * width));
        if shape.bits < 8 {
            w = D::bits(w, -(low.shift as i32), low.mask);
        }
        if let Some(high) = shape.high(j) {
            let rest = D::load(codes.add(high.vector * width));
            let left = shape.low_bits() as i32 - high.shift as i32;
            w = D::or(w, D::bits(rest, left, high.mask << shape.low_bits()));
        }
        match shape.values {
            Values::Table(_) => D::lookup(table, w),
            Values::Offset(128) if D::SIGNED => D::flip(w),
            Values::Offset(_) => w,
        }
    }
}

/// Where the integer sum of a run starts: minus the codes' offset times the sum of its activations.
///
/// # Safety
/// As for [`tile`].
#[inline(always)]
unsafe fn start<D: Dot, C: Coded>(meta: &BlockMeta, run: usize) -> U<D> {
    let shape = C::SHAPE;
    let offset = u32::from(shape.offset());
    debug_assert!(offset == 0 || offset.is_power_of_two() && (shape.runs() == 2 || offset >= 8));
    // SAFETY: passed on.
    unsafe {
        match (offset, shape.runs()) {
            (0, _) => D::S::splat_u(0),
            (128, _) if D::SIGNED => D::S::splat_u(0),
            (_, 2) => D::shl(D::S::splat_u(meta.run_starts[run].cast_unsigned()), offset.ilog2()),
            (8, _) => D::S::splat_u(meta.start8.cast_unsigned()),
            (128, _) => D::S::splat_u(meta.start128.cast_unsigned()),
            _ => D::shl(D::S::splat_u(meta.start8.cast_unsigned()), offset.ilog2() - 3),
        }
    }
}

/// The sum over both planes as f32.
///
/// # Safety
/// As for [`tile`].
#[inline(always)]
unsafe fn total<D: Dot, const PLANES: usize>(sums: [D::Sum; PLANES]) -> V<D> {
    // SAFETY: passed on.
    unsafe {
        let high = D::finish(sums[0]);
        D::to_f32(if PLANES == 2 { D::S::add_u(D::shl(high, 7), D::finish(sums[1])) } else { high })
    }
}

/// Adds a block whose runs came to `total`, scaled but for the activations, to a row's sum.
///
/// # Safety
/// As for [`tile`].
#[inline(always)]
unsafe fn add<D: Dot, C: Coded>(sum: V<D>, total: V<D>, min: [V<D>; 2], meta: &BlockMeta) -> V<D> {
    // SAFETY: passed on.
    unsafe {
        let sum = D::S::mul_add(total, D::S::splat(meta.scale), sum);
        if !C::SHAPE.has_min() {
            sum
        } else if C::SHAPE.runs() == 1 {
            D::S::mul_add(min[0], D::S::splat(meta.sum), sum)
        } else {
            let sum = D::S::mul_add(min[0], D::S::splat(meta.run_sums[0]), sum);
            D::S::mul_add(min[1], D::S::splat(meta.run_sums[1]), sum)
        }
    }
}

/// Runs `$body` for each four `$j` of a block as straight-line code: a loop the compiler leaves rolled would shift by variable
/// counts.
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

/// A block of `MR` rows, one row after the other over weights held in registers.
///
/// # Safety
/// As for [`rows`].
#[inline(always)]
unsafe fn block_by_row<D: Dot, C: Coded, const PLANES: usize, const MR: usize>(
    codes: *const u8,
    table: U<D>,
    (scale, min): Scaling<V<D>>,
    activations: &Block<PLANES>,
    sums: &mut [V<D>; MR],
) {
    let fours = FOURS / C::SHAPE.runs();
    // SAFETY: passed on.
    unsafe {
        let zero = D::S::splat_u(0);
        let mut w = [zero; FOURS];
        for_each_four!(j => { w[j] = four::<D, C>(codes, j, table) });
        for (m, sum) in sums.iter_mut().enumerate() {
            let meta = &*activations.meta.add(m * activations.blocks);
            let mut scaled = D::S::splat(0.0);
            for run in 0..C::SHAPE.runs() {
                let mut dots = [D::begin(zero); PLANES];
                dots[PLANES - 1] = D::begin(start::<D, C>(meta, run));
                #[allow(clippy::needless_range_loop)] // the compiler unrolls by the count
                for j in run * fours..(run + 1) * fours {
                    for (dot, plane) in dots.iter_mut().zip(activations.planes) {
                        *dot = D::dot::<C>(*dot, j, w[j], plane.add(m * activations.cols + 4 * j));
                    }
                }
                let total = total::<D, PLANES>(dots);
                scaled = if run == 0 { D::S::mul(total, scale[0]) } else { D::S::mul_add(total, scale[run], scaled) };
            }
            *sum = add::<D, C>(*sum, scaled, min, meta);
        }
    }
}

/// A block of `MR` rows, four inputs after the other, each for every row.
///
/// # Safety
/// As for [`rows`].
#[inline(always)]
unsafe fn block_by_four<D: Dot, C: Coded, const PLANES: usize, const MR: usize>(
    codes: *const u8,
    table: U<D>,
    (scale, min): Scaling<V<D>>,
    activations: &Block<PLANES>,
    sums: &mut [V<D>; MR],
) {
    let fours = FOURS / C::SHAPE.runs();
    // SAFETY: passed on.
    unsafe {
        let zero = D::S::splat_u(0);
        let mut scaled = [D::S::splat(0.0); MR];
        let mut dots = [[D::begin(zero); PLANES]; MR];
        for_each_four!(j => {
            let run = j / fours;
            if j.is_multiple_of(fours) {
                for (m, dots) in dots.iter_mut().enumerate() {
                    *dots = [D::begin(zero); PLANES];
                    dots[PLANES - 1] = D::begin(start::<D, C>(&*activations.meta.add(m * activations.blocks), run));
                }
            }
            let w = four::<D, C>(codes, j, table);
            for (m, dots) in dots.iter_mut().enumerate() {
                for (dot, plane) in dots.iter_mut().zip(activations.planes) {
                    *dot = D::dot::<C>(*dot, j, w, plane.add(m * activations.cols + 4 * j));
                }
            }
            if j % fours == fours - 1 {
                for (scaled, dots) in scaled.iter_mut().zip(dots) {
                    let total = total::<D, PLANES>(dots);
                    *scaled =
                        if run == 0 { D::S::mul(total, scale[0]) } else { D::S::mul_add(total, scale[run], *scaled) };
                }
            }
        });
        for (m, (sum, scaled)) in sums.iter_mut().zip(scaled).enumerate() {
            *sum = add::<D, C>(*sum, scaled, min, &*activations.meta.add(m * activations.blocks));
        }
    }
}
