//! One caller's requests.

use std::sync::Arc;
use std::time::Instant;

use crate::post::Owner;
use crate::{Progress, Service, ServiceError};

/// Requests that one caller waits for. When it is dropped, those that have not ended are too.
pub struct Call {
    service: Arc<Service>,
    owner: Owner,
    /// Requests whose last event has not been handed out.
    pending: usize,
}

impl Call {
    pub(crate) fn new(service: Arc<Service>, owner: Owner, pending: usize) -> Self {
        Self { service, owner, pending }
    }

    /// Requests that have not ended.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// Waits for news until `until`, and drives the engine meanwhile if nobody else does; at once where nothing is pending.
    /// `interrupted` is asked between slices of the steps that this caller drives.
    ///
    /// # Errors
    /// What a step that this caller drove failed with; [`ServiceError::Aborted`] when its requests are gone.
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
        // Refused in a forked child only, where there is no engine to tell.
        if let Ok(mut post) = self.service.post() {
            post.close_box(self.owner);
        }
    }
}
