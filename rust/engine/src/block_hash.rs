//! Hashes of full blocks, by which the prefix cache knows them. Each is chained to the one before it, so that it stands for
//! all tokens of a sequence up to the block's end.

use xxhash_rust::xxh64::Xxh64;

/// The hash of a full block; `prefix` is the hash of the block before it, if there is one. See [`hash_tokens`].
pub fn compute_hash(token_ids: &[u32], prefix: Option<u64>) -> u64 {
    hash_tokens(token_ids.iter().map(|&id| i64::from(id)), prefix)
}

/// nano-vLLM's `compute_hash`: xxh64 with seed 0 over the prefix hash as 8 little-endian bytes, if there is one, then each
/// token id as a little-endian 64-bit integer.
pub fn hash_tokens(token_ids: impl IntoIterator<Item = i64>, prefix: Option<u64>) -> u64 {
    let mut hasher = Xxh64::new(0);
    if let Some(prefix) = prefix {
        hasher.update(&prefix.to_le_bytes());
    }
    for id in token_ids {
        hasher.update(&id.to_le_bytes());
    }
    hasher.digest()
}
