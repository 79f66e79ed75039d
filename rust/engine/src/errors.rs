//! The engine's errors.

use nanovllm_model::StepError;

/// What the engine refuses, or could not do. It stays usable after every one of these errors.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A configuration value outside its range.
    #[error("{field} must be {expected}, got {got}")]
    Config {
        /// The name of the field of [`EngineConfig`](crate::EngineConfig).
        field: &'static str,
        /// The values it may have, in words.
        expected: &'static str,
        /// The value that was given.
        got: String,
    },
    /// Sampling parameters outside their range.
    #[error(transparent)]
    SamplingParams(#[from] SamplingParamsError),
    /// A request without a token.
    #[error("the prompt is empty: at least one token is needed")]
    EmptyPrompt,
    /// A token id that the model has no embedding for.
    #[error("token id {token_id} at position {position} is outside the vocabulary of {vocab_size} tokens")]
    TokenOutOfRange {
        /// The id that was given.
        token_id: u32,
        /// Its place in the prompt, counted from 0.
        position: usize,
        /// Tokens in the vocabulary; ids are below it.
        vocab_size: usize,
    },
    /// A prompt that leaves no room for one generated token.
    #[error(
        "the prompt has {prompt_len} tokens; with one generated token it exceeds max_model_len, which is {max_model_len}"
    )]
    PromptTooLong {
        /// Tokens in the prompt.
        prompt_len: usize,
        /// The limit on prompt and completion together.
        max_model_len: usize,
    },
    /// A prompt to be embedded that is longer than any sequence may be.
    #[error("the prompt has {prompt_len} tokens, which is more than max_model_len, which is {max_model_len}")]
    PromptExceeds {
        /// Tokens in the prompt.
        prompt_len: usize,
        /// The limit.
        max_model_len: usize,
    },
    /// A prompt larger than the whole KV pool.
    #[error(
        "the prompt has {prompt_len} tokens and needs {needed} KV cache blocks of {block_size} tokens, but the pool has \
         {available}; raise num_kvcache_blocks"
    )]
    PromptNeverFits {
        /// Tokens in the prompt.
        prompt_len: usize,
        /// Blocks the prompt fills.
        needed: usize,
        /// Blocks in the pool.
        available: usize,
        /// Tokens in a block.
        block_size: usize,
    },
    /// A sequence id that is still in use.
    #[error("sequence id {0} is already in use")]
    DuplicateSeqId(u64),
    /// A sequence whose block size is not the pool's.
    #[error("the sequence was made for blocks of {got} tokens, the pool has blocks of {expected}")]
    BlockSizeMismatch {
        /// The pool's block size.
        expected: usize,
        /// The sequence's block size.
        got: usize,
    },
    /// A program that steps by hand has called a method when it must not, where nano-vLLM asserts or breaks.
    #[error("{method} needs {needs}, got {got}")]
    Precondition {
        /// The name of the method.
        method: &'static str,
        /// What must hold when the method is called, in words.
        needs: &'static str,
        /// What it was called with or on.
        got: String,
    },
    /// A pickled sequence whose counts contradict each other.
    #[error(
        "a sequence of {num_tokens} tokens, {num_prompt_tokens} of them prompt, cannot be made from {known} token ids"
    )]
    SequenceState {
        /// Tokens it is said to have.
        num_tokens: usize,
        /// Tokens of its prompt that it is said to have.
        num_prompt_tokens: usize,
        /// Token ids that came with it.
        known: usize,
    },
    /// An id that no sequence in the scheduler has.
    #[error("the scheduler holds no sequence with id {0}")]
    UnknownSeqId(u64),
    /// The size of the KV pool was left to the engine and the system does not tell its memory.
    #[error("cannot read how much memory this machine has; set num_kvcache_blocks")]
    MemoryUnknown,
    /// Memory cannot hold a single KV cache block.
    #[error("no memory for the KV cache: one block takes {block_bytes} bytes and {budget} bytes may be used")]
    NoRoomForKvCache {
        /// Bytes that one block takes over all layers.
        block_bytes: usize,
        /// Bytes that the pool may take.
        budget: u64,
    },
    /// More KV cache blocks were asked for than memory can hold.
    #[error(
        "num_kvcache_blocks is {num_blocks}, which takes {} of memory ({block_bytes} bytes a block), and {} can be had; \
         with -1 the number follows the memory there is",
        gib(u128::from(*block_bytes) * u128::from(*num_blocks)), gib(u128::from(*available))
    )]
    KvCacheBeyondMemory {
        /// Blocks that were asked for.
        num_blocks: u64,
        /// Bytes that one block takes over all layers.
        block_bytes: u64,
        /// Bytes that can still be had.
        available: u64,
    },
    /// The block manager's own tables could not be allocated.
    #[error("cannot allocate the tables of {num_blocks} KV cache blocks")]
    BlockTablesTooLarge {
        /// Blocks that the pool was to have.
        num_blocks: usize,
    },
    /// The device failed outside a step.
    #[error(transparent)]
    Backend(#[from] nanovllm_backend::Error),
    /// The step was interrupted, or the device failed in it; it has been rolled back.
    #[error(transparent)]
    Step(#[from] StepError),
    /// The model answered with the wrong number of tokens; the step has been rolled back.
    #[error("the model returned {got} tokens for {expected} sampling sequences")]
    TokenCount {
        /// Sequences that sample in this step.
        expected: usize,
        /// Tokens that the model returned.
        got: usize,
    },
    /// The model chose a token outside its vocabulary; the step has been rolled back.
    #[error("the model chose token id {token_id}, outside its vocabulary of {vocab_size} tokens")]
    BadToken {
        /// The id that the model chose.
        token_id: u32,
        /// Tokens in the vocabulary; ids are below it.
        vocab_size: usize,
    },
}

/// A number of bytes in a unit that people read, with the bytes themselves.
fn gib(bytes: u128) -> String {
    format!("{:.2} GiB ({bytes} bytes)", bytes as f64 / f64::from(1u32 << 30))
}

/// Why sampling parameters are refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SamplingParamsError {
    /// A temperature that is NaN, negative, or infinite once it is a float32.
    #[error("temperature must be between 0 (greedy) and 3.4e38 (the largest float32), got {0:?}")]
    Temperature(f64),
    /// A request for no tokens, with which nano-vLLM never stops.
    #[error("max_tokens must be at least 1, got 0")]
    MaxTokens,
    /// A number outside its range.
    #[error("{field} must be {expected}, got {got:?}")]
    Range {
        /// The name of the field.
        field: &'static str,
        /// The values it may have, in words.
        expected: &'static str,
        /// The value that was given.
        got: f64,
    },
    /// More tokens at least than at most.
    #[error("min_tokens must be at most max_tokens, which is {max_tokens}, got {min_tokens}")]
    MinTokens {
        /// Tokens to generate at least.
        min_tokens: usize,
        /// Tokens to generate at most.
        max_tokens: usize,
    },
    /// A bias that is no number, or makes a token certain.
    #[error("logit_bias of token {token_id} must be below infinity, got {bias}")]
    Bias {
        /// The token.
        token_id: u32,
        /// What was to be added to its logit.
        bias: f32,
    },
    /// Several greedy answers, which would all be the same.
    #[error("n must be 1 when temperature is 0, as all answers would be the same, got {0}")]
    SameAnswers(u32),
    /// A text that stands for nothing.
    #[error("{0} must not have an empty text")]
    EmptyText(&'static str),
    /// Texts that end an answer of which no text is made.
    #[error("stop needs detokenize, which is False")]
    StopWithoutText,
    /// A list of allowed tokens without one.
    #[error("allowed_token_ids must have at least one token, or be None for all")]
    NoTokenAllowed,
    /// An option that names a token which the model does not have.
    #[error("{field} has token id {token_id}, outside the vocabulary of {vocab_size} tokens")]
    TokenOutOfRange {
        /// The name of the field.
        field: &'static str,
        /// The id that was given.
        token_id: u32,
        /// Tokens in the vocabulary; ids are below it.
        vocab_size: usize,
    },
}
