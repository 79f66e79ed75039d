//! Choosing a token from a row of logits, generic over vectors.

pub(crate) use nanovllm_backend::NoiseStream as Stream;

use super::math::exp2;
use super::simd::Simd;

/// [`Stream::bits`] of `LANES` tokens.
#[inline(always)]
fn bits<S: Simd>(s: S, stream: Stream, tokens: S::U) -> S::U {
    let x = s.add_u(tokens, s.splat_u(stream.low));
    let x = s.mul_u(s.xor_u(x, s.shr_u::<17>(x)), s.splat_u(0xed5a_d4bb));
    let x = s.mul_u(s.xor_u(x, s.shr_u::<11>(x)), s.splat_u(0xac4c_1b51));
    let x = s.xor_u(x, s.splat_u(stream.high));
    let x = s.mul_u(s.xor_u(x, s.shr_u::<15>(x)), s.splat_u(0x3184_8bab));
    s.xor_u(x, s.shr_u::<14>(x))
}

/// The lowest index of the largest of `n` logits, NaN aside; 0 when there is none.
///
/// # Safety
/// `logits` holds `n` values.
#[inline(always)]
pub(crate) unsafe fn arg_max<S: Simd>(s: S, logits: *const f32, n: usize) -> u32 {
    let lanes = S::LANES;
    // SAFETY: indices stay below `n`.
    unsafe {
        let lowest = s.splat(f32::NEG_INFINITY);
        let mut largest = [lowest; 4];
        let mut i = 0;
        while i + 4 * lanes <= n {
            for (j, largest) in largest.iter_mut().enumerate() {
                *largest = s.max(s.load(logits.add(i + j * lanes)), *largest);
            }
            i += 4 * lanes;
        }
        while i < n {
            let v = s.load_first(logits.add(i), lanes.min(n - i), f32::NEG_INFINITY);
            largest[0] = s.max(v, largest[0]);
            i += lanes;
        }
        let [a, b, c, d] = largest;
        let best = s.splat(s.largest(s.max(s.max(a, b), s.max(c, d))));
        let mut i = 0;
        while i < n {
            let v = s.load_first(logits.add(i), lanes.min(n - i), f32::NAN);
            let bits = s.ge_bits(v, best);
            if bits != 0 {
                return (i + bits.trailing_zeros() as usize) as u32;
            }
            i += lanes;
        }
        0
    }
}

/// What a draw from some of a row's tokens has come to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drawn {
    /// The largest of their logits, NaN aside; minus infinity when there is none.
    pub(crate) largest: f32,
    /// The highest [`Stream::score`].
    score: f64,
    /// The token that has it, the lowest of equals.
    pub(crate) winner: u32,
}

impl Drawn {
    /// Of these and others.
    pub(crate) fn or(self, other: Self) -> Self {
        let largest = self.largest.max(other.largest);
        #[allow(clippy::float_cmp)] // a tie is a tie to the last bit
        let is_behind = other.score > self.score || (other.score == self.score && other.winner < self.winner);
        Self { largest, ..if is_behind { other } else { self } }
    }
}

/// Draws from `n` tokens, the first of which is `first`, in one pass. Where the largest logit over the temperature is not finite there
/// is nothing to draw, and the winner means nothing. NaN logits never win.
///
/// The noise of almost every token need not be known: the exponential variate is at least the uniform one, so a token can only
/// win if its uniform variate is at most `exp(logit / temperature - best)`, a comparison of vectors; and none at all can win
/// whose logit is too far below the best for the smallest variate there is.
///
/// # Safety
/// `logits` holds `n` values; `temperature > 0`.
#[inline(always)]
pub(crate) unsafe fn draw<S: Simd>(
    s: S,
    logits: *const f32,
    n: usize,
    first: u32,
    temperature: f32,
    stream: Stream,
) -> Drawn {
    let lanes = S::LANES;
    let (mut winner, mut best) = (u32::MAX, f64::NEG_INFINITY);
    let mut bound = Bound::new(best, temperature);
    let mut largest = s.splat(f32::NEG_INFINITY);
    let divisor = s.splat(temperature);
    let mut i = 0;
    while i < n {
        // SAFETY: indices stay below `n`.
        let v = unsafe { s.load_first(logits.add(i), lanes.min(n - i), f32::NAN) };
        // NaN is the first operand, and is lost.
        largest = s.max(v, largest);
        if s.ge_bits(v, s.splat(bound.logit)) != 0 {
            let tokens = s.add_u(s.iota(), s.splat_u(first + i as u32));
            // 24 bits, rounded down: a lower bound of the uniform variate, exact in f32.
            let uniform = s.mul(s.to_f32(s.shr_u::<8>(bits(s, stream, tokens))), s.splat(2f32.powi(-24)));
            // Above 0 every variate passes; of a huge logit over the temperature the rounding alone may be huge.
            let exponent = s.min(s.sub(s.div(v, divisor), s.splat(bound.score)), s.splat(1.0));
            let mut likely = s.ge_bits(exp2(s, s.mul(exponent, s.splat(std::f32::consts::LOG2_E))), uniform);
            // NaN is lost on the way here.
            likely &= s.ge_bits(v, v);
            while likely != 0 {
                let at = i + likely.trailing_zeros() as usize;
                likely &= likely - 1;
                let token = first + at as u32;
                // SAFETY: lanes that are likely are numbers, and those past the end are none.
                let score = stream.score(token, unsafe { *logits.add(at) }, temperature);
                #[allow(clippy::float_cmp)] // a tie is a tie to the last bit
                if score > best || (score == best && token < winner) {
                    (best, winner) = (score, token);
                    bound = Bound::new(best, temperature);
                }
            }
        }
        i += lanes;
    }
    Drawn { largest: s.largest(largest), score: best, winner }
}

/// What a token must reach to be looked at, with room for the rounding of the comparisons.
struct Bound {
    /// On its logit.
    logit: f32,
    /// On its logit over the temperature, once its noise is known.
    score: f32,
}

impl Bound {
    fn new(best: f64, temperature: f32) -> Self {
        if best == f64::NEG_INFINITY {
            return Self { logit: f32::NEG_INFINITY, score: f32::NEG_INFINITY };
        }
        let slack = 1e-4 + 1e-6 * best.abs();
        let least = (best + Stream::LEAST.ln() - slack) * f64::from(temperature);
        Self { logit: (least - 1e-6 * least.abs()) as f32, score: (best - slack) as f32 }
    }
}
