//! Calls: what one caller has asked for and waits for.

use std::sync::Arc;
use std::time::Instant;

use crate::error::ServiceError;
use crate::post::Owner;
use crate::request::Request;
use crate::service::{Progress, Service};

/// Requests that one caller waits for. When the call is dropped, so are those of its requests that have not ended.
pub struct Call {
    service: Arc<Service>,
    owner: Owner,
    /// Requests whose last event has not been handed out.
    pending: usize,
}

impl Service {
    /// Takes requests in: all, or none. They are the [`Call`]'s, and are dropped with it.
    ///
    /// # Errors
    /// Says what is wrong with a request; this is checked while the engine computes. Only an id that a sequence added by
    /// hand has may be found out later: it is then refused by an event.
    pub fn submit(self: &Arc<Self>, requests: Vec<Request>) -> Result<Call, ServiceError> {
        self.check(&requests)?;
        let seq_ids: Vec<u64> = requests.iter().map(|request| request.seq_id).collect();
        let owner = {
            let mut post = self.post()?;
            let owner = post.open_box();
            if let Err(error) = post.submit(owner, requests) {
                post.close_box(owner);
                return Err(error);
            }
            owner
        };
        let call = Call { service: Arc::clone(self), owner, pending: seq_ids.len() };
        self.settle_if_free(owner, &seq_ids)?;
        Ok(call)
    }
}

impl Call {
    /// Requests that have not ended.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// Waits for news of its requests until `until`, and drives the engine meanwhile if nobody else does. Returns at once
    /// where no request is pending. `interrupted` is asked between slices of the steps that this caller drives.
    ///
    /// # Errors
    /// The error of a step that this caller drove; [`ServiceError::Aborted`] when its requests are gone.
    pub fn advance(&mut self, until: Instant, interrupted: &mut dyn FnMut() -> bool) -> Result<Progress, ServiceError> {
        if self.pending == 0 {
            return Ok(Progress::default());
        }
        let progress = self.service.advance(self.owner, until, interrupted)?;
        self.pending = self.pending.saturating_sub(progress.events.iter().filter(|event| event.is_last()).count());
        Ok(progress)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // The post is refused in a forked child alone, where there is no engine to tell.
        if let Ok(mut post) = self.service.post() {
            post.close_box(self.owner);
        }
    }
}
