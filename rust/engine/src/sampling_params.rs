//! How the tokens of one request are chosen.
//!
//! A new option is a field here with its default, its line in [`SamplingParams::read`] and its check in
//! [`SamplingParams::validate`]; a field of Python's dataclass; and the code that honours it.

use crate::errors::SamplingParamsError;
use crate::fields::FieldSource;

/// Sampling parameters of a request; nano-vLLM's fields, with greedy decoding and a seed added.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits; 0 is greedy. Kept as given, and rounded to float32 where it is used.
    pub temperature: f64,
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

impl SamplingParams {
    /// Reads every field by its name and checks it; a field that the source does not have keeps its default.
    ///
    /// # Errors
    /// The source has a value of another type for a field, or one that [`validate`](Self::validate) refuses.
    pub fn read<S: FieldSource>(source: &S) -> Result<Self, S::Error> {
        let default = Self::default();
        let params = Self {
            temperature: source.number("temperature", default.temperature)?,
            max_tokens: source.count("max_tokens", 1, default.max_tokens)?,
            ignore_eos: source.boolean("ignore_eos", default.ignore_eos)?,
            seed: source.optional_unsigned("seed", default.seed)?,
        };
        params.validate()?;
        Ok(params)
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`SamplingParamsError`] names the field and its range.
    pub fn validate(&self) -> Result<(), SamplingParamsError> {
        if !(self.temperature as f32).is_finite() || self.temperature < 0.0 {
            return Err(SamplingParamsError::Temperature(self.temperature));
        }
        if self.max_tokens == 0 {
            return Err(SamplingParamsError::MaxTokens);
        }
        Ok(())
    }

    /// The key of a request's random stream: its own seed's alone, else that of the engine's seed and the request's number.
    pub fn noise_key(&self, engine_seed: u64, request: u64) -> u64 {
        match self.seed {
            Some(seed) => noise_key(seed, 0),
            None => noise_key(engine_seed, request.wrapping_add(1)),
        }
    }
}

/// Mixes a seed and a request number into a stream's key (splitmix64's finaliser, Steele, Lea and Flood 2014).
fn noise_key(seed: u64, request: u64) -> u64 {
    let mix = |z: u64| {
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58476d1ce4e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d049bb133111eb);
        z ^ (z >> 31)
    };
    mix(mix(seed.wrapping_add(0x9e3779b97f4a7c15)).wrapping_add(request.wrapping_mul(0x9e3779b97f4a7c15)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(params: &SamplingParams) -> String {
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
        for temperature in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1e-6, -1e-300, 1e39] {
            let text = error(&SamplingParams { temperature, ..Default::default() });
            assert!(text.contains("temperature") && text.contains(&format!("{temperature:?}")), "{text}");
        }
        assert!(error(&SamplingParams { max_tokens: 0, ..Default::default() }).contains("max_tokens"));
    }
}
