//! Hubs: the requests of many callers, whose news one thread hands on.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use crate::error::ServiceError;
use crate::post::Owner;
use crate::request::{Event, Request};
use crate::service::{Service, sleep};

/// Requests that come and go while one thread waits for the news of all. A hub drives nothing: a thread in
/// [`Service::drive`] does. When it is dropped, so are those of its requests that have not ended.
pub struct Hub {
    service: Arc<Service>,
    owner: Owner,
}

impl Service {
    /// A hub without requests.
    ///
    /// # Errors
    /// [`ServiceError::Refused`] in a forked process.
    pub fn hub(self: &Arc<Self>) -> Result<Hub, ServiceError> {
        let owner = self.post()?.open_box();
        Ok(Hub { service: Arc::clone(self), owner })
    }
}

impl Hub {
    /// Takes requests in: all, or none. It waits for nothing.
    ///
    /// # Errors
    /// Says what is wrong with a request. Only an id that a sequence added by hand has is found out later: it is then refused by
    /// an event.
    pub fn submit(&self, requests: Vec<Request>) -> Result<(), ServiceError> {
        self.service.check(&requests)?;
        self.service.post()?.submit(self.owner, requests)
    }

    /// Drops requests, of which nothing more is told; the engine lets go of them before its next step. It waits for nothing.
    ///
    /// # Errors
    /// [`ServiceError::Refused`] in a forked process.
    pub fn drop_requests(&self, seq_ids: &[u64]) -> Result<(), ServiceError> {
        self.service.post()?.drop_requests(self.owner, seq_ids.iter().copied().collect::<HashSet<u64>>());
        Ok(())
    }

    /// Waits for news until `until`; none if there was none.
    ///
    /// # Errors
    /// [`ServiceError::Closed`] once [`close`](Self::close) was called; why nothing will happen any more, after the last news.
    pub fn wait(&self, until: Instant) -> Result<Vec<Event>, ServiceError> {
        let mut post = self.service.post()?;
        loop {
            let events = post.take(self.owner);
            if !events.is_empty() {
                return Ok(events);
            }
            post.check_failure()?;
            let Some(mailbox) = post.boxes.get(&self.owner) else { return Err(ServiceError::Closed) };
            if Instant::now() >= until {
                return Ok(events);
            }
            let bell = Arc::clone(&mailbox.bell);
            post = sleep(&bell, post, Some(until));
        }
    }

    /// Drops all requests; whoever waits is told.
    ///
    /// # Errors
    /// [`ServiceError::Refused`] in a forked process.
    pub fn close(&self) -> Result<(), ServiceError> {
        self.service.post()?.close_box(self.owner);
        Ok(())
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // The post is refused in a forked child alone, where there is no engine to tell.
        drop(self.close());
    }
}
