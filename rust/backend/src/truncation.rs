//! Which tokens may be drawn at all: top-k, top-p (Holtzman et al. 2019) and min-p (Nguyen et al. 2024).

use std::cmp::Ordering;

/// Rules out unlikely tokens before the draw.
///
/// Tokens are in the order of their logits, the largest first, of equal ones the lower id. Each rule keeps the first tokens of
/// that order: `min_p` those at least so likely in proportion to the first, `top_k` so many, and `top_p`, of what the two others have
/// left, the fewest that have so much of its weight. A token's weight is [`weight`] of its distance to the largest logit over
/// the temperature, [rounded](rounded); weights are added exactly, in whatever order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Truncation {
    /// How many tokens are kept; 0 for all.
    pub top_k: u32,
    /// The share of the weight that is kept, above 0; 1 for all tokens, also those whose weight is 0.
    pub top_p: f32,
    /// How likely a token must be in proportion to the likeliest; 0 for no limit.
    pub min_p: f32,
}

impl Default for Truncation {
    fn default() -> Self {
        Self { top_k: 0, top_p: 1.0, min_p: 0.0 }
    }
}

impl Truncation {
    /// Whether it may rule a token out.
    pub fn is_on(&self) -> bool {
        self.top_k > 0 || self.top_p < 1.0 || self.min_p > 0.0
    }

    /// How far a logit may be below the largest, both over the temperature, by `min_p`: at most 0.
    pub fn least(&self) -> f32 {
        if self.min_p > 0.0 { f64::from(self.min_p).ln() as f32 } else { f32::NEG_INFINITY }
    }

    /// The tokens that may be drawn, in their order; NaN logits are none. The largest logit over the temperature is finite.
    pub fn survivors(&self, logits: &[f32], temperature: f32) -> Vec<u32> {
        let mut tokens: Vec<u32> =
            (0..).zip(logits).filter(|(_, logit)| !logit.is_nan()).map(|(token, _)| token).collect();
        let in_order =
            |&a: &u32, &b: &u32| logits[b as usize].partial_cmp(&logits[a as usize]).unwrap_or(Ordering::Equal);
        tokens.sort_by(in_order); // which keeps equal ones in the order of their ids
        let Some(&first) = tokens.first() else { return tokens };
        let below = |token: u32| (logits[token as usize] - logits[first as usize]) / temperature;
        let least = self.least();
        tokens.retain(|&token| below(token) >= least);
        if self.top_k > 0 {
            tokens.truncate(self.top_k as usize);
        }
        if self.top_p < 1.0 {
            let weights: Vec<f64> = tokens.iter().map(|&token| rounded(weight(below(token)))).collect();
            let enough = f64::from(self.top_p) * weights.iter().sum::<f64>();
            let mut sum = 0.0;
            let needed = weights.iter().position(|weight| {
                sum += weight;
                sum >= enough
            });
            tokens.truncate(needed.map_or(tokens.len(), |at| at + 1));
        }
        tokens
    }
}

/// The parts of [`weight`], in the order of its operations, for devices that compute it on vectors.
pub mod weight_terms {
    /// Below this `weight` is 0: [`rounded`](super::rounded) would make it 0.
    pub const LOWEST: f32 = -25.0;
    /// ln 2 in two parts; the first has few enough bits that its products with exponents are exact (Cody and Waite 1980).
    pub const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    /// The Taylor series of `e^r`, the highest power first.
    pub const SERIES: [f32; 8] = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
}

/// `e^x` for `x <= 0`, within 2 ulp, and 0 where `x` is below -25 or NaN: in operations that give the same bits on every
/// device, none of which is fused.
pub fn weight(x: f32) -> f32 {
    use weight_terms::{LN2, LOWEST, SERIES};
    if x.is_nan() || x < LOWEST {
        return 0.0;
    }
    let n = (x * std::f32::consts::LOG2_E).round_ties_even();
    let r = (x - n * LN2[0]) - n * LN2[1];
    let series = SERIES[1..].iter().fold(SERIES[0], |sum, &term| sum * r + term);
    series * f32::from_bits(((n as i32 + 127) as u32) << 23)
}

/// A weight as a multiple of `2^-35`: in f64 the sum of up to `2^18` of them is exact, so that it does not depend on the order.
pub fn rounded(weight: f32) -> f64 {
    // Its last bit is worth 2^-35.
    const SHIFT: f64 = 1.5 * (1u64 << 17) as f64;
    (f64::from(weight) + SHIFT) - SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_exponentials() {
        for i in 0..=250_000u32 {
            let x = -(i as f32) / 10_000.0;
            let expected = f64::from(x).exp();
            let error = (f64::from(weight(x)) - expected).abs() / expected;
            assert!(error < 2.4e-7, "e^{x} is off by {error}");
            let multiple = rounded(weight(x)) * 2f64.powi(35);
            assert!(multiple == multiple.round() && (multiple * 2f64.powi(-35) - expected).abs() < 2.5e-7);
        }
        assert_eq!((weight(0.0), weight(-0.0)), (1.0, 1.0));
        assert_eq!([f32::NAN, f32::NEG_INFINITY, -25.1, -1e30].map(weight), [0.0; 4]);
    }

    #[test]
    fn each_rule_keeps_the_first_of_the_order() {
        let logits = [0.0, 2.0, f32::NAN, 2.0, -1.0, f32::NEG_INFINITY, -0.0, 1.0];
        let survivors = |top_k, top_p, min_p| Truncation { top_k, top_p, min_p }.survivors(&logits, 1.0);
        let all = [1, 3, 7, 0, 6, 4, 5];
        assert_eq!(survivors(0, 1.0, 0.0), all);
        for k in 1..9 {
            assert_eq!(survivors(k, 1.0, 0.0), all[..7.min(k as usize)]);
        }
        // Weights 1, 1, 0.368, 0.135 twice, 0.05 and 0: 2.69 in all.
        for (p, kept) in [(0.01, 1), (0.37, 1), (0.38, 2), (0.74, 2), (0.75, 3), (0.89, 4), (0.99, 6), (1.0, 7)] {
            assert_eq!(survivors(0, p, 0.0), all[..kept], "{p}");
        }
        for (p, kept) in [(1.0, 2), (0.4, 2), (0.36, 3), (0.13, 5), (0.04, 6)] {
            assert_eq!(survivors(0, 1.0, p), all[..kept], "{p}");
        }
        // Of the two that top-k leaves each has half.
        assert_eq!(survivors(2, 0.5, 0.0), [1]);
        assert_eq!(survivors(2, 0.51, 0.0), [1, 3]);
        assert_eq!(survivors(3, 0.86, 0.5), [1, 3]);
    }
}
