//! What crosses between callers and whoever drives the engine: requests in, events out.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use nanovllm_engine::EngineError;

use crate::error::ServiceError;
use crate::metrics::Metrics;
use crate::request::{Event, Request};

/// A request that was handed in, and when.
pub(crate) struct Added {
    pub(crate) request: Request,
    pub(crate) arrival: Instant,
}

/// Tokens that the engine has computed, whoever asked for them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Computed {
    /// Rows of prefill steps.
    pub prefilled: u64,
    /// Tokens chosen.
    pub generated: u64,
}

/// Names whoever gets a request's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Owner(u64);

/// Owns requests that no caller waits for; [`Service::step`](crate::Service::step) hands out their events.
pub(crate) const NOBODY: Owner = Owner(0);

/// An owner's events, and the bell that is rung for it.
#[derive(Default)]
pub(crate) struct Mailbox {
    pub(crate) events: Vec<Event>,
    pub(crate) bell: Arc<Condvar>,
    /// Whether a thread sleeps until the bell rings.
    pub(crate) is_waiting: bool,
}

/// Who drives the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wheel {
    /// Nobody.
    Free,
    /// A caller, for as long as it waits.
    Caller,
    /// The thread in [`Service::drive`](crate::Service::drive).
    Thread,
}

/// The post: what callers and the driver leave for each other. It is behind one lock.
pub(crate) struct Post {
    /// Requests that the engine does not have yet, in the order they came.
    pub(crate) adds: Vec<Added>,
    /// Requests that the engine is to drop.
    pub(crate) aborts: Vec<u64>,
    /// Who owns each request whose last event has not been posted.
    owners: HashMap<u64, Owner>,
    pub(crate) boxes: HashMap<Owner, Mailbox>,
    next_owner: u64,
    /// Who drives the engine now; all others sleep.
    pub(crate) wheel: Wheel,
    /// Whether the thread of [`Service::drive`](crate::Service::drive) waits for a caller to let go of the wheel.
    pub(crate) is_wanted: bool,
    /// Whether that thread is to end.
    pub(crate) is_ending: bool,
    /// Whether the last look at the engine found nothing to do, and nobody has touched it since.
    pub(crate) is_idle: bool,
    /// Rung for the driving thread when there is something to do.
    pub(crate) work: Arc<Condvar>,
    /// What watchers see: as of the last step.
    pub(crate) metrics: Metrics,
    /// What the steps that have ended computed.
    pub(crate) computed: Computed,
    /// Rows that the step under way has computed.
    pub(crate) rows_under_way: u64,
    /// Why nothing will happen any more; `None` while the service works.
    pub(crate) failure: Option<ServiceError>,
}

/// The post behind its lock, shared by callers and the engine's driver.
#[derive(Clone)]
pub(crate) struct PostOffice(Arc<Mutex<Post>>);

impl PostOffice {
    pub(crate) fn new() -> Self {
        let boxes = HashMap::from([(NOBODY, Mailbox::default())]);
        Self(Arc::new(Mutex::new(Post {
            adds: Vec::new(),
            aborts: Vec::new(),
            owners: HashMap::new(),
            boxes,
            next_owner: 1,
            wheel: Wheel::Free,
            is_wanted: false,
            is_ending: false,
            is_idle: false,
            work: Arc::default(),
            metrics: Metrics::default(),
            computed: Computed::default(),
            rows_under_way: 0,
            failure: None,
        })))
    }

    /// Nothing that waits and no foreign code may run while this is held.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Post> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Post {
    /// A new owner with an empty box.
    pub(crate) fn open_box(&mut self) -> Owner {
        let owner = Owner(self.next_owner);
        self.next_owner += 1;
        self.boxes.insert(owner, Mailbox::default());
        owner
    }

    /// Takes requests in for `owner`, all or none. They have been checked against the engine's limits.
    ///
    /// # Errors
    /// [`EngineError::DuplicateSeqId`] for an id that another request has; what [`failure`](Self::failure) says, where it
    /// says something.
    pub(crate) fn submit(&mut self, owner: Owner, requests: Vec<Request>) -> Result<(), ServiceError> {
        self.check_failure()?;
        if !self.boxes.contains_key(&owner) {
            return Err(ServiceError::Closed); // nobody would hear of them
        }
        let mut seq_ids = HashSet::new();
        for request in &requests {
            if self.owners.contains_key(&request.seq_id) || !seq_ids.insert(request.seq_id) {
                return Err(EngineError::DuplicateSeqId(request.seq_id).into());
            }
        }
        self.owners.extend(seq_ids.into_iter().map(|seq_id| (seq_id, owner)));
        let arrival = Instant::now();
        self.adds.extend(requests.into_iter().map(|request| Added { request, arrival }));
        self.work.notify_all();
        Ok(())
    }

    /// Drops a request that has not ended; a caller that waits for it is told. False where there is none of that id.
    pub(crate) fn abort(&mut self, seq_id: u64) -> bool {
        let Some(&owner) = self.owners.get(&seq_id) else { return false };
        if owner == NOBODY {
            self.owners.remove(&seq_id);
        } else {
            self.post(Event::Failed { seq_id, error: ServiceError::Aborted });
        }
        self.withdraw(&HashSet::from([seq_id]));
        true
    }

    /// Closes an owner's box and drops all its requests, under one lock: nothing of it is left whatever interrupts the
    /// caller.
    pub(crate) fn close_box(&mut self, owner: Owner) {
        if let Some(mailbox) = self.boxes.remove(&owner) {
            mailbox.bell.notify_all();
        }
        let seq_ids: HashSet<u64> =
            self.owners.iter().filter(|&(_, &of)| of == owner).map(|(&seq_id, _)| seq_id).collect();
        self.owners.retain(|_, of| *of != owner);
        self.withdraw(&seq_ids);
        self.work.notify_all();
        self.wake_one();
    }

    /// Drops those of these requests that are an owner's, which is not told.
    pub(crate) fn drop_requests(&mut self, owner: Owner, mut seq_ids: HashSet<u64>) {
        seq_ids.retain(|seq_id| self.owners.get(seq_id) == Some(&owner));
        self.owners.retain(|seq_id, _| !seq_ids.contains(seq_id));
        self.withdraw(&seq_ids);
        self.work.notify_all();
    }

    /// Takes requests out of the inbox, and has the engine drop those that it has already.
    fn withdraw(&mut self, seq_ids: &HashSet<u64>) {
        let mut waiting = HashSet::new();
        self.adds.retain(|Added { request, .. }| {
            let withdrawn = seq_ids.contains(&request.seq_id);
            if withdrawn {
                waiting.insert(request.seq_id);
            }
            !withdrawn
        });
        self.aborts.extend(seq_ids.difference(&waiting));
    }

    /// Puts an event into its owner's box and rings for it. What nobody submitted (a sequence added by hand) is nobody's.
    pub(crate) fn post(&mut self, event: Event) {
        let seq_id = event.seq_id();
        if self.aborts.contains(&seq_id) {
            return; // the request was dropped while this step was under way, and another may have its id by now
        }
        let owner = if event.is_last() { self.owners.remove(&seq_id) } else { self.owners.get(&seq_id).copied() };
        if let Some(mailbox) = self.boxes.get_mut(&owner.unwrap_or(NOBODY)) {
            mailbox.events.push(event);
            mailbox.bell.notify_all();
        }
    }

    /// Posts that the engine has refused a request, so that the engine has nothing to drop.
    pub(crate) fn refuse(&mut self, seq_id: u64, error: ServiceError) {
        let was_dropped = self.aborts.contains(&seq_id);
        self.aborts.retain(|&dropped| dropped != seq_id);
        if !was_dropped {
            self.post(Event::Failed { seq_id, error });
        }
    }

    /// Ends the requests that the engine has no more, though no step has said so: somebody has stepped or dropped them by
    /// hand. Callers that wait are told.
    pub(crate) fn end_orphans(&mut self, is_alive: impl Fn(u64) -> bool) {
        let waiting: HashSet<u64> = self.adds.iter().map(|added| added.request.seq_id).collect();
        let gone = |&(&seq_id, _): &(&u64, &Owner)| !waiting.contains(&seq_id) && !is_alive(seq_id);
        let orphans: Vec<(u64, Owner)> = self.owners.iter().filter(gone).map(|(&id, &owner)| (id, owner)).collect();
        for (seq_id, owner) in orphans {
            if owner == NOBODY {
                self.owners.remove(&seq_id);
            } else {
                self.post(Event::Failed { seq_id, error: ServiceError::Aborted });
            }
        }
    }

    /// Tells every owner of a request that it will not end, and has the engine drop it.
    pub(crate) fn fail_all(&mut self, error: &ServiceError) {
        let seq_ids: HashSet<u64> = self.owners.keys().copied().collect();
        for &seq_id in &seq_ids {
            self.post(Event::Failed { seq_id, error: error.clone() });
        }
        self.withdraw(&seq_ids);
    }

    /// Nothing will happen any more: everybody is told and woken.
    pub(crate) fn fail_for_good(&mut self, error: &ServiceError) {
        self.failure.get_or_insert_with(|| error.clone());
        self.boxes.values().for_each(|mailbox| {
            mailbox.bell.notify_all();
        });
        self.work.notify_all();
    }

    /// Checks that the service works.
    ///
    /// # Errors
    /// Why nothing will happen any more, if that is so.
    pub(crate) fn check_failure(&self) -> Result<(), ServiceError> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    /// Whether a caller that waits is to drive the engine itself.
    pub(crate) fn may_drive(&self) -> bool {
        self.wheel == Wheel::Free && !self.is_wanted
    }

    /// Lets go of the wheel, and wakes somebody else who waits to take it, if there is anybody.
    pub(crate) fn let_go(&mut self) {
        self.wheel = Wheel::Free;
        self.work.notify_all();
        self.wake_one();
    }

    /// Wakes one sleeper to drive the engine, if nobody does.
    pub(crate) fn wake_one(&self) {
        if self.may_drive()
            && let Some(mailbox) = self.boxes.values().find(|mailbox| mailbox.is_waiting)
        {
            mailbox.bell.notify_all();
        }
    }

    /// Takes an owner's events.
    pub(crate) fn take(&mut self, owner: Owner) -> Vec<Event> {
        self.boxes.get_mut(&owner).map(|mailbox| std::mem::take(&mut mailbox.events)).unwrap_or_default()
    }

    /// Takes the events that nobody waits for.
    ///
    /// # Errors
    /// Why a request failed; the other events are then left for later.
    pub(crate) fn take_nobodys(&mut self) -> Result<Vec<Event>, ServiceError> {
        let Some(mailbox) = self.boxes.get_mut(&NOBODY) else { return Ok(Vec::new()) };
        let failed = mailbox.events.iter().position(|event| matches!(event, Event::Failed { .. }));
        match failed.map(|at| mailbox.events.remove(at)) {
            Some(Event::Failed { error, .. }) => Err(error),
            _ => Ok(std::mem::take(&mut mailbox.events)),
        }
    }

    /// Whether an owner has mail.
    pub(crate) fn has_mail(&self, owner: Owner) -> bool {
        self.boxes.get(&owner).is_some_and(|mailbox| !mailbox.events.is_empty())
    }

    /// Whether the engine has been told everything.
    pub(crate) fn is_settled(&self) -> bool {
        self.adds.is_empty() && self.aborts.is_empty()
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.is_idle && self.is_settled()
    }

    /// Says that the engine may have something to do.
    pub(crate) fn note_work(&mut self) {
        self.is_idle = false;
        self.work.notify_all();
    }
}
