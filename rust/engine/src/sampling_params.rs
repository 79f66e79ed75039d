//! How the tokens of one request are chosen.
//!
//! A new option is a field here with its default, its line in [`SamplingParams::read`] and its check in
//! [`SamplingParams::validate`]; a field of Python's dataclass; and the code that honours it.

use crate::errors::SamplingParamsError;
use crate::fields::FieldSource;

/// Sampling parameters of a request: nano-vLLM's fields and vLLM's, with vLLM's meanings.
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
    /// Which of several answers to one prompt it is: each has a random stream of its own.
    pub index: u32,
    /// How many of the likeliest tokens may be drawn; 0 for all.
    pub top_k: u32,
    /// The share of the probability that the fewest likeliest tokens must have, which may be drawn; 1 for all tokens.
    pub top_p: f64,
    /// How likely a token that may be drawn must be in proportion to the likeliest; 0 for no limit.
    pub min_p: f64,
    /// Subtracted once from the logits of tokens that the answer has.
    pub presence_penalty: f64,
    /// Subtracted from the logit of a token as often as the answer has it.
    pub frequency_penalty: f64,
    /// Divides logits above 0 and multiplies those below, of tokens that prompt or answer have; 1 for none.
    pub repetition_penalty: f64,
    /// Tokens that end the answer, besides those that end a sequence anyway.
    pub stop_token_ids: Vec<u32>,
    /// Tokens to generate before one of these, or one that ends a sequence, may come.
    pub min_tokens: usize,
    /// What is added to the logits of some tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// The only tokens that may be chosen; empty for all.
    pub allowed_token_ids: Vec<u32>,
    /// Runs of tokens that the answer must not have.
    pub bad_words: Vec<Vec<u32>>,
    /// Say how likely each token of the answer was, and of how many of the likeliest ones; [`ALL`](Self::ALL) for the vocabulary.
    pub logprobs: Option<u32>,
    /// The same of each token of the prompt but the first, each after those before it.
    pub prompt_logprobs: Option<u32>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            max_tokens: 64,
            ignore_eos: false,
            seed: None,
            index: 0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_penalty: 1.0,
            stop_token_ids: Vec::new(),
            min_tokens: 0,
            logit_bias: Vec::new(),
            allowed_token_ids: Vec::new(),
            bad_words: Vec::new(),
            logprobs: None,
            prompt_logprobs: None,
        }
    }
}

impl SamplingParams {
    /// As [`logprobs`](Self::logprobs): of every token of the vocabulary.
    pub const ALL: u32 = u32::MAX;

    /// Reads every field by its name and checks it; a field that the source does not have keeps its default. `bad_words` are texts
    /// for a caller, who has a tokenizer.
    ///
    /// # Errors
    /// The source has a value of another type for a field, or one that [`validate`](Self::validate) refuses.
    pub fn read<S: FieldSource>(source: &S) -> Result<Self, S::Error> {
        let default = Self::default();
        let params = Self {
            temperature: source.number("temperature", default.temperature)?,
            // None is as many as there may be.
            max_tokens: source.optional_count("max_tokens", 1, Some(default.max_tokens))?.unwrap_or(usize::MAX),
            ignore_eos: source.boolean("ignore_eos", default.ignore_eos)?,
            seed: source.optional_unsigned("seed", default.seed)?,
            index: default.index,
            top_p: source.number("top_p", default.top_p)?,
            top_k: or_all(source, "top_k", Some(0))?.map_or(0, |k| if k == Self::ALL { 0 } else { k }),
            min_p: source.number("min_p", default.min_p)?,
            presence_penalty: source.number("presence_penalty", default.presence_penalty)?,
            frequency_penalty: source.number("frequency_penalty", default.frequency_penalty)?,
            repetition_penalty: source.number("repetition_penalty", default.repetition_penalty)?,
            stop_token_ids: source.token_ids("stop_token_ids")?.unwrap_or_default(),
            min_tokens: source.optional_count("min_tokens", 0, Some(0))?.unwrap_or(0),
            logit_bias: source.token_numbers("logit_bias")?.unwrap_or_default(),
            allowed_token_ids: match source.token_ids("allowed_token_ids")? {
                Some(ids) if ids.is_empty() => return Err(SamplingParamsError::NoTokenAllowed.into()),
                ids => ids.unwrap_or_default(),
            },
            bad_words: default.bad_words,
            logprobs: or_all(source, "logprobs", None)?,
            prompt_logprobs: or_all(source, "prompt_logprobs", None)?,
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
        let range = |field, expected, got: f64, holds| {
            if holds { Ok(()) } else { Err(SamplingParamsError::Range { field, expected, got }) }
        };
        // A share so small that float32 has it as 0 keeps the likeliest token, as the smallest there is.
        range("top_p", "above 0 and at most 1", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0)?;
        range("min_p", "between 0 and 1", self.min_p, (0.0..=1.0).contains(&self.min_p))?;
        for (field, value) in
            [("presence_penalty", self.presence_penalty), ("frequency_penalty", self.frequency_penalty)]
        {
            range(field, "between -2 and 2", value, (-2.0..=2.0).contains(&value))?;
        }
        let repetition = self.repetition_penalty as f32;
        range(
            "repetition_penalty",
            "above 0 and at most 3.4e38 (the largest float32)",
            self.repetition_penalty,
            repetition > 0.0 && repetition.is_finite(),
        )?;
        if self.min_tokens > self.max_tokens {
            let (min_tokens, max_tokens) = (self.min_tokens, self.max_tokens);
            return Err(SamplingParamsError::MinTokens { min_tokens, max_tokens });
        }
        match self.logit_bias.iter().find(|(_, bias)| bias.is_nan() || *bias == f32::INFINITY) {
            Some(&(token_id, bias)) => Err(SamplingParamsError::Bias { token_id, bias }),
            None => Ok(()),
        }
    }

    /// The key of a request's random stream: its own seed's alone, else that of the engine's seed and the request's number.
    pub fn noise_key(&self, engine_seed: u64, request: u64) -> u64 {
        match self.seed {
            // The first of several answers is that of a request for one.
            Some(seed) => noise_key(seed, u64::from(self.index).wrapping_mul(INDEX_STEP)),
            None => noise_key(engine_seed, request.wrapping_add(1)),
        }
    }
}

/// Keeps the streams of several answers with a seed apart from those of requests without one.
const INDEX_STEP: u64 = 1 << 32;

/// Reads a number of things, -1 for all of them.
fn or_all<S: FieldSource>(source: &S, field: &'static str, default: Option<i64>) -> Result<Option<u32>, S::Error> {
    let Some(value) = source.optional_integer(field, default)? else { return Ok(None) };
    match u32::try_from(value) {
        Ok(number) => Ok(Some(number)),
        Err(_) if value == -1 => Ok(Some(SamplingParams::ALL)),
        // As many as fit are as good as all.
        Err(_) if value > 0 => Ok(Some(SamplingParams::ALL)),
        Err(_) => {
            Err(SamplingParamsError::Range { field, expected: "at least 0, or -1 for all tokens", got: value as f64 }
                .into())
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
        let good = SamplingParams::default();
        let nan = f64::NAN;
        for (field, bad) in [
            ("top_p", [0.0, -0.5, 1.0001, nan].map(|top_p| SamplingParams { top_p, ..good.clone() })),
            ("min_p", [-0.1, 1.0001, nan, f64::INFINITY].map(|min_p| SamplingParams { min_p, ..good.clone() })),
            (
                "presence_penalty",
                [-2.1, 2.1, nan, f64::INFINITY]
                    .map(|presence_penalty| SamplingParams { presence_penalty, ..good.clone() }),
            ),
            (
                "frequency_penalty",
                [-2.1, 2.1, nan, 1e300].map(|frequency_penalty| SamplingParams { frequency_penalty, ..good.clone() }),
            ),
            (
                "repetition_penalty",
                [0.0, -1.0, nan, 1e39].map(|repetition_penalty| SamplingParams { repetition_penalty, ..good.clone() }),
            ),
            (
                "logit_bias",
                [f32::NAN, f32::INFINITY, f32::NAN, f32::INFINITY]
                    .map(|bias| SamplingParams { logit_bias: vec![(1, 0.5), (7, bias)], ..good.clone() }),
            ),
        ] {
            for params in bad {
                assert!(error(&params).contains(field), "{field}");
            }
        }
        let text = error(&SamplingParams { min_tokens: 65, ..good });
        assert!(text.contains("min_tokens") && text.contains("65") && text.contains("64"), "{text}");
    }

    #[test]
    fn answers_to_one_prompt_have_streams_of_their_own() {
        let params = |index| SamplingParams { seed: Some(3), index, ..Default::default() };
        let keys: std::collections::HashSet<u64> = (0..100).map(|index| params(index).noise_key(0, 5)).collect();
        assert_eq!(keys.len(), 100);
        assert_eq!(params(0).noise_key(1, 2), SamplingParams { seed: Some(3), ..Default::default() }.noise_key(0, 0));
    }
}
