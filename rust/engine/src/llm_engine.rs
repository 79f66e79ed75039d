//! The engine: takes requests, computes them step by step, and says what each step gave them.

use crate::config::EngineConfig;
use crate::errors::EngineError;
use crate::limits::RequestLimits;
use crate::model_runner::ModelRunner;
use crate::pooling::{Pooler, Pooling};
use crate::sampling_params::SamplingParams;
use crate::scheduler::{Schedule, Scheduler};
use crate::sequence::{FinishReason, Sequence};
use nanovllm_backend::{Memory, Sampled, TokenLogprobs};
use nanovllm_model::{CausalLm, StepError};
use std::time::Instant;

/// A request.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRequest {
    /// The caller's name for it; no sequence in the engine may have the same.
    pub seq_id: u64,
    /// The prompt.
    pub token_ids: Vec<u32>,
    /// How it samples.
    pub params: SamplingParams,
    /// The request queued just before it that has the same prompt: it is computed once and its blocks are shared, as far as both are
    /// admitted in the same step. No result depends on it.
    pub twin_of: Option<u64>,
    /// How its prompt is embedded; nothing is then sampled.
    pub pooling: Option<Pooling>,
    /// The lower, the sooner it is computed; of equal ones the first to come.
    pub priority: i64,
}

impl NewRequest {
    /// A request for one answer.
    pub fn new(seq_id: u64, token_ids: Vec<u32>, params: SamplingParams) -> Self {
        Self { seq_id, token_ids, params, twin_of: None, pooling: None, priority: 0 }
    }
}

/// A request's result.
#[derive(Debug, Clone, PartialEq)]
pub struct FinishedOutput {
    /// The id that [`LlmEngine::add_request`] gave the request.
    pub seq_id: u64,
    /// The generated tokens, an end-of-sequence token included.
    pub token_ids: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Tokens in the prompt.
    pub num_prompt_tokens: usize,
    /// Prompt tokens that the prefix cache spared; all of them where another sequence's prompt was shared.
    pub num_cached_tokens: usize,
    /// The token that ended it, if its request named that.
    pub stop_token: Option<u32>,
    /// How likely each token of the answer was, where that was asked for.
    pub logprobs: Vec<TokenLogprobs>,
    /// The same of each token of the prompt from the second on.
    pub prompt_logprobs: Vec<TokenLogprobs>,
    /// The prompt's embedding, where that was asked for, unless a part of it was computed by hand.
    pub embedding: Option<Vec<f32>>,
}

/// What one step gave one request.
#[derive(Debug, Clone, PartialEq)]
pub struct StepEvent {
    /// The request.
    pub seq_id: u64,
    /// The tokens chosen for it in this step, in order; none for one that the pool ended.
    pub token_ids: Vec<u32>,
    /// Its result, once it has ended.
    pub finished: Option<FinishedOutput>,
}

/// What one step did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepOutput {
    /// An event for each request that got a token or ended: those the pool ended first, then in the step's order.
    pub events: Vec<StepEvent>,
    /// Rows prefilled if there were any, else decoded tokens counted negative; 0 when nothing was computed.
    pub num_tokens: i64,
}

impl StepOutput {
    /// The requests that have finished, in the step's order.
    pub fn finished(self) -> impl Iterator<Item = FinishedOutput> {
        self.events.into_iter().filter_map(|event| event.finished)
    }
}

/// Counters since the engine was made, and the state of the pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Rows computed by prefill steps.
    pub prefilled_tokens: u64,
    /// Rows that the prefix cache spared, or a prompt in common; those of sequences that were preempted included.
    pub cached_tokens: u64,
    /// Tokens chosen, by prefill and decode steps.
    pub generated_tokens: u64,
    /// Steps that computed something.
    pub steps: u64,
    /// Requests accepted.
    pub requests: u64,
    /// Times a sequence gave up its blocks to another.
    pub preemptions: u64,
    /// Sequences waiting now.
    pub num_waiting: usize,
    /// Sequences running now.
    pub num_running: usize,
    /// KV cache blocks free now.
    pub free_blocks: usize,
    /// KV cache blocks in all.
    pub total_blocks: usize,
}

/// Scheduler and model runner, driven step by step.
pub struct LlmEngine {
    config: EngineConfig,
    pub(crate) scheduler: Scheduler,
    pub(crate) model_runner: ModelRunner,
    next_seq_id: u64,
    stats: EngineStats,
    /// The tokens of a step; kept so that steps need not allocate it.
    token_ids: Vec<u32>,
}

impl LlmEngine {
    /// An engine over a loaded model, with a KV pool sized by the memory that its device has left unless the configuration
    /// says. `max_model_len` is lowered to what the model was loaded for.
    ///
    /// # Errors
    /// The errors of [`ModelRunner::new`] and [`Scheduler::new`].
    pub fn new(
        model: Box<dyn CausalLm>,
        mut config: EngineConfig,
        memory: Option<Memory>,
    ) -> Result<Self, EngineError> {
        let model_runner = ModelRunner::new(model, &config, memory)?;
        config.max_model_len = model_runner.max_model_len();
        let scheduler = Scheduler::new(&config, model_runner.kv_cache_spec().num_blocks)?;
        Ok(Self {
            config,
            scheduler,
            model_runner,
            next_seq_id: 0,
            stats: EngineStats::default(),
            token_ids: Vec::new(),
        })
    }

    /// Queues a request under the next id of the engine's own counter.
    ///
    /// # Errors
    /// The same as [`add_request_with_id`](Self::add_request_with_id)'s.
    pub fn add_request(&mut self, token_ids: Vec<u32>, params: SamplingParams) -> Result<u64, EngineError> {
        let seq_id = self.next_seq_id;
        self.add_request_with_id(seq_id, token_ids, params)?;
        Ok(seq_id)
    }

    /// Queues a request under an id of the caller's; the engine's counter goes on above it.
    ///
    /// The random stream of a request with a seed depends on that seed alone, so the same seed and prompt give the same text
    /// whatever else runs; one without takes the engine's seed and the number of requests accepted before it.
    ///
    /// # Errors
    /// Those of [`RequestLimits::check`]; [`EngineError::DuplicateSeqId`] for an id that a sequence in the engine has.
    pub fn add_request_with_id(
        &mut self,
        seq_id: u64,
        token_ids: Vec<u32>,
        params: SamplingParams,
    ) -> Result<(), EngineError> {
        self.add(NewRequest::new(seq_id, token_ids, params))
    }

    /// Queues a request.
    ///
    /// # Errors
    /// The same as [`add_request_with_id`](Self::add_request_with_id)'s.
    pub fn add(&mut self, request: NewRequest) -> Result<(), EngineError> {
        let NewRequest { seq_id, token_ids, params, twin_of, pooling, priority } = request;
        let mut seq = Sequence::new(seq_id, token_ids, params, self.config.kvcache_block_size)?;
        self.limits().check_request(seq.token_ids(), &seq.params, pooling)?;
        seq.twin_of = twin_of;
        seq.priority = priority;
        seq.pooler = pooling.map(|pooling| Box::new(Pooler::new(pooling)));
        self.enqueue(seq)
    }

    /// Queues a sequence that keeps within the limits, and gives it its random stream.
    pub(crate) fn enqueue(&mut self, mut seq: Sequence) -> Result<(), EngineError> {
        let seq_id = seq.seq_id;
        seq.noise_key = seq.params.noise_key(self.config.seed, self.stats.requests);
        self.scheduler.enqueue(seq)?;
        self.stats.requests += 1;
        self.next_seq_id = self.next_seq_id.max(seq_id.wrapping_add(1));
        Ok(())
    }

    /// The limits that a request must keep within.
    pub fn limits(&self) -> RequestLimits {
        let block_manager = self.scheduler.block_manager();
        RequestLimits {
            vocab_size: self.model_runner.model().vocab_size(),
            max_model_len: self.config.max_model_len,
            num_blocks: block_manager.num_blocks(),
            block_size: block_manager.block_size(),
        }
    }

    /// Decides and computes one step, and takes its results in. On an idle engine it does nothing and returns an empty
    /// output.
    ///
    /// `interrupted` is asked between slices of the step.
    ///
    /// # Errors
    /// [`EngineError::Step`], [`EngineError::TokenCount`], [`EngineError::BadToken`]. The step has then been rolled back:
    /// the same requests are queued, and the next call tries again.
    pub fn step(&mut self, interrupted: &mut dyn FnMut() -> bool) -> Result<StepOutput, EngineError> {
        self.step_with(interrupted, &mut drop)
    }

    /// As [`step`](Self::step), and hands over the sequences that finished.
    ///
    /// # Errors
    /// The same as [`step`](Self::step)'s.
    pub fn step_with(
        &mut self,
        interrupted: &mut dyn FnMut() -> bool,
        finished: &mut dyn FnMut(Sequence),
    ) -> Result<StepOutput, EngineError> {
        let schedule = self.scheduler.schedule_sharing();
        // Sequences that the pool has just ended get no token from this step.
        let mut events: Vec<StepEvent> = Vec::new();
        if schedule.num_seqs > 0 {
            let sampled = match self.compute(schedule, interrupted) {
                Ok(sampled) => sampled,
                Err(error) => {
                    self.scheduler.rollback();
                    return Err(error);
                }
            };
            let token_ids = &mut self.token_ids;
            token_ids.clear();
            self.scheduler.take_sampled(sampled, token_ids);
            let sampling = self.scheduler.scheduled().filter(|seq| seq.samples()).zip(&*token_ids);
            events.reserve_exact(token_ids.len());
            events.extend(sampling.map(|(seq, &token_id)| StepEvent {
                seq_id: seq.seq_id,
                token_ids: vec![token_id],
                finished: None,
            }));
            self.scheduler.postprocess(token_ids)?;
            self.stats.steps += 1;
            self.stats.generated_tokens += token_ids.len() as u64;
            self.stats.cached_tokens += schedule.num_cached_tokens as u64;
            self.stats.prefilled_tokens += schedule.num_prefill_tokens as u64;
        }
        let num_tokens =
            if schedule.is_prefill { schedule.num_prefill_tokens as i64 } else { -(schedule.num_tokens as i64) };
        let (mut ended, mut next) = (Vec::new(), 0);
        for mut seq in self.scheduler.take_finished() {
            let output = FinishedOutput::of(&mut seq);
            // Events and finished sequences are both in the step's order.
            match events[next..].iter().position(|event| event.seq_id == output.seq_id) {
                Some(at) => {
                    next += at + 1;
                    events[next - 1].finished = Some(output);
                }
                None => ended.push(StepEvent { seq_id: output.seq_id, token_ids: Vec::new(), finished: Some(output) }),
            }
            finished(seq);
        }
        if !ended.is_empty() {
            ended.append(&mut events);
            events = ended;
        }
        Ok(StepOutput { events, num_tokens })
    }

    fn compute(
        &mut self,
        schedule: Schedule,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<Sampled>, EngineError> {
        let start = Instant::now();
        self.copy_blocks()?;
        let sampled = if self.scheduler.pools() {
            self.embed(interrupted)?;
            Vec::new()
        } else {
            self.model_runner.run(self.scheduler.scheduled(), schedule, interrupted)?
        };
        let num_decoded = schedule.num_tokens - schedule.num_prefill_tokens;
        self.scheduler.pace.observe(num_decoded, schedule.num_prefill_tokens, start.elapsed());
        Ok(sampled)
    }

    /// Computes a step in which sequences are embedded.
    fn embed(&mut self, interrupted: &mut dyn FnMut() -> bool) -> Result<(), EngineError> {
        self.model_runner.prepare_pooling(self.scheduler.scheduled());
        let mut poolers = self.scheduler.take_poolers();
        let before = poolers.clone();
        let mut at = 0;
        let mut take = |row: &[f32]| {
            while poolers[at].1.is_empty() {
                at += 1;
            }
            let (pooler, rows) = &mut poolers[at];
            pooler.take(rows.start, row);
            rows.start += 1;
        };
        let result = self.model_runner.run_pooling(&mut take, interrupted);
        // A device may have handed out anything before its failure was known.
        self.scheduler.return_poolers(if result.is_ok() { poolers } else { before });
        result
    }

    /// Has the blocks of the step under way hold what they are to hold before it is computed.
    pub(crate) fn copy_blocks(&mut self) -> Result<(), EngineError> {
        let copies = self.scheduler.copies();
        if !copies.is_empty() {
            self.model_runner.model.copy_blocks(copies).map_err(StepError::from)?;
            self.scheduler.copied();
        }
        Ok(())
    }

    /// Whether every request has finished and its output has been returned.
    pub fn is_finished(&self) -> bool {
        self.scheduler.is_finished() && self.scheduler.num_finished() == 0
    }

    /// Drops a request; `None` if the id is unknown or its output has been returned.
    pub fn abort(&mut self, seq_id: u64) -> Option<Sequence> {
        self.scheduler.abort(seq_id)
    }

    /// Counters and the state of the pool.
    pub fn stats(&self) -> EngineStats {
        let block_manager = self.scheduler.block_manager();
        EngineStats {
            preemptions: self.scheduler.num_preemptions(),
            num_waiting: self.scheduler.waiting().len(),
            num_running: self.scheduler.running().len(),
            free_blocks: block_manager.num_free_blocks(),
            total_blocks: block_manager.num_blocks(),
            ..self.stats
        }
    }

    /// The configuration, as given but for `max_model_len`.
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// The queues and the pool's books.
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// The model with its KV cache.
    pub fn model_runner(&self) -> &ModelRunner {
        &self.model_runner
    }
}

impl FinishedOutput {
    /// The result of a sequence that has ended, or of one that is ended here; what was asked of its tokens is taken out of it.
    pub fn of(seq: &mut Sequence) -> Self {
        Self {
            seq_id: seq.seq_id,
            token_ids: seq.completion_token_ids().to_vec(),
            finish_reason: seq.finish_reason.unwrap_or(FinishReason::Length),
            stop_token: seq.stop_token,
            num_prompt_tokens: seq.num_prompt_tokens(),
            num_cached_tokens: seq.prefix_cache_hit.unwrap_or(0),
            logprobs: std::mem::take(&mut seq.logprobs),
            prompt_logprobs: std::mem::take(&mut seq.prompt_logprobs),
            embedding: seq.pooler.take().and_then(|pooler| pooler.finish(seq.num_tokens())),
        }
    }

    /// The same ended by its text, without the last `dropped` tokens.
    #[must_use]
    pub fn stopped(mut self, dropped: usize) -> Self {
        let kept = self.token_ids.len().saturating_sub(dropped);
        self.token_ids.truncate(kept);
        self.logprobs.truncate(kept);
        Self { finish_reason: FinishReason::Stop, stop_token: None, ..self }
    }
}
