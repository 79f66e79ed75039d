//! What is made of a request's answer: how many there are, where their text ends, and what is told of them.
//!
//! A new option is a field here with its default, its line in [`OutputOptions::read`] and its check there; a field of Python's
//! dataclass; and the code that honours it.

use nanovllm_engine::{FieldSource, SamplingParams, SamplingParamsError};

use crate::text::TextOptions;

/// The options of a request that its engine does not know, with vLLM's names and meanings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputOptions {
    /// How many answers, each with a random stream of its own.
    pub n: u32,
    /// Texts that end an answer.
    pub stop: Vec<String>,
    /// Whether the text has the one that ended it, or the token that its request stops at.
    pub include_stop_str_in_output: bool,
    /// Texts that an answer must not have.
    pub bad_words: Vec<String>,
    /// Leave special tokens out of the text; `None` for the caller's own default.
    pub skip_special_tokens: Option<bool>,
    /// Keep the spaces that some decoders put between special tokens.
    pub spaces_between_special_tokens: bool,
    /// Make text of the tokens.
    pub detokenize: bool,
}

impl Default for OutputOptions {
    fn default() -> Self {
        Self {
            n: 1,
            stop: Vec::new(),
            include_stop_str_in_output: false,
            bad_words: Vec::new(),
            skip_special_tokens: None,
            spaces_between_special_tokens: true,
            detokenize: true,
        }
    }
}

impl OutputOptions {
    /// The most answers to one prompt, as in vLLM.
    pub const MAX_N: u32 = 16_384;

    /// Reads every field by its name and checks it beside those that say how tokens are chosen; a field that the source does not
    /// have keeps its default.
    ///
    /// # Errors
    /// The source has a value of another type for a field, or one out of its range.
    pub fn read<S: FieldSource>(source: &S, params: &SamplingParams) -> Result<Self, S::Error> {
        let default = Self::default();
        let n = source.optional_count("n", 1, Some(default.n as usize))?.unwrap_or(1);
        let options = Self {
            n: u32::try_from(n).unwrap_or(u32::MAX),
            stop: source.texts("stop")?.unwrap_or_default(),
            include_stop_str_in_output: source
                .boolean("include_stop_str_in_output", default.include_stop_str_in_output)?,
            bad_words: source.texts("bad_words")?.unwrap_or_default(),
            skip_special_tokens: source.optional_boolean("skip_special_tokens")?,
            spaces_between_special_tokens: source
                .boolean("spaces_between_special_tokens", default.spaces_between_special_tokens)?,
            detokenize: source.boolean("detokenize", default.detokenize)?,
        };
        options.check(params)?;
        Ok(options)
    }

    fn check(&self, params: &SamplingParams) -> Result<(), SamplingParamsError> {
        if self.n == 0 || self.n > Self::MAX_N {
            let expected = "between 1 and 16384";
            return Err(SamplingParamsError::Range { field: "n", expected, got: f64::from(self.n) });
        }
        if self.n > 1 && params.temperature as f32 <= 0.0 {
            return Err(SamplingParamsError::SameAnswers(self.n));
        }
        for (field, texts) in [("stop", &self.stop), ("bad_words", &self.bad_words)] {
            if texts.iter().any(|text| text.trim_start().is_empty() && (field == "bad_words" || text.is_empty())) {
                return Err(SamplingParamsError::EmptyText(field));
            }
        }
        if !self.stop.is_empty() && !self.detokenize {
            return Err(SamplingParamsError::StopWithoutText);
        }
        Ok(())
    }

    /// How text is made, where the caller leaves special tokens out unless the request says otherwise, or not.
    pub fn text(&self, skip_special_tokens: bool) -> TextOptions {
        TextOptions {
            skip_special_tokens: self.skip_special_tokens.unwrap_or(skip_special_tokens),
            no_spaces_between_special_tokens: self.detokenize && !self.spaces_between_special_tokens,
            stop: self.stop.clone(),
            include_stop_str_in_output: self.include_stop_str_in_output,
        }
    }
}
