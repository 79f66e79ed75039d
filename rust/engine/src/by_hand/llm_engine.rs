//! The engine's parts for a program that steps by hand, and sequences that it has made.

use crate::errors::EngineError;
use crate::llm_engine::LlmEngine;
use crate::model_runner::ModelRunner;
use crate::scheduler::Scheduler;
use crate::sequence::Sequence;

impl LlmEngine {
    /// Queues a sequence that a program has made, as [`add_request_with_id`](Self::add_request_with_id) queues a request.
    ///
    /// # Errors
    /// The same as [`check_sequence`](Self::check_sequence)'s.
    pub fn add_sequence(&mut self, seq: Sequence) -> Result<(), EngineError> {
        self.check_sequence(&seq)?;
        self.enqueue(seq.into_new())
    }

    /// Checks whether [`add_sequence`](Self::add_sequence) would take the sequence.
    ///
    /// # Errors
    /// Those of [`RequestLimits::check`](crate::RequestLimits::check) and of [`Scheduler::check_add`].
    pub fn check_sequence(&self, seq: &Sequence) -> Result<(), EngineError> {
        self.limits().check(seq.token_ids(), &seq.params)?;
        self.scheduler.check_add(seq)
    }

    /// The scheduler. What finishes in a step taken by hand is in [`Scheduler::take_finished`].
    pub fn scheduler_mut(&mut self) -> &mut Scheduler {
        &mut self.scheduler
    }

    /// The model runner, once the blocks of the step under way hold what they are to hold before it is computed.
    ///
    /// # Errors
    /// [`EngineError::Step`] when the device failed.
    pub fn model_runner_mut(&mut self) -> Result<&mut ModelRunner, EngineError> {
        self.copy_blocks()?;
        Ok(&mut self.model_runner)
    }
}
