//! Steps that a program has put together.

use crate::check_input::check_input;
use crate::errors::EngineError;
use crate::model_runner::ModelRunner;
use crate::prepare::StepInputs;
use crate::sequence::Sequence;
use nanovllm_model::{CausalLm, ModelInput};

impl ModelRunner {
    /// Computes a step of these sequences and returns a token for each, as nano-vLLM's `run` does. That of one whose prompt
    /// is not finished means nothing.
    ///
    /// # Errors
    /// Those of [`StepInputs::prepare_checked`] and of [`check_input`](Self::check_input);
    /// [`EngineError::BlockSizeMismatch`]; those of the step itself, as
    /// [`LlmEngine::step`](crate::LlmEngine::step) has them.
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
        self.check_prepared()?;
        let sample_rows = self.inputs.prepare_sample_all(seqs.iter());
        let sampled = self.compute(sample_rows, interrupted)?;
        // What was asked of prompts comes before the token of each.
        let mut sampled = sampled.into_iter();
        let last = |seq: &Sequence| seq.prompt_rows().len();
        Ok(seqs.iter().filter_map(|seq| sampled.nth(last(seq))).map(|sampled| sampled.token).collect())
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
    pub fn check_input(&mut self, input: &ModelInput) -> Result<(), EngineError> {
        let limits = self.input_limits();
        check_input(input, &limits, &mut self.slots)
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
