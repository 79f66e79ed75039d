//! How many blocks the pool of KV cache blocks has.

use crate::config::EngineConfig;
use crate::errors::EngineError;
use nanovllm_backend::Memory;

/// The number of blocks: `config.num_kvcache_blocks` when that is given; else the smallest of what `max_num_seqs` sequences
/// of `max_model_len` tokens fill, `gpu_memory_utilization` of the memory not yet used, and half of that memory. A block
/// takes `block_bytes` bytes over all layers.
///
/// # Errors
/// [`EngineError::KvCacheBeyondMemory`] when the given number takes more than the memory not yet used;
/// [`EngineError::MemoryUnknown`] when the number is to be found and `memory` is not given;
/// [`EngineError::NoRoomForKvCache`] when not even one block fits.
pub fn num_kvcache_blocks(
    config: &EngineConfig,
    block_bytes: usize,
    memory: Option<Memory>,
) -> Result<usize, EngineError> {
    if let Ok(num_blocks @ 1..) = usize::try_from(config.num_kvcache_blocks) {
        let bytes = (num_blocks as u128) * (block_bytes as u128);
        return match memory.map(|memory| memory.available()) {
            Some(available) if bytes > u128::from(available) => Err(EngineError::KvCacheBeyondMemory {
                num_blocks: num_blocks as u64,
                block_bytes: block_bytes as u64,
                available,
            }),
            _ => Ok(num_blocks),
        };
    }
    let available = memory.ok_or(EngineError::MemoryUnknown)?.available();
    let budget = ((available as f64 * config.gpu_memory_utilization) as u64).min(available / 2);
    // A model without a cache of its own (0 bytes) is bounded by the sequences alone.
    let affordable = budget.checked_div(block_bytes as u64).unwrap_or(u64::MAX);
    if affordable == 0 {
        return Err(EngineError::NoRoomForKvCache { block_bytes, budget });
    }
    let wanted = config.max_num_seqs.saturating_mul(config.max_model_len.div_ceil(config.kvcache_block_size.max(1)));
    let affordable = usize::try_from(affordable).unwrap_or(usize::MAX);
    Ok(wanted.min(affordable).min(config.max_blocks()).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> EngineConfig {
        EngineConfig { max_num_seqs: 4, max_model_len: 100, kvcache_block_size: 16, ..Default::default() }
    }

    fn blocks(config: &EngineConfig, block_bytes: usize, limit: u64, used: u64) -> Result<usize, EngineError> {
        num_kvcache_blocks(config, block_bytes, Some(Memory { limit, used }))
    }

    #[test]
    fn a_given_number_is_honoured() {
        let config = EngineConfig { num_kvcache_blocks: 12345, ..config() };
        assert_eq!(blocks(&config, 10, 123450, 0).unwrap(), 12345);
        assert_eq!(blocks(&config, 0, 0, 0).unwrap(), 12345, "a model without a cache");
        assert_eq!(num_kvcache_blocks(&config, 1 << 40, None).unwrap(), 12345, "nobody knows");
    }

    #[test]
    fn a_given_number_beyond_memory_is_refused() {
        let config = EngineConfig { num_kvcache_blocks: 12345, ..config() };
        for (block_bytes, limit, used) in
            [(10, 123449, 0), (10, 200000, 100000), (1 << 40, 0, 0), (usize::MAX, u64::MAX, 0)]
        {
            let text = blocks(&config, block_bytes, limit, used).unwrap_err().to_string();
            let bytes = 12345 * block_bytes as u128;
            for part in ["num_kvcache_blocks".into(), "12345".into(), bytes.to_string(), (limit - used).to_string()] {
                assert!(text.contains(&part), "{part}: {text}");
            }
        }
    }

    #[test]
    fn each_bound_can_be_the_smallest() {
        let mut config = config();
        assert_eq!(blocks(&config, 10, u64::MAX, 0).unwrap(), 4 * 7, "max_num_seqs x max_model_len");
        assert_eq!(blocks(&config, 10, 1100, 1000).unwrap(), 5, "half of what is available");
        config.gpu_memory_utilization = 0.2;
        assert_eq!(blocks(&config, 10, 1100, 1000).unwrap(), 2, "gpu_memory_utilization of what is available");
        config.max_num_seqs = usize::MAX;
        assert_eq!(blocks(&config, 1, u64::MAX, 0).unwrap(), i32::MAX as usize / 16, "32-bit slots");
        assert_eq!(blocks(&config, 0, 10, 0).unwrap(), i32::MAX as usize / 16, "a model without a cache");
    }

    #[test]
    fn too_little_memory_is_an_error() {
        let text = blocks(&config(), 51, 100, 0).unwrap_err().to_string();
        assert!(text.contains("51 bytes") && text.contains("50 bytes"), "{text}");
        assert_eq!(blocks(&config(), 50, 100, 0).unwrap(), 1);
        assert!(matches!(blocks(&config(), 1, 10, 20), Err(EngineError::NoRoomForKvCache { budget: 0, .. })));
        assert!(matches!(num_kvcache_blocks(&config(), 1, None), Err(EngineError::MemoryUnknown)));
    }
}
