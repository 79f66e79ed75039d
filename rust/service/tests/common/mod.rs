//! A model without arithmetic, and the trouble it can make.

#![allow(clippy::unwrap_used)] // tests
#![allow(unreachable_pub)] // a test file is a crate, this is not its interface

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nanovllm_backend::{DType, Error, KvCacheSpec, KvHeads, LayerCache, SampleRow};
use nanovllm_model::{CausalLm, ModelInput, StepError};

pub const VOCAB_SIZE: usize = 50;

/// What a test sees and steers from outside the engine. Steps count from 1.
#[derive(Debug, Default)]
pub struct Trouble {
    steps: AtomicUsize,
    fail_at: AtomicUsize,
    panic_at: AtomicUsize,
}

impl Trouble {
    pub fn steps(&self) -> usize {
        self.steps.load(Ordering::SeqCst)
    }

    pub fn fail_at(&self, step: usize) {
        self.fail_at.store(step, Ordering::SeqCst);
    }

    pub fn panic_at(&self, step: usize) {
        self.panic_at.store(step, Ordering::SeqCst);
    }
}

/// The token that follows `tokens`; the oracle of every test.
pub fn next_token(tokens: &[u32]) -> u32 {
    let hash = tokens.iter().fold(0xcbf29ce484222325_u64, |h, &t| (h ^ u64::from(t)).wrapping_mul(0x100000001b3));
    ((hash >> 32) % VOCAB_SIZE as u64) as u32
}

/// The cache holds one token id a slot; a next token depends on all ids found through the block table.
pub struct MockModel {
    cache: Vec<u32>,
    block_size: usize,
    trouble: Arc<Trouble>,
}

impl MockModel {
    pub fn new(trouble: Arc<Trouble>) -> Self {
        Self { cache: Vec::new(), block_size: 0, trouble }
    }
}

impl CausalLm for MockModel {
    fn vocab_size(&self) -> usize {
        VOCAB_SIZE
    }

    fn max_model_len(&self) -> usize {
        usize::MAX
    }

    fn describe(&self) -> String {
        "mock".to_owned()
    }

    fn kv_cache_spec(&self, num_blocks: usize, block_size: usize, dtype: Option<DType>) -> KvCacheSpec {
        let layers = vec![LayerCache::Full(KvHeads { num_kv_heads: 1, head_dim: 2 })];
        KvCacheSpec { num_blocks, block_size, dtype: dtype.unwrap_or(DType::F32), layers }
    }

    fn allocate_kv_cache(&mut self, spec: &KvCacheSpec) -> Result<(), Error> {
        self.cache = vec![u32::MAX; spec.num_blocks * spec.block_size];
        self.block_size = spec.block_size;
        Ok(())
    }

    fn step(
        &mut self,
        input: &ModelInput,
        rows: &[u32],
        _: &[SampleRow<'_>],
        _: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<u32>, StepError> {
        let step = self.trouble.steps.fetch_add(1, Ordering::SeqCst) + 1;
        if step == self.trouble.fail_at.load(Ordering::SeqCst) {
            return Err(Error::Option("the device fell over".to_owned()).into());
        }
        if step == self.trouble.panic_at.load(Ordering::SeqCst) {
            // Without the hook's words on standard error.
            std::panic::resume_unwind(Box::new("on purpose"));
        }
        for (row, &slot) in input.slot_mapping.iter().enumerate() {
            self.cache[usize::try_from(slot).unwrap()] = input.input_ids[row];
        }
        let next = |row: u32| {
            let s = input.cu_seqlens_q.partition_point(|&offset| offset <= row) - 1;
            let table = &input.block_tables[s * input.table_stride..(s + 1) * input.table_stride];
            let slot = |i: usize| table[i / self.block_size] as usize * self.block_size + i % self.block_size;
            let tokens: Vec<u32> = (0..=input.positions[row as usize] as usize).map(|i| self.cache[slot(i)]).collect();
            next_token(&tokens)
        };
        Ok(rows.iter().map(|&row| next(row)).collect())
    }

    fn logits(
        &mut self,
        _: &ModelInput,
        _: &[u32],
        _: &mut Vec<f32>,
        _: &mut dyn FnMut() -> bool,
    ) -> Result<(), StepError> {
        Ok(())
    }
}
