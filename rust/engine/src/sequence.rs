//! A sequence: one request's tokens, and where their keys and values are.

use std::ops::Range;

use nanovllm_backend::TokenLogprobs;

use crate::block_hash::compute_hash;
use crate::errors::EngineError;
use crate::pooling::Pooler;
use crate::processors::Processors;
use crate::sampling_params::SamplingParams;

/// Where a sequence stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequenceStatus {
    /// It is in the waiting queue: not prefilled yet, or only in part, or preempted.
    Waiting,
    /// It is in the running queue: prefilled, and decoded token by token.
    Running,
    /// It is done and holds no blocks.
    Finished,
}

/// Why a sequence finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// It produced an end-of-sequence token, or one that its request stops at.
    Stop,
    /// It reached `max_tokens` or `max_model_len`, or the KV pool cannot hold one more of its tokens.
    Length,
}

impl FinishReason {
    /// The name used by OpenAI's interface and vLLM's: `stop` or `length`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// A request: prompt and completion, sampling parameters, and its place in the KV cache. Pure data.
#[derive(Debug, Clone)]
pub struct Sequence {
    /// The caller's name for it.
    pub seq_id: u64,
    /// Whether it waits, runs or is done.
    pub status: SequenceStatus,
    /// Tokens whose keys and values are in the cache.
    pub num_cached_tokens: usize,
    /// Tokens that the step under way computes.
    pub num_scheduled_tokens: usize,
    /// True until it is first scheduled for decoding, and again when it is preempted.
    pub is_prefill: bool,
    /// Its blocks in order.
    pub block_table: Vec<u32>,
    /// The lower, the sooner it is computed.
    pub priority: i64,
    /// How many sequences its scheduler had been given before it.
    pub(crate) arrival: u64,
    /// How it samples.
    pub params: SamplingParams,
    /// Names its random stream. An engine changes it when it takes the request; see
    /// [`SampleRow::key`](nanovllm_backend::SampleRow::key).
    pub noise_key: u64,
    /// Why it finished, once it has.
    pub finish_reason: Option<FinishReason>,
    /// The token that ended it, if its request named that.
    pub stop_token: Option<u32>,
    /// How likely each token of the answer was, where that was asked for.
    pub logprobs: Vec<TokenLogprobs>,
    /// The same of the tokens of the prompt from the second on, as far as they are computed.
    pub prompt_logprobs: Vec<TokenLogprobs>,
    /// Its embedding while it is computed, of a sequence that is embedded instead of continued.
    pub(crate) pooler: Option<Box<Pooler>>,
    /// What its options do to logits, if anything.
    pub(crate) processors: Option<Box<Processors>>,
    /// Tokens the prefix cache spared when it was first admitted.
    pub prefix_cache_hit: Option<usize>,
    /// The sequence that stands before it in the queue and has the same prompt, which need not be computed twice if both are
    /// admitted in the same step.
    pub twin_of: Option<u64>,
    /// Prompt and completion. As in nano-vLLM their number and the newest of them have fields of their own, so that a
    /// sequence can be decoded without the others.
    pub(crate) token_ids: Vec<u32>,
    pub(crate) num_tokens: usize,
    pub(crate) last_token: u32,
    pub(crate) num_prompt_tokens: usize,
    pub(crate) block_size: usize,
    /// Chained hashes of the leading full blocks: tokens are only ever appended, so one never changes once computed.
    pub(crate) prefix_hashes: Vec<u64>,
    /// What pools know it by that have given it blocks by hand; no other sequence but its clones has it.
    pub(crate) holder: Option<u64>,
}

impl Sequence {
    /// A waiting sequence for a pool of blocks of `block_size` tokens.
    ///
    /// # Errors
    /// [`EngineError::EmptyPrompt`]; [`EngineError::Config`] for a block size below 2.
    pub fn new(
        seq_id: u64,
        token_ids: Vec<u32>,
        params: SamplingParams,
        block_size: usize,
    ) -> Result<Self, EngineError> {
        let Some(&last_token) = token_ids.last() else { return Err(EngineError::EmptyPrompt) };
        check_block_size(block_size)?;
        let num_tokens = token_ids.len();
        let mut seq = Self {
            seq_id,
            noise_key: params.noise_key(0, seq_id),
            params,
            token_ids,
            num_tokens,
            last_token,
            num_prompt_tokens: num_tokens,
            block_size,
            ..Self::vacant()
        };
        // Who schedules it knows what sequences end at, and makes them anew.
        seq.make_processors(&[]);
        Ok(seq)
    }

    /// A sequence without tokens, which owns no heap memory: what a free place of the slab holds.
    pub(crate) fn vacant() -> Self {
        Self {
            seq_id: 0,
            status: SequenceStatus::Waiting,
            num_cached_tokens: 0,
            num_scheduled_tokens: 0,
            is_prefill: true,
            block_table: Vec::new(),
            priority: 0,
            arrival: 0,
            params: SamplingParams::default(),
            noise_key: 0,
            finish_reason: None,
            stop_token: None,
            logprobs: Vec::new(),
            prompt_logprobs: Vec::new(),
            pooler: None,
            processors: None,
            prefix_cache_hit: None,
            twin_of: None,
            token_ids: Vec::new(),
            num_tokens: 0,
            last_token: 0,
            num_prompt_tokens: 0,
            block_size: 2,
            prefix_hashes: Vec::new(),
            holder: None,
        }
    }

    /// Prompt and completion.
    pub fn token_ids(&self) -> &[u32] {
        &self.token_ids
    }

    /// The prompt.
    pub fn prompt_token_ids(&self) -> &[u32] {
        &self.token_ids[..self.num_prompt_tokens.min(self.token_ids.len())]
    }

    /// The tokens generated so far.
    pub fn completion_token_ids(&self) -> &[u32] {
        &self.token_ids[self.num_prompt_tokens.min(self.token_ids.len())..]
    }

    /// Tokens in prompt and completion.
    pub fn num_tokens(&self) -> usize {
        self.num_tokens
    }

    /// Tokens in the prompt.
    pub fn num_prompt_tokens(&self) -> usize {
        self.num_prompt_tokens
    }

    /// Tokens generated so far.
    pub fn num_completion_tokens(&self) -> usize {
        self.num_tokens - self.num_prompt_tokens
    }

    /// The newest token.
    pub fn last_token(&self) -> u32 {
        self.last_token
    }

    /// Whether it is done.
    pub fn is_finished(&self) -> bool {
        self.status == SequenceStatus::Finished
    }

    /// Tokens in a block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// Blocks that its tokens fill, the last perhaps in part.
    pub fn num_blocks(&self) -> usize {
        self.num_tokens().div_ceil(self.block_size)
    }

    /// Tokens in the last block.
    pub fn last_block_num_tokens(&self) -> usize {
        self.num_tokens() - self.num_blocks().saturating_sub(1) * self.block_size
    }

    /// The tokens of block `i`; none past the end.
    pub fn block(&self, i: usize) -> &[u32] {
        let start = i.saturating_mul(self.block_size).min(self.token_ids.len());
        let end = start.saturating_add(self.block_size).min(self.token_ids.len());
        &self.token_ids[start..end]
    }

    /// The chained hash of block `i`, computed once; `i` is a full block.
    pub(crate) fn prefix_hash(&mut self, i: usize) -> u64 {
        while self.prefix_hashes.len() <= i {
            let next = compute_hash(self.block(self.prefix_hashes.len()), self.prefix_hashes.last().copied());
            self.prefix_hashes.push(next);
        }
        self.prefix_hashes[i]
    }

    /// Appends a generated token.
    pub fn append_token(&mut self, token_id: u32) {
        self.token_ids.push(token_id);
        self.num_tokens += 1;
        self.last_token = token_id;
        if let Some(processors) = &mut self.processors {
            processors.advance(&self.params, &self.token_ids[self.num_prompt_tokens.min(self.token_ids.len())..]);
        }
    }

    /// Makes what its options do to logits; a sequence ends at `eos`.
    pub(crate) fn make_processors(&mut self, eos: &[u32]) {
        self.processors = Processors::new(&self.params, self.prompt_token_ids(), self.completion_token_ids(), eos);
    }

    /// Whether the model has to compute its whole prompt, as something is asked of rows that have not been computed for it.
    pub(crate) fn needs_whole_prompt(&self) -> bool {
        self.asks_of_prompt() || self.pooler.as_ref().is_some_and(|pooler| pooler.wants_all())
    }

    /// Whether log-probabilities of its prompt are still to come.
    fn asks_of_prompt(&self) -> bool {
        self.params.prompt_logprobs.is_some() && self.prompt_logprobs.len() + 1 < self.num_prompt_tokens
    }

    /// The positions that this step computes of which it is asked how likely the next token of the prompt is.
    pub(crate) fn prompt_rows(&self) -> Range<usize> {
        if !self.asks_of_prompt() || !self.is_prefill {
            return 0..0;
        }
        let start = self.num_cached_tokens.max(self.prompt_logprobs.len());
        let end = (self.num_cached_tokens + self.num_scheduled_tokens).min(self.num_prompt_tokens - 1);
        start..end.max(start)
    }

    /// Whether this step computes its newest token.
    pub(crate) fn completes(&self) -> bool {
        self.num_cached_tokens + self.num_scheduled_tokens >= self.num_tokens()
    }

    /// Whether the next token is sampled in this step.
    pub(crate) fn samples(&self) -> bool {
        self.completes() && self.pooler.is_none()
    }

    /// The positions that this step computes whose hidden states its embedding is made of.
    pub(crate) fn pooled_rows(&self) -> Range<usize> {
        let computed = self.num_cached_tokens..self.num_cached_tokens + self.num_scheduled_tokens;
        self.pooler.as_ref().map_or(0..0, |pooler| pooler.wanted(computed, self.num_tokens()))
    }
}

pub(crate) fn check_block_size(block_size: usize) -> Result<(), EngineError> {
    if block_size < 2 {
        let (field, expected) = ("kvcache_block_size", "at least 2");
        return Err(EngineError::Config { field, expected, got: block_size.to_string() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(len: u32, block_size: usize) -> Sequence {
        Sequence::new(7, (0..len).collect(), SamplingParams::default(), block_size).unwrap()
    }

    #[test]
    fn blocks_partition_the_tokens() {
        for block_size in 2..6 {
            for len in 1..20 {
                let mut seq = sequence(len, block_size);
                seq.append_token(99);
                let joined: Vec<u32> = (0..seq.num_blocks()).flat_map(|i| seq.block(i).to_vec()).collect();
                assert_eq!(joined, seq.token_ids());
                assert_eq!(seq.block(seq.num_blocks() - 1).len(), seq.last_block_num_tokens());
                assert!(seq.block(seq.num_blocks()).is_empty() && seq.block(usize::MAX).is_empty());
                assert_eq!((seq.last_token(), seq.completion_token_ids()), (99, &[99][..]));
                assert_eq!((seq.num_prompt_tokens(), seq.num_completion_tokens()), (len as usize, 1));
                assert_eq!(seq.prompt_token_ids().len(), len as usize);
            }
        }
    }

    #[test]
    fn prefix_hashes_chain() {
        let mut seq = sequence(8, 4);
        let first = compute_hash(&[0, 1, 2, 3], None);
        assert_eq!(seq.prefix_hash(1), compute_hash(&[4, 5, 6, 7], Some(first)));
        assert_eq!(seq.prefix_hash(0), first);
    }

    #[test]
    fn bad_input_is_named() {
        let empty = Sequence::new(0, vec![], SamplingParams::default(), 4).unwrap_err();
        assert!(matches!(empty, EngineError::EmptyPrompt));
        let block = Sequence::new(0, vec![1], SamplingParams::default(), 1).unwrap_err();
        assert!(block.to_string().starts_with("kvcache_block_size"), "{block}");
    }
}
