//! How one request samples.

/// Sampling parameters of a request; nano-vLLM's fields, with greedy decoding and a seed added.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits; 0 is greedy.
    pub temperature: f32,
    /// Tokens to generate at most; at least 1.
    pub max_tokens: usize,
    /// Keep generating past an end-of-sequence token.
    pub ignore_eos: bool,
    /// Gives the request a random stream of its own, whatever else the engine runs. Without it the stream is derived from
    /// the engine's seed and the request's number.
    pub seed: Option<u64>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self { temperature: 1.0, max_tokens: 64, ignore_eos: false, seed: None }
    }
}

/// Why sampling parameters are refused.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SamplingParamsError {
    /// NaN, infinite or negative.
    #[error("temperature must be finite and at least 0 (0 is greedy), got {0}")]
    Temperature(f32),
    /// Zero, with which nano-vLLM never stops.
    #[error("max_tokens must be at least 1, got 0")]
    MaxTokens,
}

impl SamplingParams {
    /// Checks every field.
    ///
    /// # Errors
    /// [`SamplingParamsError`] names the field and its range.
    pub fn validate(&self) -> Result<(), SamplingParamsError> {
        if !self.temperature.is_finite() || self.temperature < 0.0 {
            return Err(SamplingParamsError::Temperature(self.temperature));
        }
        if self.max_tokens == 0 {
            return Err(SamplingParamsError::MaxTokens);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(params: SamplingParams) -> String {
        params.validate().unwrap_err().to_string()
    }

    #[test]
    fn defaults_are_nano_vllms() {
        let params = SamplingParams::default();
        assert_eq!((params.temperature, params.max_tokens, params.ignore_eos), (1.0, 64, false));
        params.validate().unwrap();
    }

    #[test]
    fn zero_temperature_is_greedy() {
        SamplingParams { temperature: 0.0, ..Default::default() }.validate().unwrap();
        SamplingParams { temperature: -0.0, ..Default::default() }.validate().unwrap();
    }

    #[test]
    fn every_bad_field_is_named() {
        for temperature in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1e-6] {
            let text = error(SamplingParams { temperature, ..Default::default() });
            assert!(text.contains("temperature") && text.contains(&temperature.to_string()), "{text}");
        }
        assert!(error(SamplingParams { max_tokens: 0, ..Default::default() }).contains("max_tokens"));
    }
}
