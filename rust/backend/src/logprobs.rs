//! How likely tokens are: the logarithm of the softmax of the logits as the model gave them.

use std::cmp::Ordering;

use crate::truncation::{rounded, weight};

/// How likely the token after a row is, and the likeliest ones, before anything of a request has changed the logits.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TokenLogprobs {
    /// The natural logarithm of the token's probability; NaN where the largest logit is not finite.
    pub logprob: f32,
    /// The token's place in the order of the logits, from 1; of equal ones the lower id is before the other.
    pub rank: u32,
    /// The first tokens of that order, with theirs.
    pub top: Vec<(u32, f32)>,
}

/// What a logarithm of a probability is worked out from: the largest logit, and the logarithm of the sum of all weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogSum {
    largest: f32,
    log_sum: f64,
}

impl LogSum {
    /// Of logits whose largest is this and whose [weights](weight), [rounded](rounded), add up to `sum`.
    pub fn new(largest: f32, sum: f64) -> Self {
        Self { largest, log_sum: sum.ln() }
    }

    /// The logarithm of the probability of a token of this logit.
    pub fn logprob(self, logit: f32) -> f32 {
        (f64::from(logit) - f64::from(self.largest) - self.log_sum) as f32
    }
}

impl TokenLogprobs {
    /// Of the token after a row of logits that has it, with the `top` likeliest: what every device gives for these logits.
    pub fn of(logits: &[f32], token: u32, top: u32) -> Self {
        let largest = logits.iter().copied().filter(|x| !x.is_nan()).fold(f32::NEG_INFINITY, f32::max);
        let log_sum = LogSum::new(largest, logits.iter().map(|&logit| rounded(weight(logit - largest))).sum());
        let mut order: Vec<u32> = (0..).zip(logits).map(|(token, _)| token).collect();
        order.sort_by(|&a, &b| in_order(logits[a as usize], logits[b as usize]));
        let rank = order.iter().position(|&other| other == token).map_or(0, |at| at as u32 + 1);
        order.truncate(top as usize);
        let top = order.into_iter().map(|token| (token, log_sum.logprob(logits[token as usize]))).collect();
        Self { logprob: logits.get(token as usize).map_or(f32::NAN, |&logit| log_sum.logprob(logit)), rank, top }
    }
}

/// The larger logit first, NaN last.
fn in_order(a: f32, b: f32) -> Ordering {
    b.partial_cmp(&a).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_the_softmax() {
        let logits: Vec<f32> = (0..50).map(|i| ((i * 37) % 50) as f32 * 0.3 - 4.0).collect();
        let total: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
        for token in 0..50 {
            let got = TokenLogprobs::of(&logits, token, 3);
            let expected = (f64::from(logits[token as usize]).exp() / total).ln();
            assert!((f64::from(got.logprob) - expected).abs() < 1e-6);
            assert_eq!(got.rank, 1 + logits.iter().filter(|&&x| x > logits[token as usize]).count() as u32);
            assert_eq!(got.top.len(), 3);
            assert!(got.top.is_sorted_by(|a, b| a.1 >= b.1));
        }
        assert_eq!(TokenLogprobs::of(&logits, 0, u32::MAX).top.len(), 50);
    }

    #[test]
    fn ties_and_what_is_no_number_have_their_place() {
        let logits = [f32::NAN, 1.0, 1.0, f32::NEG_INFINITY];
        let ranks: Vec<u32> = (0..4).map(|token| TokenLogprobs::of(&logits, token, 0).rank).collect();
        assert_eq!(ranks, [4, 1, 2, 3]);
        assert_eq!(TokenLogprobs::of(&logits, 3, 0).logprob, f32::NEG_INFINITY);
        assert!(TokenLogprobs::of(&logits, 0, 0).logprob.is_nan());
        assert!(TokenLogprobs::of(&[f32::INFINITY, 0.0], 1, 0).logprob.is_nan());
    }
}
