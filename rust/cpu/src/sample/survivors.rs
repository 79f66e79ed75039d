//! The tokens that truncation leaves, without sorting a vocabulary.

use nanovllm_backend::{Truncation, rounded, weight};

use super::passes::Passes;
use crate::kernels::generic::truncate::of_key;

/// How far below the largest logit, over the temperature, those of a nucleus are looked for first. Three times in four it is there,
/// as half of the weight of a language model is on a handful of tokens.
const NEAR: f32 = 4.0;

/// Below this the weight of a token is 0.
const FAR: f32 = 32.0;

/// The search for the tokens that may be drawn.
pub(super) struct Survivors<'a> {
    pub(super) passes: Passes<'a>,
    pub(super) logits: &'a [f32],
    /// The largest logit; over the temperature, which is above 0, it is finite.
    pub(super) largest: f32,
    pub(super) temperature: f32,
    /// The tokens found, as keys, in no order.
    pub(super) keys: &'a mut Vec<u64>,
}

impl Survivors<'_> {
    /// Leaves those of [`Truncation::survivors`] in `keys`; returns the last of them in the order of logits.
    pub(super) fn find(&mut self, truncation: &Truncation) -> u64 {
        let least = truncation.least();
        if truncation.top_k > 0 {
            let wanted = (truncation.top_k as usize).min(self.logits.len());
            self.passes.first_keys(self.logits, wanted, self.bound(least), self.keys);
            self.keep(least);
            if truncation.top_p < 1.0 {
                self.keep_nucleus(f64::from(truncation.top_p) * self.mass_of(self.keys));
            }
        } else if truncation.top_p < 1.0 {
            let all = self.passes.mass(self.logits, self.largest, self.temperature, least);
            let enough = f64::from(truncation.top_p) * all;
            let mut reach = NEAR;
            loop {
                self.passes.first_keys(self.logits, self.logits.len(), self.bound(least.max(-reach)), self.keys);
                self.keep(least);
                if reach >= FAR || self.mass_of(self.keys) >= enough {
                    break;
                }
                reach *= 2.0;
            }
            self.keep_nucleus(enough);
        } else {
            self.passes.first_keys(self.logits, self.logits.len(), self.bound(least), self.keys);
            self.keep(least);
        }
        self.keys.iter().copied().min().unwrap_or(u64::MAX)
    }

    /// A logit that is not above any that is at most `least` from the largest, over the temperature.
    fn bound(&self, least: f32) -> f32 {
        let exact = f64::from(self.largest) + f64::from(least) * f64::from(self.temperature);
        // Over a huge temperature what is less than the least float32 away is not away at all.
        let least_step = f64::from(f32::from_bits(1)) * f64::from(self.temperature);
        let slack = 1e-6 * (exact.abs() + f64::from(self.largest).abs()) + least_step;
        // What is infinite stays so; what is no number is minus infinity less minus infinity.
        let bound = (exact - slack) as f32;
        if bound.is_nan() { f32::NEG_INFINITY } else { bound }
    }

    fn below(&self, key: u64) -> f32 {
        (of_key(key).1 - self.largest) / self.temperature
    }

    fn weight(&self, key: u64) -> f64 {
        rounded(weight(self.below(key)))
    }

    fn mass_of(&self, keys: &[u64]) -> f64 {
        keys.iter().map(|&key| self.weight(key)).sum()
    }

    /// Drops what is further below the largest than `least`.
    fn keep(&mut self, least: f32) {
        if least > f32::NEG_INFINITY {
            let mut keys = std::mem::take(self.keys);
            keys.retain(|&key| self.below(key) >= least);
            *self.keys = keys;
        }
    }

    /// Keeps the fewest first ones whose weights add up to `enough`, or all: halves what is in question by the middle of its order,
    /// until it is short enough to be sorted.
    fn keep_nucleus(&mut self, enough: f64) {
        let mut keys = std::mem::take(self.keys);
        // All before `from` are kept, with a weight of `sum`; none from `to` on.
        let (mut from, mut to, mut sum) = (0, keys.len(), 0.0);
        while to - from > 32 {
            let middle = (to - from) / 2;
            keys[from..to].select_nth_unstable_by(middle, |a, b| b.cmp(a));
            let first_half = self.mass_of(&keys[from..from + middle]);
            if sum + first_half >= enough {
                to = from + middle;
            } else {
                sum += first_half;
                from += middle;
            }
        }
        keys[from..to].sort_unstable_by(|a, b| b.cmp(a));
        let needed = keys[from..to].iter().position(|&key| {
            sum += self.weight(key);
            sum >= enough
        });
        keys.truncate(needed.map_or(to, |at| from + at + 1));
        *self.keys = keys;
    }
}
