//! Layouts of steps for sequences that a program looks after itself, and the numbers of nano-vLLM's context that the
//! engine's own steps do without.

use nanovllm_backend::SampleRow;

use crate::errors::EngineError;
use crate::prepare::StepInputs;
use crate::sequence::Sequence;

impl StepInputs {
    /// [`prepare_prefill`](Self::prepare_prefill) or [`prepare_decode`](Self::prepare_decode) for any sequences.
    ///
    /// # Errors
    /// [`EngineError::Precondition`] for a sequence whose cached and scheduled tokens are more than it has, whose tokens are
    /// not known, or whose blocks do not cover them; for more rows or keys than 32-bit offsets count.
    pub fn prepare_checked(&mut self, seqs: &[Sequence], is_prefill: bool) -> Result<(), EngineError> {
        let method = if is_prefill { "prepare_prefill" } else { "prepare_decode" };
        let refuse = |needs, got: String| Err(EngineError::Precondition { method, needs, got });
        if seqs.is_empty() && !is_prefill {
            return refuse("at least one sequence", "none".to_owned());
        }
        let mut num_keys: u64 = 0;
        for seq in seqs {
            let end = if is_prefill { seq.num_cached_tokens.checked_add(seq.num_scheduled_tokens) } else { None };
            let end = if is_prefill { end.unwrap_or(usize::MAX) } else { seq.num_tokens() };
            if end > seq.num_tokens() {
                let got = format!("{} + {} of {}", seq.num_cached_tokens, seq.num_scheduled_tokens, seq.num_tokens());
                return refuse("no more cached and scheduled tokens than tokens", got);
            }
            if is_prefill && !seq.has_tokens() {
                return refuse("all tokens of a sequence", "one pickled for decoding".to_owned());
            }
            let (blocks, needed) = (&seq.block_table, if is_prefill { end.div_ceil(seq.block_size()) } else { 1 });
            if blocks.len() < needed && !(is_prefill && blocks.is_empty()) {
                return refuse("blocks for the tokens", format!("{} of {needed}", blocks.len()));
            }
            let max_id = i32::MAX as usize / seq.block_size();
            if let Some(id) = blocks.iter().find(|&&id| id as usize >= max_id) {
                return refuse("slots below 2^31", format!("block {id} of {} tokens", seq.block_size()));
            }
            num_keys = num_keys.saturating_add(end as u64);
        }
        if num_keys > i32::MAX as u64 {
            return refuse("fewer than 2^31 keys", num_keys.to_string());
        }
        if is_prefill {
            self.prepare_prefill(seqs.iter());
        } else {
            self.prepare_decode(seqs.iter());
        }
        Ok(())
    }

    /// Lays out the block tables alone.
    pub fn prepare_block_tables_alone(&mut self, seqs: &[Sequence]) {
        self.clear();
        self.prepare_block_tables(seqs.iter());
    }

    /// Has every sequence sample, as nano-vLLM does; the token of one whose prompt is not finished means nothing.
    pub fn prepare_sample_all<'a>(&mut self, seqs: impl Iterator<Item = &'a Sequence>) -> Vec<SampleRow<'a>> {
        let mut sample_rows = self.begin_sample();
        let offsets = std::mem::take(&mut self.input.cu_seqlens_q);
        for (seq, rows) in seqs.zip(offsets.windows(2)) {
            self.choose(seq, rows[0]..rows[1], true, &mut sample_rows);
        }
        self.input.cu_seqlens_q = offsets;
        sample_rows
    }

    /// nano-vLLM's `cu_seqlens_k`: offsets of the keys each sequence attends to.
    pub fn cu_seqlens_k(&self) -> impl Iterator<Item = u64> + '_ {
        let offsets = self.input.context_lens.iter().scan(0, |total, &len| {
            *total += u64::from(len);
            Some(*total)
        });
        std::iter::once(0).chain(offsets)
    }

    /// The most rows a sequence brings.
    pub fn max_seqlen_q(&self) -> u32 {
        self.input.cu_seqlens_q.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
    }

    /// The most keys a sequence attends to.
    pub fn max_seqlen_k(&self) -> u32 {
        self.input.context_lens.iter().copied().max().unwrap_or(0)
    }

    /// Whether some keys were computed in an earlier step: nano-vLLM's `cu_seqlens_k[-1] > cu_seqlens_q[-1]`, when it passes
    /// block tables to a prefill.
    pub fn has_prefix_cache(&self) -> bool {
        let keys: u64 = self.input.context_lens.iter().map(|&len| u64::from(len)).sum();
        keys > self.input.input_ids.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling_params::SamplingParams;

    fn sequence(len: u32, cached: usize, scheduled: usize, table: &[u32]) -> Sequence {
        let mut seq = Sequence::new(0, (10..10 + len).collect(), SamplingParams::default(), 4).unwrap();
        (seq.num_cached_tokens, seq.num_scheduled_tokens, seq.block_table) = (cached, scheduled, table.to_vec());
        seq
    }

    #[test]
    fn chunks_start_and_end_anywhere() {
        let mut inputs = StepInputs::default();
        inputs.prepare_checked(&[sequence(11, 3, 6, &[7, 2, 5])], true).unwrap();
        assert_eq!(inputs.input.input_ids, [13, 14, 15, 16, 17, 18]);
        assert_eq!(inputs.input.slot_mapping, [31, 8, 9, 10, 11, 20]);
        assert!(inputs.has_prefix_cache());
        inputs.prepare_checked(&[sequence(9, 8, 1, &[7, 2, 5])], false).unwrap();
        assert_eq!((&inputs.input.slot_mapping[..], &inputs.input.positions[..]), (&[20][..], &[8][..]));
    }

    #[test]
    fn a_warm_up_has_no_slots() {
        let mut inputs = StepInputs::default();
        inputs.prepare_checked(&[sequence(5, 0, 5, &[])], true).unwrap();
        assert_eq!((inputs.input.input_ids.len(), inputs.input.slot_mapping.len()), (5, 0));
    }

    #[test]
    fn what_cannot_be_laid_out_is_named() {
        let cases = [
            (sequence(5, 3, 3, &[0, 1]), true, "3 + 3 of 5"),
            (sequence(5, usize::MAX, 3, &[0, 1]), true, "of 5"),
            (sequence(5, 0, 5, &[0]), true, "1 of 2"),
            (sequence(5, 0, 5, &[u32::MAX, 0]), true, "2^31"),
            (sequence(5, 4, 1, &[]), false, "0 of 1"),
            (sequence(5, 4, 1, &[]).copy_for_step(false), true, "pickled"),
        ];
        for (seq, is_prefill, expected) in cases {
            let text = StepInputs::default().prepare_checked(&[seq], is_prefill).unwrap_err().to_string();
            assert!(text.contains(expected), "{text}");
        }
        assert!(StepInputs::default().prepare_checked(&[], false).is_err());
        StepInputs::default().prepare_checked(&[], true).unwrap();
    }
}
