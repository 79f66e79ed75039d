//! The door between a running engine and programs that step it by hand ([`crate::by_hand`]). It stays shut until a program
//! looks at the engine's scheduler; until then the engine calls nothing in that folder.

use std::sync::{Arc, OnceLock};

use nanovllm_service::Service;
use pyo3::prelude::*;

use crate::by_hand::home::Home;
use crate::ended::Ended;
use crate::guarded::Turns;

/// A running engine, with the home of its sequences once somebody has asked for it.
pub(crate) struct Door {
    service: Arc<Service>,
    home: OnceLock<Arc<Home>>,
    ended: Arc<Ended>,
}

impl Door {
    /// A shut door.
    pub(crate) fn new(service: Arc<Service>) -> Arc<Self> {
        Arc::new(Self { service, home: OnceLock::new(), ended: Arc::default() })
    }

    /// The engine itself.
    pub(crate) fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// The home of the engine's sequences. From its first call on, sequences that end are handed to this home.
    pub(crate) fn open(&self, py: Python<'_>) -> PyResult<&Arc<Home>> {
        if let Some(home) = self.home.get() {
            return Ok(home);
        }
        self.service.engine().peek(py, |driver| {
            self.home.get_or_init(|| Home::of_engine(self.service.engine(), driver.as_mut(), &self.ended))
        })
    }

    /// The home, if the door was opened.
    pub(crate) fn home(&self) -> Option<&Arc<Home>> {
        self.home.get()
    }

    /// Drops the Python objects of sequences that have ended; to be called after each call of the engine, with the GIL and
    /// without a lock.
    pub(crate) fn release_ended(&self) {
        self.ended.release();
    }
}
