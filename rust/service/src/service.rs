//! The service: an engine for any number of callers.

use std::sync::{Arc, Condvar, MutexGuard, PoisonError};
use std::time::Instant;

use nanovllm_engine::{LlmEngine, RequestLimits};
use nanovllm_tokenizer::Tokenizer;

use crate::driver::{Driver, Pumped};
use crate::error::ServiceError;
use crate::exclusive::{Exclusive, Refusal, Turn};
use crate::metrics::Metrics;
use crate::post::{Computed, NOBODY, Owner, Post, PostOffice, Wheel};
use crate::request::{Event, Request};

/// What a caller that waited is given.
#[derive(Debug, Default)]
pub struct Progress {
    /// News of its requests, in order.
    pub events: Vec<Event>,
    /// Prompt tokens a second in the last prefill step that this caller drove.
    pub prefill_speed: Option<f64>,
    /// Tokens a second in the last decode step that this caller drove.
    pub decode_speed: Option<f64>,
}

impl Progress {
    fn note(&mut self, pumped: Pumped) {
        let speed = pumped.num_tokens.unsigned_abs() as f64 / pumped.time.as_secs_f64().max(1e-9);
        match pumped.num_tokens {
            1.. => self.prefill_speed = Some(speed),
            0 => {}
            _ => self.decode_speed = Some(speed),
        }
    }
}

/// An engine that any thread may ask.
pub struct Service {
    engine: Arc<Exclusive<Option<Driver>>>,
    post: PostOffice,
    limits: RequestLimits,
}

impl Service {
    /// A service over an engine. Without a tokenizer there is no text to watch.
    pub fn new(engine: LlmEngine, tokenizer: Option<Arc<Tokenizer>>) -> Arc<Self> {
        let (post, limits) = (PostOffice::new(), engine.limits());
        let driver = Driver::new(engine, post.clone(), tokenizer);
        Arc::new(Self { engine: Arc::new(Exclusive::new("the engine", Some(driver))), post, limits })
    }

    /// The engine itself, for whoever steps it by hand: `None` once it was closed.
    pub fn engine(&self) -> &Arc<Exclusive<Option<Driver>>> {
        &self.engine
    }

    /// The limits that a request must keep within.
    pub fn limits(&self) -> RequestLimits {
        self.limits
    }

    /// What the engine has computed for all callers since the service was made. What the step under way has done counts as
    /// prefilled until it ends; a step that is taken back does not count then.
    ///
    /// # Errors
    /// [`ServiceError::Refused`] in a forked process.
    pub fn computed(&self) -> Result<Computed, ServiceError> {
        let post = self.post()?;
        let Computed { prefilled, generated } = post.computed;
        Ok(Computed { prefilled: prefilled + post.rows_under_way, generated })
    }

    /// What it has done and how fast, as of the last step: this waits for nothing.
    ///
    /// # Errors
    /// [`ServiceError::Refused`] in a forked process.
    pub fn metrics(&self) -> Result<Metrics, ServiceError> {
        let post = self.post()?;
        let mut metrics = post.metrics;
        metrics.engine.num_waiting += post.adds.len();
        metrics.engine.requests += post.adds.len() as u64;
        Ok(metrics)
    }

    /// The post, unless this is a forked process, in which its holder may not exist.
    pub(crate) fn post(&self) -> Result<MutexGuard<'_, Post>, ServiceError> {
        if !self.engine.is_of_this_process() {
            self.engine.check()?; // says so
        }
        Ok(self.post.lock())
    }

    /// Takes a request in that no caller waits for: [`step`](Self::step) hands out its events.
    ///
    /// # Errors
    /// The same as [`submit`](Self::submit)'s.
    pub fn add(&self, request: Request) -> Result<(), ServiceError> {
        self.check(std::slice::from_ref(&request))?;
        let seq_id = request.seq_id;
        self.post()?.submit(NOBODY, vec![request])?;
        self.settle_if_free(NOBODY, &[seq_id])
    }

    /// Checks that the service works and that the engine can take these requests.
    pub(crate) fn check(&self, requests: &[Request]) -> Result<(), ServiceError> {
        self.post()?.check_failure()?;
        for request in requests {
            self.limits.check_request(&request.token_ids, &request.params, request.pooling)?;
        }
        Ok(())
    }

    /// Hands the inbox to the engine if nobody has its turn. If it refuses one of these requests, that is the error.
    pub(crate) fn settle_if_free(&self, owner: Owner, seq_ids: &[u64]) -> Result<(), ServiceError> {
        let mut turn = match self.engine.try_lock() {
            Ok(Some(turn)) => turn,
            Ok(None) => return Ok(()),
            // This thread is in the middle of a step; the next one will hand the inbox over.
            Err(refusal) if refusal.is_reentry() => return Ok(()),
            Err(refusal) => return Err(self.failure_or(refusal)),
        };
        let refused = turn.as_mut().map(Driver::settle).unwrap_or_default();
        drop(turn);
        let Some(&first) = seq_ids.iter().find(|seq_id| refused.contains(seq_id)) else { return Ok(()) };
        let mut post = self.post()?;
        let Some(mailbox) = post.boxes.get_mut(&owner) else { return Ok(()) };
        let refusal = mailbox.events.iter().position(|event| event.seq_id() == first);
        match refusal.map(|at| mailbox.events.remove(at)) {
            Some(Event::Failed { error, .. }) => Err(error),
            _ => Ok(()),
        }
    }

    /// Drops a request of any caller, who is told, or a sequence that was added by hand. Waits for the step under way to
    /// end. False where there is none of that id.
    ///
    /// # Errors
    /// [`ServiceError::Refused`] when the engine's turn cannot be had, [`ServiceError::Closed`] after
    /// [`close`](Self::close).
    pub fn abort(&self, seq_id: u64) -> Result<bool, ServiceError> {
        let mut turn = self.turn()?;
        let driver = turn.as_mut().ok_or(ServiceError::Closed)?;
        driver.settle();
        let is_queued = self.post()?.abort(seq_id);
        // A request of this id that somebody submits from here on is another one, and is left alone.
        let by_hand = !is_queued && driver.abort(seq_id);
        driver.settle();
        let mut post = self.post()?;
        let Some(mailbox) = post.boxes.get_mut(&NOBODY) else { return Ok(is_queued || by_hand) };
        // Nobody wants to hear of it any more.
        let before = mailbox.events.len();
        mailbox.events.retain(|event| event.seq_id() != seq_id);
        Ok(is_queued || by_hand || mailbox.events.len() < before)
    }

    /// Hands out the events that nobody waits for; where there are none, takes one step. Returns them with the step's
    /// number of tokens, 0 where none was taken.
    ///
    /// # Errors
    /// Those of [`Driver::pump`], and why a request failed; the other events are then handed out by the next call.
    pub fn step(&self, interrupted: &mut dyn FnMut() -> bool) -> Result<(Vec<Event>, i64), ServiceError> {
        let events = self.post()?.take_nobodys()?;
        if !events.is_empty() {
            return Ok((events, 0));
        }
        let pumped = self.pump(interrupted)?;
        Ok((self.post()?.take_nobodys()?, pumped.num_tokens))
    }

    /// Whether every request has ended, and the events that no caller waits for have been handed out.
    ///
    /// # Errors
    /// The same as [`abort`](Self::abort)'s.
    pub fn is_finished(&self) -> Result<bool, ServiceError> {
        let mut turn = self.turn()?;
        let driver = turn.as_mut().ok_or(ServiceError::Closed)?;
        let is_finished = driver.engine().is_finished();
        Ok(is_finished && !self.post()?.has_mail(NOBODY))
    }

    /// Waits for the engine's turn.
    fn turn(&self) -> Result<Turn<'_, Option<Driver>>, ServiceError> {
        self.engine.lock().map_err(|refusal| self.failure_or(refusal))
    }

    /// Why a turn cannot be had: the reason that the service has ended, if it has, else the refusal.
    fn failure_or(&self, refusal: Refusal) -> ServiceError {
        self.post().and_then(|post| post.check_failure()).err().unwrap_or(refusal.into())
    }

    /// Takes one step on the caller's thread.
    fn pump(&self, interrupted: &mut dyn FnMut() -> bool) -> Result<Pumped, ServiceError> {
        self.post()?.check_failure()?;
        let mut turn = self.turn()?;
        let result = turn.as_mut().ok_or(ServiceError::Closed)?.pump(interrupted);
        if let Err(ServiceError::Panicked(panic)) = &result {
            turn.break_it(panic);
        }
        result
    }

    /// Waits for news of `owner`'s requests until `until`, driving the engine meanwhile if nobody else does.
    pub(crate) fn advance(
        &self,
        owner: Owner,
        until: Instant,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Progress, ServiceError> {
        // If this thread has the wheel already, further up its stack, waiting would be for ever.
        if let Err(refusal) = self.engine.check()
            && refusal.is_reentry()
        {
            return Err(refusal.into());
        }
        let mut progress = Progress::default();
        let mut post = self.post()?;
        loop {
            progress.events = post.take(owner);
            if !progress.events.is_empty() || Instant::now() >= until {
                // It may have been woken to take the wheel, and does not: another caller should.
                post.wake_one();
                return Ok(progress);
            }
            post.check_failure()?;
            if post.may_drive() {
                post.wheel = Wheel::Caller;
                drop(post);
                let driven = self.drive_for(owner, until, &mut progress, interrupted);
                post = self.post()?;
                post.let_go();
                driven?;
            } else {
                let Some(mailbox) = post.boxes.get_mut(&owner) else { return Err(ServiceError::Aborted) };
                mailbox.is_waiting = true;
                let bell = Arc::clone(&mailbox.bell);
                post = sleep(&bell, post, Some(until));
                if let Some(mailbox) = post.boxes.get_mut(&owner) {
                    mailbox.is_waiting = false;
                }
            }
        }
    }

    /// Steps until `owner` has mail, it is time to look up, or the wheel is wanted.
    fn drive_for(
        &self,
        owner: Owner,
        until: Instant,
        progress: &mut Progress,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<(), ServiceError> {
        loop {
            let pumped = self.pump(interrupted)?;
            progress.note(pumped);
            let post = self.post()?;
            if post.has_mail(owner) || post.is_wanted || Instant::now() >= until {
                return Ok(());
            }
            if post.is_at_rest() {
                // Its requests have ended without an event, so somebody has stepped by hand.
                return Err(ServiceError::Aborted);
            }
        }
    }

    /// Drives the engine on this thread until [`end`](Self::end): callers then only wait. Sleeps while there is nothing to
    /// do. A step that fails ends the requests of every caller with its error.
    ///
    /// # Errors
    /// What ends it other than [`end`](Self::end): [`ServiceError::Refused`], [`ServiceError::Closed`] or
    /// [`ServiceError::Panicked`].
    pub fn drive(&self) -> Result<(), ServiceError> {
        let mut post = self.post()?;
        post.is_wanted = true;
        while post.wheel != Wheel::Free && post.failure.is_none() {
            let work = Arc::clone(&post.work);
            post = sleep(&work, post, None);
        }
        post.is_wanted = false;
        post.check_failure()?;
        post.wheel = Wheel::Thread;
        drop(post);
        let result = self.drive_until_ended();
        let mut post = self.post()?;
        post.is_ending = false;
        if let Err(error) = &result {
            post.fail_all(error);
            post.fail_for_good(error);
        }
        post.let_go();
        result
    }

    fn drive_until_ended(&self) -> Result<(), ServiceError> {
        loop {
            let mut post = self.post()?;
            while post.is_at_rest() && !post.is_ending && post.failure.is_none() {
                let work = Arc::clone(&post.work);
                post = sleep(&work, post, None);
            }
            post.check_failure()?;
            if post.is_ending {
                return Ok(());
            }
            drop(post);
            match self.pump(&mut || false) {
                Ok(_) => {}
                Err(error @ ServiceError::Engine(_)) => {
                    let mut post = self.post()?;
                    post.fail_all(&error);
                    // Only what was added by hand is left, if anything, and would fail again.
                    post.is_idle = true;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Has the thread in [`drive`](Self::drive), or the next one to call it, return; callers then drive the engine
    /// themselves again.
    ///
    /// # Errors
    /// [`ServiceError::Refused`] in a forked process.
    pub fn end(&self) -> Result<(), ServiceError> {
        let mut post = self.post()?;
        post.is_ending = true;
        post.work.notify_all();
        Ok(())
    }

    /// Closes the service: later calls are refused, and every request fails. The engine, if nobody closed it before, is the
    /// caller's to drop; what a panic has left of one is dropped here.
    ///
    /// # Errors
    /// [`ServiceError::Refused`] when the engine's turn cannot be had.
    pub fn close(&self) -> Result<Option<LlmEngine>, ServiceError> {
        let engine = match self.engine.lock() {
            Ok(mut turn) => turn.take().map(Driver::into_engine),
            Err(refusal) if refusal.is_broken() => {
                drop(self.engine.try_salvage().and_then(|mut driver| driver.take()));
                None
            }
            Err(refusal) => return Err(self.failure_or(refusal)),
        };
        let mut post = self.post()?;
        post.fail_all(&ServiceError::Closed);
        post.fail_for_good(&ServiceError::Closed);
        Ok(engine)
    }
}

/// Sleeps until the bell is rung, or until `until`.
pub(crate) fn sleep<'a>(bell: &Condvar, post: MutexGuard<'a, Post>, until: Option<Instant>) -> MutexGuard<'a, Post> {
    match until {
        None => bell.wait(post).unwrap_or_else(PoisonError::into_inner),
        Some(until) => {
            let left = until.saturating_duration_since(Instant::now());
            bell.wait_timeout(post, left).unwrap_or_else(PoisonError::into_inner).0
        }
    }
}
