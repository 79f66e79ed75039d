//! What an engine can take, known without the engine: requests are checked while it computes.

use crate::errors::{EngineError, SamplingParamsError};
use crate::pooling::Pooling;
use crate::sampling_params::SamplingParams;

/// The limits that a request must keep within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    /// Tokens in the model's vocabulary; ids are below it.
    pub vocab_size: usize,
    /// Most tokens of prompt and completion together.
    pub max_model_len: usize,
    /// Blocks in the KV pool.
    pub num_blocks: usize,
    /// Tokens in a block.
    pub block_size: usize,
}

impl RequestLimits {
    /// Checks whether an engine with these limits takes the request.
    ///
    /// A prompt of `max_model_len` tokens is refused, as in vLLM: it leaves no room for a generated one.
    ///
    /// # Errors
    /// [`EngineError::SamplingParams`], [`EngineError::EmptyPrompt`], [`EngineError::TokenOutOfRange`],
    /// [`EngineError::PromptTooLong`], [`EngineError::PromptNeverFits`].
    pub fn check(&self, token_ids: &[u32], params: &SamplingParams) -> Result<(), EngineError> {
        self.check_request(token_ids, params, None)
    }

    /// As [`check`](Self::check), also for a request to embed a prompt, which may have `max_model_len` tokens.
    ///
    /// # Errors
    /// Those of [`check`](Self::check); [`EngineError::PromptExceeds`].
    pub fn check_request(
        &self,
        token_ids: &[u32],
        params: &SamplingParams,
        pooling: Option<Pooling>,
    ) -> Result<(), EngineError> {
        params.validate()?;
        self.check_options(params)?;
        if token_ids.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        self.check_tokens(token_ids)?;
        let (prompt_len, max_model_len) = (token_ids.len(), self.max_model_len);
        if pooling.is_none() && prompt_len >= max_model_len {
            return Err(EngineError::PromptTooLong { prompt_len, max_model_len });
        }
        if prompt_len > max_model_len {
            return Err(EngineError::PromptExceeds { prompt_len, max_model_len });
        }
        let (needed, available, block_size) = (prompt_len.div_ceil(self.block_size), self.num_blocks, self.block_size);
        if needed > available {
            return Err(EngineError::PromptNeverFits { prompt_len, needed, available, block_size });
        }
        Ok(())
    }

    /// Checks whether the model has every token that an option names.
    fn check_options(&self, params: &SamplingParams) -> Result<(), SamplingParamsError> {
        let biased: Vec<u32> = params.logit_bias.iter().map(|&(token, _)| token).collect();
        for (field, tokens) in [
            ("stop_token_ids", &params.stop_token_ids),
            ("allowed_token_ids", &params.allowed_token_ids),
            ("logit_bias", &biased),
        ] {
            if let Some(&token_id) = tokens.iter().find(|&&token| token as usize >= self.vocab_size) {
                return Err(SamplingParamsError::TokenOutOfRange { field, token_id, vocab_size: self.vocab_size });
            }
        }
        Ok(())
    }

    /// Checks whether the model has an embedding for every token.
    ///
    /// # Errors
    /// [`EngineError::TokenOutOfRange`] for the first for which it has none.
    pub fn check_tokens(&self, token_ids: &[u32]) -> Result<(), EngineError> {
        let vocab_size = self.vocab_size;
        match token_ids.iter().enumerate().find(|&(_, &id)| id as usize >= vocab_size) {
            Some((position, &token_id)) => Err(EngineError::TokenOutOfRange { token_id, position, vocab_size }),
            None => Ok(()),
        }
    }
}
