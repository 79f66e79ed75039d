//! Steps that a program has put together. The device trusts its input, so all of it is checked.

use crate::errors::EngineError;
use crate::model_runner::ModelRunner;
use crate::prepare::StepInputs;
use crate::sequence::Sequence;
use nanovllm_backend::KvCacheSpec;
use nanovllm_model::{CausalLm, ModelInput};

impl ModelRunner {
    /// Computes a step of these sequences and returns a token for each, as nano-vLLM's `run` does. That of one whose prompt
    /// is not finished means nothing.
    ///
    /// # Errors
    /// Those of [`StepInputs::prepare_checked`], of [`check_input`](Self::check_input) and of
    /// [`run`](Self::run); [`EngineError::BlockSizeMismatch`].
    pub fn run_by_hand(
        &mut self,
        seqs: &[Sequence],
        is_prefill: bool,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<u32>, EngineError> {
        if seqs.is_empty() {
            return Ok(Vec::new());
        }
        let expected = self.kv_cache_spec().block_size;
        if let Some(got) = seqs.iter().map(Sequence::block_size).find(|&got| got != expected) {
            return Err(EngineError::BlockSizeMismatch { expected, got });
        }
        self.inputs.prepare_checked(seqs, is_prefill)?;
        self.check_input(&self.inputs.input)?;
        self.inputs.prepare_sample_all(seqs.iter());
        self.compute(interrupted)
    }

    /// Computes a step and returns the logits of each sequence's last row, `[num_seqs, vocab_size]`.
    ///
    /// # Errors
    /// Those of [`check_input`](Self::check_input); [`EngineError::Step`].
    pub fn last_logits(
        &mut self,
        input: &ModelInput,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<f32>, EngineError> {
        self.check_input(input)?;
        let mut logits = Vec::new();
        if input.num_seqs() > 0 {
            self.model.logits(input, &input.last_rows(), &mut logits, interrupted)?;
        }
        Ok(logits)
    }

    /// Checks whether the device can be given this input: each row is at its position and in its slot (or in none, -1),
    /// token ids, blocks and lengths are within the model's, and slots are distinct.
    ///
    /// # Errors
    /// [`EngineError::TokenOutOfRange`], or [`EngineError::Precondition`] for anything else that is wrong.
    pub fn check_input(&self, input: &ModelInput) -> Result<(), EngineError> {
        let refuse = |needs, got: String| Err(EngineError::Precondition { method: "run", needs, got });
        let (rows, num_seqs, stride) = (input.input_ids.len(), input.num_seqs(), input.table_stride);
        let vocab_size = self.model().vocab_size();
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
        let &KvCacheSpec { block_size, num_blocks, .. } = self.kv_cache_spec();
        for (s, ends) in offsets.windows(2).enumerate() {
            let (first, last, len) = (ends[0] as usize, ends[1] as usize, input.context_lens[s] as usize);
            if first >= last || last > rows || last - first > len || len > self.max_model_len() {
                let got = format!("{} rows of {len} tokens", last.wrapping_sub(first));
                return refuse("1 row or more of a context within max_model_len", got);
            }
            let table = &input.block_tables[s * stride..(s + 1) * stride];
            let needed = len.div_ceil(block_size);
            let in_pool = |&id: &i32| usize::try_from(id).is_ok_and(|id| id < num_blocks);
            if table.len() < needed || !table[..needed].iter().all(in_pool) {
                return refuse(
                    "blocks of the cache for every token",
                    format!("{:?}", &table[..needed.min(table.len())]),
                );
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
        let mut slots: Vec<i32> = input.slot_mapping.iter().copied().filter(|&slot| slot >= 0).collect();
        slots.sort_unstable();
        match slots.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => refuse("distinct slots", format!("slot {} twice", pair[0])),
            None => Ok(()),
        }
    }

    /// The model, for programs that run it themselves ([`CausalLm::logits`]). They overwrite the cache rows they name.
    pub fn model_mut(&mut self) -> &mut dyn CausalLm {
        self.model.as_mut()
    }

    /// The input of the last step.
    pub fn inputs(&self) -> &StepInputs {
        &self.inputs
    }
}
