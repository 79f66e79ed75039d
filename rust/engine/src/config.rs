//! What an engine is told when it is made.

use crate::errors::EngineError;
use nanovllm_backend::DType;

/// How the scheduler admits sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SchedulingPolicy {
    /// nano-vLLM's decisions exactly: `max_num_seqs` bounds the sequences of one step, so more may be running and the tail
    /// of the running queue waits for the head to finish.
    NanoVllm,
    /// `max_num_seqs` bounds the running sequences, and a waiting sequence that has outgrown the whole pool is ended as
    /// soon as it is met rather than once everything else has finished.
    #[default]
    Default,
    /// Steps decode and prefill at once, prompts in chunks that keep a step short, and sequences are in one order by priority and
    /// arrival: for callers who wait for every token.
    Mixed,
}

impl SchedulingPolicy {
    /// Every policy.
    pub const ALL: [Self; 3] = [Self::NanoVllm, Self::Default, Self::Mixed];

    /// Its name for users.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NanoVllm => "nano-vllm",
            Self::Default => "default",
            Self::Mixed => "mixed",
        }
    }

    /// The policy of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.as_str() == name)
    }
}

/// Configuration of the engine; nano-vLLM's fields and defaults where it has them.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineConfig {
    /// Most rows of one prefill step.
    pub max_num_batched_tokens: usize,
    /// Most sequences at a time: in one step, or running; see [`SchedulingPolicy`].
    pub max_num_seqs: usize,
    /// Most tokens of a sequence, prompt and completion together; one that reaches it finishes with `length`.
    pub max_model_len: usize,
    /// Share of the memory left on the machine that the KV pool may take, in (0, 1].
    pub gpu_memory_utilization: f64,
    /// End-of-sequence ids; any of them stops a sequence.
    pub eos: Vec<u32>,
    /// Tokens in a KV cache block; at least 2.
    pub kvcache_block_size: usize,
    /// KV cache blocks; -1 lets the engine decide by the memory of the machine.
    pub num_kvcache_blocks: i64,
    /// Element type of the KV cache; `None` is the model's choice.
    pub kv_cache_dtype: Option<DType>,
    /// Seed of every request that brings none.
    pub seed: u64,
    /// How sequences are admitted and steps are composed.
    pub policy: SchedulingPolicy,
    /// The most seconds that a mixed step may take beside what decoding alone does; without it, a few times as long as that.
    pub max_inter_token_latency: Option<f64>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            max_num_batched_tokens: 16384,
            max_num_seqs: 512,
            max_model_len: 4096,
            gpu_memory_utilization: 0.9,
            eos: Vec::new(),
            kvcache_block_size: 256,
            num_kvcache_blocks: -1,
            kv_cache_dtype: None,
            seed: 0,
            policy: SchedulingPolicy::default(),
            max_inter_token_latency: None,
        }
    }
}

/// Positions, slots and row offsets are 32-bit in the model's input.
const MAX_I32: usize = i32::MAX as usize;

impl EngineConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`EngineError::Config`] names the field, its range and the value.
    pub fn validate(&self) -> Result<(), EngineError> {
        check(
            "max_num_batched_tokens",
            "between 1 and 2^31 - 1",
            self.max_num_batched_tokens,
            (1..=MAX_I32).contains(&self.max_num_batched_tokens),
        )?;
        check("max_num_seqs", "at least 1", self.max_num_seqs, self.max_num_seqs >= 1)?;
        check(
            "max_model_len",
            "between 2 (a prompt token and a generated one) and 2^31 - 1",
            self.max_model_len,
            (2..=MAX_I32).contains(&self.max_model_len),
        )?;
        check(
            "gpu_memory_utilization",
            "above 0 and at most 1",
            self.gpu_memory_utilization,
            self.gpu_memory_utilization > 0.0 && self.gpu_memory_utilization <= 1.0,
        )?;
        // A block of one token would never satisfy nano-vLLM's `len % block_size == 1`, its sign of a new block.
        check(
            "kvcache_block_size",
            "between 2 and 2^31 - 1",
            self.kvcache_block_size,
            (2..=MAX_I32).contains(&self.kvcache_block_size),
        )?;
        check(
            "max_inter_token_latency",
            "a number of seconds above 0",
            self.max_inter_token_latency.unwrap_or(1.0),
            self.max_inter_token_latency.is_none_or(|limit| limit > 0.0 && limit.is_finite()),
        )?;
        check(
            "num_kvcache_blocks",
            "-1 (decide from memory) or at least 1, with fewer than 2^31 tokens in all",
            self.num_kvcache_blocks,
            self.num_kvcache_blocks == -1 || (1..=self.max_blocks() as i64).contains(&self.num_kvcache_blocks),
        )
    }

    /// Blocks whose slots fit the 32-bit slot mapping.
    pub(crate) fn max_blocks(&self) -> usize {
        MAX_I32 / self.kvcache_block_size.max(1)
    }
}

fn check(
    field: &'static str,
    expected: &'static str,
    got: impl std::fmt::Display,
    in_range: bool,
) -> Result<(), EngineError> {
    if in_range { Ok(()) } else { Err(EngineError::Config { field, expected, got: got.to_string() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        EngineConfig::default().validate().unwrap();
    }

    #[test]
    fn every_bad_field_is_named() {
        type Spoil = fn(&mut EngineConfig);
        let bad: [(&str, Spoil); 16] = [
            ("max_num_batched_tokens", |c| c.max_num_batched_tokens = 0),
            ("max_num_batched_tokens", |c| c.max_num_batched_tokens = usize::MAX),
            ("max_num_seqs", |c| c.max_num_seqs = 0),
            ("max_model_len", |c| c.max_model_len = 1),
            ("max_model_len", |c| c.max_model_len = usize::MAX),
            ("gpu_memory_utilization", |c| c.gpu_memory_utilization = 0.0),
            ("gpu_memory_utilization", |c| c.gpu_memory_utilization = 1.01),
            ("gpu_memory_utilization", |c| c.gpu_memory_utilization = f64::NAN),
            ("max_inter_token_latency", |c| c.max_inter_token_latency = Some(0.0)),
            ("max_inter_token_latency", |c| c.max_inter_token_latency = Some(f64::NAN)),
            ("kvcache_block_size", |c| c.kvcache_block_size = 0),
            ("kvcache_block_size", |c| c.kvcache_block_size = 1),
            ("kvcache_block_size", |c| c.kvcache_block_size = usize::MAX),
            ("num_kvcache_blocks", |c| c.num_kvcache_blocks = 0),
            ("num_kvcache_blocks", |c| c.num_kvcache_blocks = -2),
            ("num_kvcache_blocks", |c| c.num_kvcache_blocks = 1 << 60),
        ];
        for (name, spoil) in bad {
            let mut config = EngineConfig::default();
            spoil(&mut config);
            let text = config.validate().unwrap_err().to_string();
            assert!(text.starts_with(name), "{text}");
        }
    }
}
