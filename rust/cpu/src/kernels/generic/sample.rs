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

/// The token with the highest [`Stream::score`], the lowest id of equals; NaN logits never win. Where the largest logit over the
/// temperature is not finite there is nothing to draw, and the answer is [`arg_max`].
///
/// The noise of almost every token need not be known: the exponential variate is at least the uniform one, so a token can only
/// win if its uniform variate is at most `exp(logit / temperature - best)`, a comparison of vectors; and none at all can win
/// whose logit is too far below the best for the smallest variate there is.
///
/// # Safety
/// `logits` holds `n` values; `temperature > 0`.
#[inline(always)]
pub(crate) unsafe fn draw<S: Simd>(s: S, logits: *const f32, n: usize, temperature: f32, stream: Stream) -> u32 {
    let lanes = S::LANES;
    // SAFETY: indices stay below `n`.
    unsafe {
        let top = arg_max(s, logits, n);
        if n == 0 || !(*logits.add(top as usize) / temperature).is_finite() {
            return top;
        }
        let mut winner = top;
        let mut best = stream.score(top, *logits.add(top as usize), temperature);
        let mut bound = Bound::new(best, temperature);
        let divisor = s.splat(temperature);
        let mut i = 0;
        while i < n {
            let v = s.load_first(logits.add(i), lanes.min(n - i), f32::NAN);
            if s.ge_bits(v, s.splat(bound.logit)) != 0 {
                let tokens = s.add_u(s.iota(), s.splat_u(i as u32));
                // 24 bits, rounded down: a lower bound of the uniform variate, exact in f32.
                let uniform = s.mul(s.to_f32(s.shr_u::<8>(bits(s, stream, tokens))), s.splat(2f32.powi(-24)));
                // Above 0 every variate passes; of a huge logit over the temperature the rounding alone may be huge.
                let exponent = s.min(s.sub(s.div(v, divisor), s.splat(bound.score)), s.splat(1.0));
                let mut likely = s.ge_bits(exp2(s, s.mul(exponent, s.splat(std::f32::consts::LOG2_E))), uniform);
                // NaN is lost on the way here.
                likely &= s.ge_bits(v, v);
                while likely != 0 {
                    let token = (i + likely.trailing_zeros() as usize) as u32;
                    likely &= likely - 1;
                    let score = stream.score(token, *logits.add(token as usize), temperature);
                    #[allow(clippy::float_cmp)] // a tie is a tie to the last bit
                    if score > best || (score == best && token < winner) {
                        (best, winner) = (score, token);
                        bound = Bound::new(best, temperature);
                    }
                }
            }
            i += lanes;
        }
        winner
    }
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
        let slack = 1e-4 + 1e-6 * best.abs();
        let least = (best + Stream::LEAST.ln() - slack) * f64::from(temperature);
        Self { logit: (least - 1e-6 * least.abs()) as f32, score: (best - slack) as f32 }
    }
}
