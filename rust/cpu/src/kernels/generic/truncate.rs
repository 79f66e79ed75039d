//! What truncation and log-probabilities need of a whole row of logits, generic over vectors.

use nanovllm_backend::{rounded, weight_terms};

use super::simd::Simd;

/// [`nanovllm_backend::weight`] of `LANES` values, in the same operations, so that bits are the same.
#[inline(always)]
fn weight<S: Simd>(s: S, x: S::V) -> S::V {
    use weight_terms::{LN2, LOWEST, SERIES};
    let lowest = s.splat(LOWEST);
    // NaN is the first operand, and is lost.
    let bounded = s.max(x, lowest);
    let n = s.round(s.mul(bounded, s.splat(std::f32::consts::LOG2_E)));
    let r = s.sub(s.sub(bounded, s.mul(n, s.splat(LN2[0]))), s.mul(n, s.splat(LN2[1])));
    let mut sum = s.splat(SERIES[0]);
    for &term in &SERIES[1..] {
        sum = s.add(s.mul(sum, r), s.splat(term));
    }
    s.zero_below(s.scale2(sum, n), x, lowest)
}

/// Values that are weighed before they are added.
const BUFFER: usize = 128;

/// The sum of the [weights](weight) of `n` logits, each [`rounded`], which is exact in any order; of those that are not further
/// below `largest` than `least`, both over the temperature.
///
/// # Safety
/// `logits` holds `n` values.
#[inline(always)]
pub(crate) unsafe fn mass<S: Simd>(
    s: S,
    logits: *const f32,
    n: usize,
    largest: f32,
    temperature: f32,
    least: f32,
) -> f64 {
    let (top, divisor, lowest) = (s.splat(largest), s.splat(temperature), s.splat(least));
    let mut weights = [0f32; BUFFER];
    let mut sums = [0f64; 8];
    for start in (0..n).step_by(BUFFER) {
        for at in (0..BUFFER).step_by(S::LANES) {
            let left = n.saturating_sub(start + at).min(S::LANES);
            // SAFETY: `left` values from there on are within `n`; the buffer is a multiple of `LANES` long.
            unsafe {
                let v = s.load_first(logits.add((start + at).min(n)), left, f32::NAN);
                let x = s.div(s.sub(v, top), divisor);
                s.store(weights.as_mut_ptr().add(at), s.zero_below(weight(s, x), x, lowest));
            }
        }
        for eight in weights.chunks_exact(8) {
            for (sum, &weight) in sums.iter_mut().zip(eight) {
                *sum += rounded(weight);
            }
        }
    }
    sums.iter().sum()
}

/// A token and its logit as a number that is larger where the token comes before in the order of logits: the larger logit first,
/// of equal ones the lower id.
#[inline(always)]
pub(crate) fn order_key(token: u32, logit: f32) -> u64 {
    let bits = (logit + 0.0).to_bits(); // -0 is 0
    let ordered = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    u64::from(ordered) << 32 | u64::from(!token)
}

/// The token and the logit of a key.
#[inline(always)]
pub(crate) fn of_key(key: u64) -> (u32, f32) {
    let ordered = (key >> 32) as u32;
    let bits = if ordered >> 31 == 1 { ordered & !(1 << 31) } else { !ordered };
    (!(key as u32), f32::from_bits(bits))
}

/// Writes the [keys](order_key) of those of `n` logits that are at least `least` to `keys`, in the order of their ids, which begin
/// at `first`; returns how many there are.
///
/// # Safety
/// `logits` holds `n` values, and `keys` has room for as many.
#[inline(always)]
pub(crate) unsafe fn collect<S: Simd>(
    s: S,
    logits: *const f32,
    n: usize,
    first: u32,
    least: f32,
    keys: *mut u64,
) -> usize {
    let bound = s.splat(least);
    let mut found = 0;
    for at in (0..n).step_by(S::LANES) {
        // SAFETY: indices stay below `n`, and no more keys are written than there are logits.
        unsafe {
            let v = s.load_first(logits.add(at), S::LANES.min(n - at), f32::NAN);
            let mut bits = s.ge_bits(v, bound);
            while bits != 0 {
                let i = at + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                *keys.add(found) = order_key(first + i as u32, *logits.add(i));
                found += 1;
            }
        }
    }
    found
}

/// How many of `n` logits come before `own` in their order: those that are larger, and of its equals the first `before` logits'.
/// Where it is no number all numbers do.
///
/// # Safety
/// `logits` holds `n` values.
#[inline(always)]
pub(crate) unsafe fn ahead<S: Simd>(s: S, logits: *const f32, n: usize, own: f32, before: usize) -> usize {
    // SAFETY: indices stay below `n`.
    unsafe {
        if own.is_nan() {
            return (0..n).filter(|&i| !(*logits.add(i)).is_nan() || i < before).count();
        }
        let bound = s.splat(own);
        let (mut larger, mut i) = (0, 0);
        while i < n {
            let v = s.load_first(logits.add(i), S::LANES.min(n - i), f32::NAN);
            let (at_least, at_most) = (s.ge_bits(v, bound), s.ge_bits(bound, v));
            let left = before.saturating_sub(i).min(31);
            let ties = at_least & at_most & if i < before { mask(left, S::LANES) } else { 0 };
            larger += ((at_least & !at_most).count_ones() + ties.count_ones()) as usize;
            i += S::LANES;
        }
        larger
    }
}

/// The lowest `n` bits, of at most `lanes`.
#[inline(always)]
fn mask(n: usize, lanes: usize) -> u32 {
    if n >= lanes { u32::MAX >> (32 - lanes) } else { (1 << n) - 1 }
}
