//! What is done to the products of queries and keys before their softmax (scale, soft cap) and after it (sinks).

use nanovllm_backend::AttentionOptions;

use crate::kernels::generic::attention::SoftCap;
use crate::tensor::Tensor;

/// The options of a call in the form the kernels take.
pub(super) struct Scoring<'a> {
    pub(super) cap: Option<SoftCap>,
    /// The factor that takes scores, capped or not, to powers of two.
    pub(super) scale: f32,
    /// The logit of the sink of each query head.
    sinks: Option<&'a [f32]>,
}

impl<'a> Scoring<'a> {
    /// Panics on options that are not what their fields say, a scale below 0 included.
    pub(super) fn new(options: &AttentionOptions<'a, Tensor>, num_heads: usize) -> Self {
        let AttentionOptions { scale, window, soft_cap, sinks } = *options;
        assert_ne!(window, Some(0), "positions a row of attention sees");
        let sinks = sinks.map(Tensor::as_slice);
        assert!(sinks.is_none_or(|sinks| sinks.len() == num_heads), "a sink for each of {num_heads} heads");
        // For the usual scale the reciprocal is the root of the head dimension, to the last bit.
        let plain = std::f32::consts::LOG2_E / (scale.recip() as f32);
        assert!(plain.is_finite() && plain >= 0.0, "a scale of attention of {scale}");
        let Some(cap) = soft_cap else { return Self { cap: None, scale: plain, sinks } };
        let factor = (scale / f64::from(cap)) as f32;
        assert!(cap.is_finite() && factor.is_finite() && cap > 0.0, "a soft cap of {cap} at a scale of {scale}");
        Self { cap: Some(SoftCap { factor, cap }), scale: std::f32::consts::LOG2_E, sinks }
    }

    /// `sum`, of powers of two relative to `max`, with the sink of `head`.
    ///
    /// Far above the scores a sink makes it infinite, which leaves a result of 0.
    pub(super) fn with_sink(&self, sum: f32, max: f32, head: usize) -> f32 {
        let Some(sinks) = self.sinks else { return sum };
        let exponent = f64::from(sinks[head]) * std::f64::consts::LOG2_E - f64::from(max) * f64::from(self.scale);
        (f64::from(sum) + exponent.exp2()) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it was computed before the scale became an option.
    #[test]
    fn the_usual_scale_keeps_its_bits() {
        for head_dim in (2..=512).step_by(2) {
            let scoring = Scoring::new(&AttentionOptions::plain(head_dim), 1);
            let expected = std::f32::consts::LOG2_E / (head_dim as f32).sqrt();
            assert_eq!(scoring.scale.to_bits(), expected.to_bits(), "{head_dim}");
        }
    }

    #[test]
    #[should_panic(expected = "a scale of attention of -1")]
    fn a_negative_scale_is_refused() {
        Scoring::new(&AttentionOptions { scale: -1.0, ..AttentionOptions::plain(2) }, 1);
    }

    #[test]
    #[should_panic(expected = "a soft cap of 0")]
    fn a_cap_of_nothing_is_refused() {
        Scoring::new(&AttentionOptions { soft_cap: Some(0.0), ..AttentionOptions::plain(2) }, 1);
    }

    #[test]
    #[should_panic(expected = "positions a row of attention sees")]
    fn an_empty_window_is_refused() {
        Scoring::new(&AttentionOptions { window: Some(0), ..AttentionOptions::plain(2) }, 1);
    }
}
