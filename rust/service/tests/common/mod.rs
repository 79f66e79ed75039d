//! The engine's model without arithmetic, and the trouble it can make.

#![allow(unreachable_pub)] // a test file is a crate, this is not its interface

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nanovllm_backend::{BlockCopy, DType, Error, KvCacheSpec, SampleRow, Sampled};
use nanovllm_model::{CausalLm, ModelInput, StepError};

#[path = "../../../engine/tests/common/mod.rs"]
mod mock;

pub use mock::next_token;

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

/// The engine's mock, but for the steps that go wrong.
pub struct MockModel {
    mock: Box<mock::MockModel>,
    trouble: Arc<Trouble>,
}

impl MockModel {
    pub fn new(trouble: Arc<Trouble>) -> Self {
        let (mock, _) = mock::MockModel::new();
        Self { mock, trouble }
    }
}

impl CausalLm for MockModel {
    fn vocab_size(&self) -> usize {
        self.mock.vocab_size()
    }

    fn hidden_size(&self) -> usize {
        self.mock.hidden_size()
    }

    fn max_model_len(&self) -> usize {
        self.mock.max_model_len()
    }

    fn describe(&self) -> String {
        self.mock.describe()
    }

    fn kv_cache_spec(&self, num_blocks: usize, block_size: usize, dtype: Option<DType>) -> KvCacheSpec {
        self.mock.kv_cache_spec(num_blocks, block_size, dtype)
    }

    fn allocate_kv_cache(&mut self, spec: &KvCacheSpec) -> Result<(), Error> {
        self.mock.allocate_kv_cache(spec)
    }

    fn copy_blocks(&mut self, copies: &[BlockCopy]) -> Result<(), Error> {
        self.mock.copy_blocks(copies)
    }

    fn step(
        &mut self,
        input: &ModelInput,
        rows: &[u32],
        plan: &[SampleRow<'_>],
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<Sampled>, StepError> {
        let step = self.trouble.steps.fetch_add(1, Ordering::SeqCst) + 1;
        if step == self.trouble.fail_at.load(Ordering::SeqCst) {
            return Err(Error::Option("the device fell over".to_owned()).into());
        }
        if step == self.trouble.panic_at.load(Ordering::SeqCst) {
            // Without the hook's words on standard error.
            std::panic::resume_unwind(Box::new("on purpose"));
        }
        self.mock.step(input, rows, plan, interrupted)
    }

    fn hidden_states(
        &mut self,
        input: &ModelInput,
        rows: &[u32],
        take: &mut dyn FnMut(&[f32]),
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<(), StepError> {
        self.mock.hidden_states(input, rows, take, interrupted)
    }

    fn logits(
        &mut self,
        input: &ModelInput,
        rows: &[u32],
        out: &mut Vec<f32>,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<(), StepError> {
        self.mock.logits(input, rows, out, interrupted)
    }
}
