//! A model without arithmetic: it stores token ids in a paged cache and answers with a hash of what it reads back.

#![allow(clippy::unwrap_used)] // tests
#![allow(dead_code)] // each test file uses its own part
#![allow(unreachable_pub)] // a test file is a crate, this is not its interface

use nanovllm_backend::{BlockCopy, DType, Error, KvCacheSpec, KvHeads, LayerCache, SampleRow, Sampled};
use nanovllm_model::{CausalLm, ModelInput, StepError};
use std::sync::{Arc, Mutex};

pub const VOCAB_SIZE: usize = 50;
pub const HIDDEN_SIZE: usize = 3;

/// What a test sees and steers from outside the engine.
#[derive(Debug, Default)]
pub struct Probe {
    /// Every row of sampling instructions so far.
    pub sampled: Vec<SampleRow<'static>>,
    /// Rows computed so far.
    pub rows: usize,
    /// Blocks copied so far.
    pub copies: usize,
    /// The next step fails as a device would.
    pub fail: bool,
    /// The next copy of blocks fails half way.
    pub fail_copy: bool,
    /// The next step returns these instead.
    pub answer: Option<Vec<u32>>,
}

/// The cache holds one token id a slot; a next token depends on all ids found through the block table, so a wrong table,
/// slot or length changes the text.
pub struct MockModel {
    cache: Vec<u32>,
    block_size: usize,
    probe: Arc<Mutex<Probe>>,
}

impl MockModel {
    pub fn new() -> (Box<Self>, Arc<Mutex<Probe>>) {
        let probe = Arc::new(Mutex::new(Probe::default()));
        (Box::new(Self { cache: Vec::new(), block_size: 0, probe: probe.clone() }), probe)
    }

    fn read(&self, input: &ModelInput, s: usize, len: usize) -> Vec<u32> {
        let table = &input.block_tables[s * input.table_stride..(s + 1) * input.table_stride];
        let slot =
            |i: usize| usize::try_from(table[i / self.block_size]).unwrap() * self.block_size + i % self.block_size;
        (0..len).map(|i| self.cache[slot(i)]).collect()
    }

    /// The token after a row of the batch.
    fn next(&self, input: &ModelInput, row: u32) -> u32 {
        let s = input.cu_seqlens_q.partition_point(|&offset| offset <= row) - 1;
        next_token(&self.read(input, s, input.positions[row as usize] as usize + 1))
    }
}

/// The token that follows `tokens`; the oracle of every engine test.
pub fn next_token(tokens: &[u32]) -> u32 {
    let hash = tokens.iter().fold(0xcbf29ce484222325_u64, |h, &t| (h ^ u64::from(t)).wrapping_mul(0x100000001b3));
    ((hash >> 32) % VOCAB_SIZE as u64) as u32
}

/// Logits in which `next` is the likeliest, and the others are less likely the further they are behind it, around the vocabulary.
pub fn logits(next: u32) -> Vec<f32> {
    let size = VOCAB_SIZE as u32;
    (0..size).map(|token| -0.25 * ((token + size - next) % size) as f32).collect()
}

/// The mock's hidden state after tokens that `next` would follow.
pub fn hidden_state(next: u32) -> [f32; HIDDEN_SIZE] {
    [next as f32, 1.0 / (1.0 + next as f32), -0.1 * next as f32]
}

/// What a device does with these logits, but for the draw.
fn choose(next: u32, how: &SampleRow<'_>) -> Sampled {
    SampleRow { temperature: 0.0, ..*how }.choose(&mut logits(next))
}

impl CausalLm for MockModel {
    fn vocab_size(&self) -> usize {
        VOCAB_SIZE
    }

    fn hidden_size(&self) -> usize {
        HIDDEN_SIZE
    }

    fn max_model_len(&self) -> usize {
        usize::MAX
    }

    fn describe(&self) -> String {
        "mock".to_owned()
    }

    fn kv_cache_spec(&self, num_blocks: usize, block_size: usize, dtype: Option<DType>) -> KvCacheSpec {
        let dtype = dtype.unwrap_or(DType::F32);
        let layers = vec![LayerCache::Full(KvHeads { num_kv_heads: 1, head_dim: 2 })];
        KvCacheSpec { num_blocks, block_size, dtype, layers }
    }

    fn allocate_kv_cache(&mut self, spec: &KvCacheSpec) -> Result<(), Error> {
        let slots = spec.num_blocks * spec.block_size;
        if slots > 1 << 20 {
            let (bytes, reason) = (slots, "the mock is small".to_owned());
            return Err(Error::OutOfMemory { what: "the KV cache", bytes, reason });
        }
        self.cache = vec![u32::MAX; slots];
        self.block_size = spec.block_size;
        Ok(())
    }

    fn copy_blocks(&mut self, copies: &[BlockCopy]) -> Result<(), Error> {
        let mut probe = self.probe.lock().unwrap();
        for (done, &BlockCopy { from, to, num_tokens }) in copies.iter().enumerate() {
            if probe.fail_copy && done * 2 >= copies.len() {
                probe.fail_copy = false;
                return Err(Error::Option("the device fell over".to_owned()));
            }
            let at = |block: u32| block as usize * self.block_size;
            self.cache[at(to)..at(to) + self.block_size].fill(u32::MAX);
            self.cache.copy_within(at(from)..at(from) + num_tokens as usize, at(to));
            probe.copies += 1;
        }
        Ok(())
    }

    fn step(
        &mut self,
        input: &ModelInput,
        wanted: &[u32],
        plan: &[SampleRow<'_>],
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<Sampled>, StepError> {
        let rows = input.num_rows();
        assert!(wanted.is_sorted() && wanted.last().is_none_or(|&row| (row as usize) < rows));
        assert_eq!((input.positions.len(), input.slot_mapping.len()), (rows, rows));
        assert_eq!(input.cu_seqlens_q.last().copied(), Some(rows as u32));
        assert_eq!((plan.len(), input.cu_seqlens_q.len()), (wanted.len(), input.num_seqs() + 1));
        let mut probe = self.probe.lock().unwrap();
        let (stop, fail) = (interrupted(), std::mem::take(&mut probe.fail));
        for (row, &slot) in input.slot_mapping.iter().enumerate() {
            // After a failure the rows of the step are undefined.
            let value = if stop || fail { u32::MAX - row as u32 } else { input.input_ids[row] };
            self.cache[usize::try_from(slot).unwrap()] = value;
        }
        if stop {
            return Err(StepError::Interrupted);
        }
        if fail {
            return Err(Error::Option("the device fell over".to_owned()).into());
        }
        if let Some(answer) = probe.answer.take() {
            return Ok(answer.into_iter().map(Sampled::from).collect());
        }
        probe.rows += rows;
        probe.sampled.extend(plan.iter().map(|row| SampleRow::drawn(row.temperature, row.key, row.position)));
        Ok(wanted.iter().zip(plan).map(|(&row, how)| choose(self.next(input, row), how)).collect())
    }

    fn hidden_states(
        &mut self,
        input: &ModelInput,
        wanted: &[u32],
        take: &mut dyn FnMut(&[f32]),
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<(), StepError> {
        // The token that would be chosen, as a hidden state.
        let plan = vec![SampleRow::greedy(); wanted.len()];
        let sampled = self.step(input, wanted, &plan, interrupted)?;
        for sampled in sampled {
            take(&hidden_state(sampled.token));
        }
        Ok(())
    }

    fn logits(
        &mut self,
        input: &ModelInput,
        wanted: &[u32],
        out: &mut Vec<f32>,
        _: &mut dyn FnMut() -> bool,
    ) -> Result<(), StepError> {
        for (&slot, &id) in input.slot_mapping.iter().zip(&input.input_ids) {
            self.cache[usize::try_from(slot).unwrap()] = id;
        }
        for &row in wanted {
            let mut logits = [0.0; VOCAB_SIZE];
            logits[self.next(input, row) as usize] = 1.0;
            out.extend(logits);
        }
        Ok(())
    }
}
