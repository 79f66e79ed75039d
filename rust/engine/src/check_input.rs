//! Whether a device can be given a step. It trusts its input, to the point that two rows in one slot are a data race, so no
//! step reaches it that was not checked here, whoever put it together.

use crate::errors::EngineError;
use nanovllm_model::ModelInput;

/// What the parts of a step must keep within.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InputLimits {
    /// Tokens in the model's vocabulary.
    pub(crate) vocab_size: usize,
    /// Tokens of the longest sequence.
    pub(crate) max_model_len: usize,
    /// Blocks of the KV cache.
    pub(crate) num_blocks: usize,
    /// Tokens in a block.
    pub(crate) block_size: usize,
}

/// Checks that each row is at its position and in its slot (or in none, -1), that token ids, blocks and lengths are within
/// the limits, and that slots are distinct. `slots` is memory that is kept from step to step.
///
/// # Errors
/// [`EngineError::TokenOutOfRange`], or [`EngineError::Precondition`] for anything else that is wrong.
pub(crate) fn check_input(input: &ModelInput, limits: &InputLimits, slots: &mut Vec<i32>) -> Result<(), EngineError> {
    let refuse = |needs, got: String| Err(EngineError::Precondition { method: "run", needs, got });
    let &InputLimits { vocab_size, max_model_len, num_blocks, block_size } = limits;
    let (rows, num_seqs, stride) = (input.input_ids.len(), input.num_seqs(), input.table_stride);
    if let Some(position) = input.input_ids.iter().position(|&id| id as usize >= vocab_size) {
        return Err(EngineError::TokenOutOfRange { token_id: input.input_ids[position], position, vocab_size });
    }
    let offsets = &input.cu_seqlens_q;
    if offsets.len() != num_seqs + 1 || offsets.first() != Some(&0) || offsets[num_seqs] as usize != rows {
        return refuse("cu_seqlens_q from 0 to the number of rows", format!("{} offsets", offsets.len()));
    }
    if input.positions.len() != rows || input.slot_mapping.len() != rows {
        let got = format!("{} positions and {} slots", input.positions.len(), input.slot_mapping.len());
        return refuse("a position and a slot for each row", got);
    }
    if stride.checked_mul(num_seqs) != Some(input.block_tables.len()) {
        return refuse("a block table for each sequence", format!("{} entries", input.block_tables.len()));
    }
    for (s, ends) in offsets.windows(2).enumerate() {
        let (first, last, len) = (ends[0] as usize, ends[1] as usize, input.context_lens[s] as usize);
        if first >= last || last > rows || last - first > len || len > max_model_len {
            let got = format!("{} rows of {len} tokens", last.wrapping_sub(first));
            return refuse("1 row or more of a context within max_model_len", got);
        }
        let table = &input.block_tables[s * stride..(s + 1) * stride];
        let needed = len.div_ceil(block_size);
        let in_pool = |&id: &i32| usize::try_from(id).is_ok_and(|id| id < num_blocks);
        if table.len() < needed || !table[..needed].iter().all(in_pool) {
            return refuse("blocks of the cache for every token", format!("{:?}", &table[..needed.min(table.len())]));
        }
        for (row, position) in (first..last).zip(len - (last - first)..) {
            let slot = table[position / block_size] as usize * block_size + position % block_size;
            let stored = input.slot_mapping[row];
            if input.positions[row] as usize != position || (stored != -1 && stored != slot as i32) {
                let got = format!("position {} and slot {stored} for row {row}", input.positions[row]);
                return refuse("rows at their positions and in their slots", got);
            }
        }
    }
    slots.clear();
    slots.extend(input.slot_mapping.iter().filter(|&&slot| slot >= 0));
    slots.sort_unstable();
    match slots.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => refuse("distinct slots", format!("slot {} twice", pair[0])),
        None => Ok(()),
    }
}
