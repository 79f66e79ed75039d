//! From scheduled sequences to a model's input: nano-vLLM's `prepare_prefill`, `prepare_decode` and `prepare_sample`.

use std::ops::Range;

use crate::processors::truncation;
use crate::sequence::Sequence;
use nanovllm_backend::SampleRow;
use nanovllm_model::ModelInput;

/// One step's input in buffers that are reused from step to step.
#[derive(Debug, Clone, Default)]
pub struct StepInputs {
    /// The rows that the model computes, sequence after sequence.
    pub input: ModelInput,
    /// Rows after which a token is chosen, ascending.
    pub rows: Vec<u32>,
    /// The room of the last step's list of how tokens are chosen, without its elements.
    spare: Vec<SampleRow<'static>>,
}

impl StepInputs {
    /// Lays out the scheduled chunk of each sequence. Unlike nano-vLLM it always fills `block_tables` and `context_lens`:
    /// attention reads the cache through them whether or not there is a cached prefix.
    pub fn prepare_prefill<'a>(&mut self, seqs: impl Iterator<Item = &'a Sequence> + Clone) {
        self.clear();
        let input = &mut self.input;
        for seq in seqs.clone() {
            let block_size = seq.block_size();
            let (start, end) = (seq.num_cached_tokens, seq.num_cached_tokens + seq.num_scheduled_tokens);
            input.input_ids.extend_from_slice(&seq.token_ids()[start..end]);
            input.positions.extend(start as u32..end as u32);
            input.cu_seqlens_q.push(input.input_ids.len() as u32);
            input.context_lens.push(end as u32);
            if seq.block_table.is_empty() {
                continue; // nothing is stored: nano-vLLM's warm-up
            }
            for block in start / block_size..end.div_ceil(block_size) {
                let base = seq.block_table[block] as usize * block_size;
                let first = start.max(block * block_size) - block * block_size;
                let last = end.min((block + 1) * block_size) - block * block_size;
                input.slot_mapping.extend((base + first) as i32..(base + last) as i32);
            }
        }
        self.prepare_block_tables(seqs);
    }

    /// Lays out the newest token of each sequence.
    pub fn prepare_decode<'a>(&mut self, seqs: impl Iterator<Item = &'a Sequence> + Clone) {
        self.clear();
        let input = &mut self.input;
        for seq in seqs.clone() {
            input.input_ids.push(seq.last_token());
            input.positions.push(seq.num_tokens() as u32 - 1);
            input.cu_seqlens_q.push(input.input_ids.len() as u32);
            input.context_lens.push(seq.num_tokens() as u32);
            if let Some(&block) = seq.block_table.last() {
                let slot = block as usize * seq.block_size() + seq.last_block_num_tokens() - 1;
                input.slot_mapping.push(slot as i32);
            }
        }
        self.prepare_block_tables(seqs);
    }

    /// Lays out the blocks of each sequence, padded with -1 to the longest table.
    pub(crate) fn prepare_block_tables<'a>(&mut self, seqs: impl Iterator<Item = &'a Sequence> + Clone) {
        let stride = seqs.clone().map(|seq| seq.block_table.len()).max().unwrap_or(0);
        self.input.table_stride = stride;
        for (s, seq) in seqs.enumerate() {
            self.input.block_tables.extend(seq.block_table.iter().map(|&id| id as i32));
            self.input.block_tables.resize((s + 1) * stride, -1);
        }
    }

    /// Has each sequence sample whose newest token this step computes, and each tell of its prompt what was asked; those of `seqs`
    /// that have rows were laid out before, and the others are twins, which sample after the last row before them. Returns how
    /// the token after each of [`rows`](Self::rows) is chosen.
    pub fn prepare_sample<'a>(&mut self, seqs: impl Iterator<Item = &'a Sequence>) -> Vec<SampleRow<'a>> {
        let mut sample_rows = self.begin_sample();
        let mut end = 0;
        for seq in seqs {
            let first = end;
            end += seq.num_scheduled_tokens as u32;
            self.choose(seq, first..end, seq.samples(), &mut sample_rows);
        }
        sample_rows
    }

    /// Has [`rows`](Self::rows) be those that embeddings are made of; `seqs` were laid out before.
    pub(crate) fn prepare_pooling<'a>(&mut self, seqs: impl Iterator<Item = &'a Sequence>) {
        self.rows.clear();
        let mut first = 0;
        for seq in seqs {
            let row = |position: usize| first + (position - seq.num_cached_tokens) as u32;
            self.rows.extend(seq.pooled_rows().map(row));
            first += seq.num_scheduled_tokens as u32;
        }
    }

    /// Begins the list of how tokens are chosen.
    pub(crate) fn begin_sample<'a>(&mut self) -> Vec<SampleRow<'a>> {
        self.rows.clear();
        std::mem::take(&mut self.spare)
    }

    /// Has a sequence with these rows tell of its prompt what was asked, and choose a token after the last of them if it samples.
    pub(crate) fn choose<'a>(
        &mut self,
        seq: &'a Sequence,
        rows: Range<u32>,
        samples: bool,
        sample_rows: &mut Vec<SampleRow<'a>>,
    ) {
        for position in seq.prompt_rows() {
            self.rows.push(rows.start + (position - seq.num_cached_tokens) as u32);
            let given = Some(seq.token_ids()[position + 1]);
            sample_rows.push(SampleRow { given, logprobs: seq.params.prompt_logprobs, ..SampleRow::greedy() });
        }
        if samples {
            self.rows.push(rows.end - 1);
            sample_rows.push(sample_row(seq));
        }
    }

    /// Takes the room of a list back, so that the next step need not allocate it.
    pub(crate) fn keep_room(&mut self, mut sample_rows: Vec<SampleRow<'_>>) {
        sample_rows.clear();
        // There is nothing to convert, and the standard library collects in place.
        self.spare = sample_rows.into_iter().map(|_| SampleRow::greedy()).collect();
    }

    /// Empties the batch, so that a step can be laid out.
    pub(crate) fn clear(&mut self) {
        let input = &mut self.input;
        input.table_stride = 0;
        input.input_ids.clear();
        input.positions.clear();
        input.cu_seqlens_q.clear();
        input.cu_seqlens_q.push(0);
        input.context_lens.clear();
        input.slot_mapping.clear();
        input.block_tables.clear();
    }
}

fn sample_row(seq: &Sequence) -> SampleRow<'_> {
    let drawn = SampleRow::drawn(seq.params.temperature as f32, seq.noise_key, seq.num_tokens() as u64);
    let row = SampleRow { truncation: truncation(&seq.params), logprobs: seq.params.logprobs, ..drawn };
    seq.processors.as_ref().map_or(row, |processors| processors.apply(&seq.params, row))
}
