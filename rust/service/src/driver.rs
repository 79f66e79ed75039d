//! The driver: the engine, with what carries requests to it and events from it.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nanovllm_engine::{FinishedOutput, LlmEngine, NewRequest, Sequence, StepEvent, StepOutput, TokenLogprobs};
use nanovllm_model::SLICE_ROWS;
use nanovllm_tokenizer::Tokenizer;

use crate::error::ServiceError;
use crate::exclusive::text_of;
use crate::metrics::Metrics;
use crate::post::{Added, PostOffice};
use crate::request::{Event, Request, Timing, Watch};
use crate::text::Texts;

/// What one step by a driver did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pumped {
    /// Rows prefilled, or decoded tokens counted negative; 0 when nothing was computed.
    pub num_tokens: i64,
    /// How long the step took.
    pub time: Duration,
}

/// Is given the sequences that end in the engine.
pub type Sink = Box<dyn FnMut(Sequence) + Send>;

/// When a request was handed in, and when it got its first token and its last one so far.
struct Clock {
    arrival: Instant,
    tokens: Option<(Instant, Instant)>,
}

/// An engine, driven by whoever has its turn.
pub struct Driver {
    engine: LlmEngine,
    /// Is given every sequence that ends or is dropped.
    sink: Sink,
    post: PostOffice,
    texts: Texts,
    /// Requests whose every token is watched.
    watched: HashSet<u64>,
    clocks: HashMap<u64, Clock>,
    metrics: Metrics,
    /// Whether somebody has had the engine by hand since it was last looked after.
    is_touched: bool,
}

impl Driver {
    pub(crate) fn new(engine: LlmEngine, post: PostOffice, tokenizer: Option<Arc<Tokenizer>>) -> Self {
        let driver = Self {
            engine,
            sink: Box::new(drop),
            post,
            texts: Texts::new(tokenizer),
            watched: HashSet::new(),
            clocks: HashMap::new(),
            metrics: Metrics::default(),
            is_touched: false,
        };
        driver.post.lock().metrics = driver.metrics();
        driver
    }

    /// What watchers see now.
    fn metrics(&self) -> Metrics {
        Metrics { engine: self.engine.stats(), ..self.metrics }
    }

    /// From now on sequences that end or are dropped are handed to `sink`, but for those that somebody ends by hand.
    pub fn set_sink(&mut self, sink: Sink) {
        self.sink = sink;
    }

    /// The engine, with everything that callers have handed in, for whoever steps it by hand. Such steps post no events.
    pub fn engine(&mut self) -> &mut LlmEngine {
        self.settle();
        self.engine_as_it_is()
    }

    /// The engine, without what callers have handed in since [`engine`](Self::engine) was called in the same turn.
    pub fn engine_as_it_is(&mut self) -> &mut LlmEngine {
        // Whatever is done to it by hand, whoever drives next has to look whether there is work.
        self.is_touched = true;
        self.post.lock().note_work();
        &mut self.engine
    }

    /// Drops a sequence that the engine has already, whoever added it; false where there is none of that id.
    pub(crate) fn abort(&mut self, seq_id: u64) -> bool {
        match self.engine.abort(seq_id) {
            Some(seq) => {
                (self.sink)(seq);
                true
            }
            None => false,
        }
    }

    /// Gives up the engine, with the last aborts carried out.
    pub(crate) fn into_engine(mut self) -> LlmEngine {
        self.settle();
        self.engine
    }

    /// Hands the inbox to the engine, aborts first; returns the requests that the engine refused, whose owners are told.
    pub(crate) fn settle(&mut self) -> Vec<u64> {
        let mut refused = Vec::new();
        if std::mem::take(&mut self.is_touched) {
            let scheduler = self.engine.scheduler();
            let is_alive = |seq_id| scheduler.get(seq_id).is_some();
            self.post.lock().end_orphans(is_alive);
            self.texts.retain(is_alive);
            self.watched.retain(|&seq_id| is_alive(seq_id));
            self.clocks.retain(|&seq_id, _| is_alive(seq_id));
        }
        let (adds, aborts) = {
            let mut post = self.post.lock();
            if post.is_settled() {
                return refused;
            }
            post.note_work();
            (std::mem::take(&mut post.adds), std::mem::take(&mut post.aborts))
        };
        for seq_id in aborts {
            self.forget(seq_id);
            if let Some(seq) = self.engine.abort(seq_id) {
                self.metrics.endings.abort += 1;
                (self.sink)(seq);
            }
        }
        for Added { request, arrival } in adds {
            let Request { seq_id, token_ids, params, twin_of, pooling, priority, watch, text } = request;
            let min_tokens = params.min_tokens;
            match self.engine.add(NewRequest { seq_id, token_ids, params, twin_of, pooling, priority }) {
                Ok(()) => {
                    self.texts.begin(seq_id, text, watch == Watch::Text, min_tokens);
                    self.clocks.insert(seq_id, Clock { arrival, tokens: None });
                    if watch != Watch::Result {
                        self.watched.insert(seq_id);
                    }
                }
                // A sequence that somebody added by hand may have the id.
                Err(error) => {
                    refused.push(seq_id);
                    self.post.lock().refuse(seq_id, error.into());
                }
            }
        }
        self.post.lock().metrics = self.metrics();
        refused
    }

    /// Takes one step and posts its events. `interrupted` is asked between slices of the step.
    ///
    /// # Errors
    /// [`ServiceError::Engine`], after which the step has been rolled back; [`ServiceError::Panicked`], after which nothing
    /// works any more and every caller is told so.
    pub fn pump(&mut self, interrupted: &mut dyn FnMut() -> bool) -> Result<Pumped, ServiceError> {
        // Nothing looks again at what a panic leaves behind, so it is safe to unwind.
        catch_unwind(AssertUnwindSafe(|| self.step(interrupted))).unwrap_or_else(|panic| {
            let error = ServiceError::Panicked(text_of(&*panic));
            self.post.lock().fail_for_good(&error);
            Err(error)
        })
    }

    fn step(&mut self, interrupted: &mut dyn FnMut() -> bool) -> Result<Pumped, ServiceError> {
        self.settle();
        let start = Instant::now();
        let post = self.post.clone();
        let mut between_slices = || {
            post.lock().rows_under_way += SLICE_ROWS as u64;
            interrupted()
        };
        let result = self.engine.step_with(&mut between_slices, &mut self.sink);
        post.lock().rows_under_way = 0;
        let output = result?;
        let (time, num_tokens) = (start.elapsed(), output.num_tokens);
        self.deliver(output);
        Ok(Pumped { num_tokens, time })
    }

    /// Drops what was kept of a request.
    fn forget(&mut self, seq_id: u64) {
        self.texts.finish(seq_id);
        self.watched.remove(&seq_id);
        self.clocks.remove(&seq_id);
    }

    /// Posts a step's events, and whether anything is left to do.
    fn deliver(&mut self, output: StepOutput) {
        let mut mail = Vec::new();
        let mut generated = 0;
        let now = Instant::now();
        for StepEvent { seq_id, mut token_ids, mut finished } in output.events {
            generated += token_ids.len() as u64;
            self.note_tokens(seq_id, token_ids.len() as u64, now);
            let is_named = finished.as_ref().is_some_and(|output| output.stop_token.is_some());
            let added = self.texts.push(seq_id, &token_ids, is_named);
            let mut stop = None;
            if let Some((found, taken)) = added.stop {
                let dropped = token_ids.len() - taken;
                token_ids.truncate(taken);
                finished = finished.or_else(|| self.end(seq_id)).map(|output| output.stopped(dropped));
                stop = Some(found);
            }
            if self.watched.contains(&seq_id) && !token_ids.is_empty() {
                let logprobs = self.newest_logprobs(seq_id, token_ids.len(), finished.as_ref());
                mail.push(Event::Tokens { seq_id, token_ids, logprobs, text: added.text });
            }
            if let Some(mut output) = finished {
                let (text, found) = self.texts.finish(seq_id);
                if found.is_some() {
                    output = output.stopped(0);
                    stop = found;
                }
                let timing = self.timing(seq_id, now);
                self.metrics.endings.count(output.finish_reason);
                self.metrics.request_latency.observe(timing.total.as_secs_f64(), 1);
                self.watched.remove(&seq_id);
                mail.push(Event::Finished { output, text, stop, timing });
            }
        }
        let metrics = self.metrics();
        let mut post = self.post.lock();
        post.metrics = metrics;
        post.computed.prefilled += u64::try_from(output.num_tokens).unwrap_or(0);
        post.computed.generated += generated;
        for event in mail {
            post.post(event);
        }
        post.is_idle = self.engine.is_finished();
    }

    /// Ends a request that its engine would go on with; its result so far.
    fn end(&mut self, seq_id: u64) -> Option<FinishedOutput> {
        let mut seq = self.engine.abort(seq_id)?;
        let output = FinishedOutput::of(&mut seq);
        (self.sink)(seq);
        Some(output)
    }

    /// How likely each of a request's `count` newest tokens was; nothing unless that was asked for.
    fn newest_logprobs(&self, seq_id: u64, count: usize, finished: Option<&FinishedOutput>) -> Vec<TokenLogprobs> {
        let of_sequence = || self.engine.scheduler().get(seq_id).map_or(&[][..], |seq| &seq.logprobs);
        let all = finished.map_or_else(of_sequence, |output| &output.logprobs);
        all[all.len().saturating_sub(count)..].to_vec()
    }

    /// Notes when a request got tokens.
    fn note_tokens(&mut self, seq_id: u64, count: u64, now: Instant) {
        let Some(clock) = self.clocks.get_mut(&seq_id) else { return };
        match (&mut clock.tokens, count) {
            (_, 0) => {}
            (Some((_, last)), _) => {
                let latency = (now - *last).as_secs_f64() / count as f64;
                self.metrics.inter_token_latency.observe(latency, count);
                *last = now;
            }
            (tokens @ None, _) => {
                *tokens = Some((now, now));
                self.metrics.time_to_first_token.observe((now - clock.arrival).as_secs_f64(), 1);
            }
        }
    }

    fn timing(&mut self, seq_id: u64, now: Instant) -> Timing {
        let Some(Clock { arrival, tokens }) = self.clocks.remove(&seq_id) else {
            return Timing { first_token: Duration::ZERO, total: Duration::ZERO };
        };
        let first = tokens.map_or(now, |(first, _)| first);
        Timing { first_token: first - arrival, total: now - arrival }
    }
}
