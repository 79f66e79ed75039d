//! Packed weights on their way into registers: scales as floats, codes as bytes.

use crate::kernels::generic::dot::{Dot, U, V};
use crate::kernels::generic::simd::Simd;
use crate::layout::{Coded, RunScales, Scales, Values};

/// The halves `d` and `m` of blocks that share them, for every lane. `d` is multiplied with the factor of a table, and `m` is
/// negative where the format subtracts it.
///
/// # Safety
/// `p` points to the halves: [`Shape::halves`](crate::layout::Shape::halves) vectors of f16.
#[inline(always)]
pub(super) unsafe fn halves<D: Dot, C: Coded>(isa: D, p: *const u8, factor: f32) -> [V<D>; 2] {
    let (s, shape) = (isa.simd(), C::SHAPE);
    let mut halves = [s.splat(0.0); 2];
    for (i, half) in halves.iter_mut().enumerate() {
        if i < shape.halves() {
            // SAFETY: one of the vectors there are.
            *half = unsafe { s.load_f16(p.cast::<u16>().add(i * D::S::LANES)) };
        }
    }
    if matches!(shape.values, Values::Table(_)) {
        halves[0] = s.mul(halves[0], s.splat(factor));
    }
    if matches!(shape.scales, Scales::Minimum | Scales::MinimumPairs) {
        halves[1] = s.mul(halves[1], s.splat(-1.0));
    }
    halves
}

/// The scales of a block. Every product here is exact, as an f16 times a byte fits f32.
///
/// # Safety
/// `p` points to the block's scale bytes: [`Shape::scale_bytes`](crate::layout::Shape::scale_bytes) bytes for each lane.
#[inline(always)]
pub(super) unsafe fn run_scales<D: Dot, C: Coded>(isa: D, [d, m]: [V<D>; 2], p: *const u8) -> RunScales<V<D>> {
    let s = isa.simd();
    let second = p.wrapping_add(D::S::LANES);
    // Where the layout has no minimum, `min` is not read.
    let same = |scale, min| RunScales { scale: [scale; 2], min: [min; 2] };
    // SAFETY: each arm reads as many vectors of bytes as its kind of scales has.
    unsafe {
        match C::SHAPE.scales {
            Scales::Half | Scales::HalfMin => same(d, m),
            Scales::Exponent => same(isa.exponents(p), m),
            Scales::Signed => same(s.mul(d, s.to_f32(isa.signed_bytes(p))), m),
            Scales::SignedPairs => {
                let first = s.mul(d, s.to_f32(isa.signed_bytes(p)));
                RunScales { scale: [first, s.mul(d, s.to_f32(isa.signed_bytes(second)))], min: [m; 2] }
            }
            Scales::Minimum => {
                let scale = s.mul(d, s.to_f32(isa.bytes(p)));
                same(scale, s.mul(m, s.to_f32(isa.bytes(second))))
            }
            Scales::MinimumPairs => {
                let mut scales = same(d, m);
                for run in 0..2 {
                    let pair = isa.bytes(p.wrapping_add(run * D::S::LANES));
                    scales.scale[run] = s.mul(d, s.to_f32(isa.and(pair, s.splat_u(15))));
                    scales.min[run] = s.mul(m, s.to_f32(s.shr_u::<4>(pair)));
                }
                scales
            }
        }
    }
}

/// Whether the codes of `C` are multiplied as signed bytes: those with an offset of 128, on a set that does so.
#[inline(always)]
pub(super) const fn multiplied_signed<D: Dot, C: Coded>() -> bool {
    D::SIGNED && C::SHAPE.offset() == 128
}

/// The codes of four `j` of a block, four consecutive inputs for every lane, as unsigned bytes, or as signed ones where they are
/// [`multiplied_signed`].
///
/// # Safety
/// `codes` points to the codes of the block, as many vectors of `4 * LANES` bytes as a code has bits.
#[inline(always)]
pub(super) unsafe fn four<D: Dot, C: Coded>(isa: D, codes: *const u8, j: usize, table: U<D>) -> U<D> {
    let shape = C::SHAPE;
    let (low, width) = (shape.low(j), D::S::LANES * 4);
    // SAFETY: `low` and `high` name only vectors that the block has.
    let load = |vector: usize| unsafe { isa.load(codes.add(vector * width)) };
    let mut w = load(low.vector);
    if shape.bits < 8 {
        w = isa.bits(w, -(low.shift as i32), low.mask);
    }
    if let Some(high) = shape.high(j) {
        let left = shape.low_bits() as i32 - high.shift as i32;
        w = isa.or(w, isa.bits(load(high.vector), left, high.mask << shape.low_bits()));
    }
    match shape.values {
        Values::Table(_) => isa.lookup(table, w),
        Values::Offset(_) if multiplied_signed::<D, C>() => isa.flip(w),
        Values::Offset(_) => w,
    }
}
