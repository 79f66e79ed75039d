//! Sequences whose fields a program sets by hand, and what nano-vLLM pickles of one for another process: tokens and blocks,
//! without id, status or sampling parameters.

use crate::errors::EngineError;
use crate::sampling_params::SamplingParams;
use crate::sequence::{Sequence, SequenceStatus, check_block_size};

/// The tokens of a [`SequenceState`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateTokens {
    /// All of them: prefill reads any chunk.
    All(Vec<u32>),
    /// The newest alone: decoding reads no other, and a long sequence would be sent anew each step.
    Last(u32),
}

/// nano-vLLM's `Sequence.__getstate__`, field for field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceState {
    /// Tokens in prompt and completion.
    pub num_tokens: usize,
    /// Tokens in the prompt.
    pub num_prompt_tokens: usize,
    /// Tokens whose keys and values are in the cache.
    pub num_cached_tokens: usize,
    /// Tokens that the step under way computes.
    pub num_scheduled_tokens: usize,
    /// The blocks in order.
    pub block_table: Vec<u32>,
    /// All tokens, or the newest.
    pub tokens: StateTokens,
}

impl Sequence {
    /// Changes how it samples; it ends at `eos`. The caller validates.
    pub fn set_params(&mut self, params: SamplingParams, eos: &[u32]) {
        self.params = params;
        self.make_processors(eos);
    }

    /// What a model runner in another process needs: everything for a prefill, the newest token for decoding.
    pub fn state(&self) -> SequenceState {
        let tokens = if self.is_prefill {
            StateTokens::All(self.token_ids().to_vec())
        } else {
            StateTokens::Last(self.last_token())
        };
        SequenceState {
            num_tokens: self.num_tokens,
            num_prompt_tokens: self.num_prompt_tokens,
            num_cached_tokens: self.num_cached_tokens,
            num_scheduled_tokens: self.num_scheduled_tokens,
            block_table: self.block_table.clone(),
            tokens,
        }
    }

    /// The sequence a state describes, with id 0 and default sampling parameters. Of one made for decoding the earlier
    /// tokens are not known: [`token_ids`](Self::token_ids) is empty.
    ///
    /// # Errors
    /// [`EngineError::EmptyPrompt`] without tokens; [`EngineError::Config`] for a block size below 2;
    /// [`EngineError::SequenceState`] for counts that contradict each other.
    pub fn from_state(state: SequenceState, block_size: usize) -> Result<Self, EngineError> {
        let SequenceState { num_tokens, num_prompt_tokens, .. } = state;
        let known = match &state.tokens {
            StateTokens::All(token_ids) => token_ids.len(),
            StateTokens::Last(_) => num_tokens,
        };
        if num_tokens != known || num_prompt_tokens > num_tokens {
            return Err(EngineError::SequenceState { num_tokens, num_prompt_tokens, known });
        }
        let seq = match state.tokens {
            StateTokens::All(token_ids) => Self::new(0, token_ids, SamplingParams::default(), block_size)?,
            StateTokens::Last(_) if num_tokens == 0 => return Err(EngineError::EmptyPrompt),
            StateTokens::Last(last_token) => {
                check_block_size(block_size)?;
                Self { is_prefill: false, num_tokens, last_token, block_size, ..Self::vacant() }
            }
        };
        Ok(Self {
            num_prompt_tokens,
            num_cached_tokens: state.num_cached_tokens,
            num_scheduled_tokens: state.num_scheduled_tokens,
            block_table: state.block_table,
            ..seq
        })
    }

    /// A copy to compute one step from: with all tokens for a prefill step, else with the newest alone.
    #[must_use]
    pub fn copy_for_step(&self, is_prefill: bool) -> Self {
        if is_prefill {
            return Self { is_prefill, ..self.clone() };
        }
        // What has grown with the sequence so far is not for the step.
        let Self { seq_id, status, num_cached_tokens, num_scheduled_tokens, noise_key, finish_reason, .. } = *self;
        Self {
            seq_id,
            status,
            num_cached_tokens,
            num_scheduled_tokens,
            noise_key,
            finish_reason,
            is_prefill,
            params: self.params.clone(),
            block_table: self.block_table.clone(),
            processors: self.processors.clone(),
            stop_token: self.stop_token,
            prefix_cache_hit: self.prefix_cache_hit,
            num_tokens: self.num_tokens,
            last_token: self.last_token,
            num_prompt_tokens: self.num_prompt_tokens,
            block_size: self.block_size,
            holder: self.holder,
            ..Self::vacant()
        }
    }

    /// The sequence as a scheduler queues it, whatever a program has set of it: it waits, and nothing of it is computed.
    pub(crate) fn into_new(self) -> Self {
        let status = SequenceStatus::Waiting;
        Self { status, is_prefill: true, num_cached_tokens: 0, num_scheduled_tokens: 0, ..self }
    }

    /// Whether all its tokens are known, as they are unless it was made for decoding from a [`SequenceState`] or by
    /// [`copy_for_step`](Self::copy_for_step).
    pub fn has_tokens(&self) -> bool {
        self.token_ids.len() == self.num_tokens
    }

    /// Appends a token, as [`append_token`](Self::append_token) does, also where the earlier tokens are not known.
    pub fn append_by_hand(&mut self, token_id: u32) {
        if self.has_tokens() {
            self.append_token(token_id);
        } else {
            self.num_tokens = self.num_tokens.saturating_add(1);
            self.last_token = token_id;
        }
    }

    /// Cuts it into blocks of another size.
    ///
    /// # Errors
    /// [`EngineError::Config`] for a size below 2.
    pub fn set_block_size(&mut self, block_size: usize) -> Result<(), EngineError> {
        if block_size != self.block_size {
            check_block_size(block_size)?;
            self.block_size = block_size;
            self.prefix_hashes.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence() -> Sequence {
        let mut seq = Sequence::new(7, vec![1, 2, 3], SamplingParams::default(), 2).unwrap();
        seq.append_token(4);
        (seq.num_cached_tokens, seq.num_scheduled_tokens, seq.block_table) = (2, 1, vec![5, 6]);
        seq
    }

    #[test]
    fn a_state_for_prefill_has_every_token() {
        let state = sequence().state();
        assert_eq!(state.tokens, StateTokens::All(vec![1, 2, 3, 4]));
        let seq = Sequence::from_state(state.clone(), 2).unwrap();
        assert_eq!((seq.token_ids(), seq.num_completion_tokens(), seq.is_prefill), (&[1, 2, 3, 4][..], 1, true));
        assert_eq!(seq.state(), state);
    }

    #[test]
    fn a_state_for_decoding_has_the_newest_token() {
        let mut seq = sequence();
        seq.is_prefill = false;
        let state = seq.state();
        assert_eq!(state.tokens, StateTokens::Last(4));
        let mut seq = Sequence::from_state(state.clone(), 2).unwrap();
        assert_eq!((seq.num_tokens(), seq.last_token(), seq.token_ids()), (4, 4, &[][..]));
        assert_eq!((seq.num_blocks(), seq.last_block_num_tokens(), seq.block(0)), (2, 2, &[][..]));
        assert_eq!(seq.state(), state);
        seq.append_by_hand(9);
        assert_eq!((seq.num_tokens(), seq.last_token(), seq.num_blocks()), (5, 9, 3));
    }

    #[test]
    fn contradictions_are_refused() {
        let state = sequence().state();
        let long = SequenceState { num_tokens: 5, ..state.clone() };
        let prompt = SequenceState { num_prompt_tokens: 5, ..state.clone() };
        for bad in [long, prompt] {
            assert!(matches!(Sequence::from_state(bad, 2), Err(EngineError::SequenceState { .. })));
        }
        let empty = SequenceState { num_tokens: 0, num_prompt_tokens: 0, tokens: StateTokens::Last(1), ..state };
        assert!(matches!(Sequence::from_state(empty, 2), Err(EngineError::EmptyPrompt)));
    }
}
